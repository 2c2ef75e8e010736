"""Head dimensions that the class holds one number for are one group."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from graph_zoo import randomize
from prunus.apply import follow_class, shrink
from prunus.graph import analyze, certify, tie_head_dims
from prunus.graph.costs.cost_model import count_model
from prunus.graph.costs.costs import unit_costs


class Heads(nn.Module):
    """Three layers, one number; ``rotary`` turns halves of queries and keys, so that their units are pairs."""

    def __init__(self, rotary: bool = False, own: bool = False) -> None:
        super().__init__()
        self.heads, self.dim, self.rotary, self.own = 2, 8, rotary, own
        self.value_dim = 8
        self.q, self.k, self.v, self.o = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(16, 2)
        self.scale = 8**-0.5

    def turned(self, y: Tensor) -> Tensor:
        half = self.dim // 2
        angle = torch.arange(y.shape[2], dtype=y.dtype)[:, None]
        return y * angle.cos() + torch.cat([-y[..., half:], y[..., :half]], -1) * angle.sin()

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        dims = (self.dim, self.dim, self.value_dim if self.own else self.dim)
        made = zip((self.q, self.k, self.v), dims, strict=True)
        q, k, v = (layer(x).view(n, t, self.heads, dim).transpose(1, 2) for layer, dim in made)
        if self.rotary:
            q, k = self.turned(q), self.turned(k)
        y = functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.o(y.transpose(1, 2).reshape(n, t, -1))


X = torch.randn(2, 5, 6)


def dims_of(graph):
    return [group for group in graph.groups if group.kind == "head_dim"]


@pytest.mark.parametrize(("rotary", "units"), [(False, 8), (True, 4)])
def test_one_number_makes_one_group_and_any_choice_keeps_the_class(rotary, units):
    model = randomize(Heads(rotary))
    whole = certify(model, (X,), analyze(model, (X,)))
    assert len(dims_of(whole)) == 2
    graph = follow_class(model, (X,), whole)
    (group,) = dims_of(graph)
    assert group.size == units
    assert {member.tensor for member in group.members} == {f"{x}.weight" for x in "qkvo"} | {f"{x}.bias" for x in "qkv"}
    keep = torch.rand(units, generator=torch.Generator().manual_seed(0)) < 0.6
    shrunk = shrink(model, (X,), graph, {group.name: keep})
    assert shrunk.kind == "eager"
    assert shrunk.model.q.out_features == shrunk.model.v.out_features == 2 * int(keep.sum()) * (8 // units)
    assert not certify(model, (X,), graph).frozen[len(graph.frozen) :], "what was joined should be proved as well"


class PartlyTurned(Heads):
    """Half of the head dimension is turned by the position, as in GPT-J and GPT-NeoX."""

    def turned(self, y: Tensor) -> Tensor:
        y, rest = y[..., :4], y[..., 4:]
        angle = torch.arange(y.shape[2], dtype=y.dtype)[:, None]
        return torch.cat([y * angle.cos() + torch.cat([-y[..., 2:], y[..., :2]], -1) * angle.sin(), rest], -1)


class Fused(Heads):
    """One layer, read as heads of three times the head dimension, of which parts are turned."""

    def __init__(self) -> None:
        super().__init__(rotary=True)
        self.qkv = nn.Linear(6, 48)
        del self.q, self.k, self.v

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, self.heads, 3 * self.dim).transpose(1, 2).chunk(3, dim=-1)
        y = functional.scaled_dot_product_attention(self.turned(q), self.turned(k), v, scale=self.scale)
        return self.o(y.transpose(1, 2).reshape(n, t, -1))


@pytest.mark.parametrize(
    ("make", "left"), [(Fused, 6), (lambda: PartlyTurned(rotary=True), 5)], ids=["fused", "partly turned"]
)
def test_an_axis_of_parts_takes_the_others_in_position_by_position(make, left):
    model = randomize(make())
    # The slices of the partly turned one are written as numbers, which no class follows: its class isn't asked.
    graph = tie_head_dims(certify(model, (X,), analyze(model, (X,))))
    assert not certify(model, (X,), graph).frozen[len(graph.frozen) :], "what was joined should be proved as well"
    (value_layer,) = {m.tensor for g in graph.groups for m in g.members} & {"v.weight", "qkv.weight"}
    size = dict(model.named_parameters())[value_layer].shape[0]
    seen = torch.cat([m.index.flatten() for g in dims_of(graph) for m in g.members if m.tensor == value_layer])
    assert seen.unique().numel() == size, "every output of the values should go with a unit"
    keep = {g.name: torch.arange(g.size) < g.size - 1 for g in dims_of(graph)}
    computed = shrink(model, (X,), graph, keep, prefer="graph").model
    assert computed(X).shape == (2, 5, 2)
    assert computed.get_submodule("o").weight.shape[1] == 2 * left


def test_numbers_of_their_own_leave_two_groups_and_the_given_graph_stays_as_it_is():
    model = randomize(Heads(own=True))
    graph = analyze(model, (X,))
    assert len(dims_of(tie_head_dims(graph))) == 2
    one = randomize(Heads())
    whole = analyze(one, (X,))
    assert len(dims_of(tie_head_dims(whole))) == 1
    assert len(dims_of(whole)) == 2
    qk, v = dims_of(whole)
    computed = shrink(one, (X,), whole, {qk.name: torch.arange(8) < 3, v.name: torch.arange(8) < 5})
    assert computed.kind == "graph"
    assert computed.model(X).shape == (2, 5, 2)


@pytest.mark.parametrize("rotary", [False, True])
def test_costs_count_every_axis_of_a_joined_group(rotary):
    model = randomize(Heads(rotary))
    graph = follow_class(model, (X,), analyze(model, (X,)))
    (group,) = dims_of(graph)
    small = shrink(model, (X,), graph, {group.name: torch.arange(group.size) < group.size - 1}).model
    counts = [g.size - (g.name == group.name) for g in graph.groups]
    for kind in ("params", "macs"):
        predicted = count_model(kind, graph, graph.groups, model)
        known = count_model(kind, again := analyze(small, (X,)), again.groups, small)
        assert predicted.total(counts) == known.total([g.size for g in again.groups])
    each, total = unit_costs(graph, model)
    fewer = unit_costs(analyze(small, (X,)), small)[1]
    assert each[group.name].macs == total - fewer
