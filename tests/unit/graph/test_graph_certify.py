"""A certificate that can't fail is none: nothing hides behind weights that hold one value only."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from prunus.apply import shrink
from prunus.graph import AxisGraph, Group, analyze, certify
from prunus.graph.grouping.members import Member


class Quiet(nn.Module):
    """Two hidden layers whose effect is scaled by nothing: a head of zeros, or a residual gate at zero."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.norm, self.b, self.head = nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 6), nn.Linear(6, 2)
        self.gate = nn.Parameter(torch.ones(()))
        if how == "head":
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        if how == "gate":
            nn.init.zeros_(self.gate)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gate * torch.relu(self.b(torch.relu(self.norm(self.a(x))))))


def without(graph: AxisGraph, group: str, tensor: str) -> AxisGraph:
    """Plant a fault: a member is forgotten."""
    groups = tuple(
        replace(g, members=tuple(m for m in g.members if m.tensor != tensor)) if g.name == group else g
        for g in graph.groups
    )
    assert groups != graph.groups
    return replace(graph, groups=groups)


@pytest.mark.parametrize("how", ["head", "gate", "plain"])
@pytest.mark.parametrize("forgotten", ["norm.weight", "norm.running_mean", "norm.running_var", "b.weight", "a.bias"])
def test_a_forgotten_member_is_caught_behind_zeros_and_in_constant_scales(how, forgotten):
    model, x = Quiet(how).eval(), torch.randn(5, 3)
    graph = analyze(model, (x,))
    assert certify(model, (x,), graph).groups == graph.groups
    certified = certify(model, (x,), without(graph, "a", forgotten))
    assert "a" in {frozen.name for frozen in certified.frozen}


@pytest.mark.parametrize("how", ["head", "gate"])
def test_a_class_that_cannot_follow_is_noticed_behind_zeros(how):
    class Fixed(Quiet):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.norm(self.a(x)))
            y = y * (1.0 if y.shape[1] == 8 else 2.0)  # the value, not the shape, depends on the size
            return self.head(self.gate * torch.relu(self.b(y)))

    torch.manual_seed(0)  # of some weights all that is left is cut off by the relu
    model, x = Fixed(how).eval(), torch.randn(5, 3)
    graph = analyze(model, (x,))
    assert shrink(model, (x,), graph, {"a": torch.arange(8) < 4}).kind == "graph"


def test_the_certificate_leaves_the_model_as_it_was():
    model, x = Quiet("head").eval(), torch.randn(5, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    certify(model, (x,), analyze(model, (x,)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Chain(nn.Module):
    """Two layers with so many units between them."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, units), nn.Linear(units, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))


def miscoupled(units: int, order: list[int]) -> AxisGraph:
    """Say that unit ``u`` of the first layer goes with unit ``order[u]`` of the second."""
    own, other = torch.arange(units).unsqueeze(1), torch.tensor(order).unsqueeze(1)
    members = (Member("a.weight", 0, own, True), Member("a.bias", 0, own, True), Member("b.weight", 1, other, True))
    return AxisGraph((Group("a", units, members),), ())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("units", [3, 4, 5])
def test_of_few_units_every_wrong_coupling_there_is_gets_caught(units, seed):
    model, x = Chain(units).eval(), torch.randn(4, 3)
    for order in itertools.permutations(range(units)):
        certified = certify(model, (x,), miscoupled(units, list(order)), seed=seed)
        assert bool(certified.groups) == (list(order) == list(range(units))), order


@pytest.mark.parametrize("units", [12, 13, 24, 36])
def test_of_many_units_a_coupling_that_is_off_by_some_places_or_backwards_or_a_grid_read_the_wrong_way_is_caught(units):
    model, x = Chain(units).eval(), torch.randn(4, 3)
    places = list(range(units))
    wrong = [places[n:] + places[:n] for n in places] + [(places[n:] + places[:n])[::-1] for n in places]
    wrong += [[row + 2 * column for row in range(2) for column in range(units // 2)] + places[units // 2 * 2 :]]
    for order in wrong:
        certified = certify(model, (x,), miscoupled(units, order))
        assert bool(certified.groups) == (order == places), order


def test_a_coupling_that_single_precision_can_not_tell_is_looked_at_in_double_precision():
    """The output holds what rounding leaves of a difference of nothing, many times over."""

    class Cancels(Chain):
        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.tanh(self.a(x))
            nothing = hidden.sum(dim=1, keepdim=True) - hidden.cumsum(dim=1)[:, -1:]
            return self.b(hidden) + 1e6 * nothing

    model, x, right = Cancels(24).eval(), torch.randn(16, 3), list(range(24))
    assert certify(model, (x,), miscoupled(24, right)).groups
    assert not certify(model, (x,), miscoupled(24, right[1:] + right[:1])).groups
