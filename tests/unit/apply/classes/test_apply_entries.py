"""Whole modules leave: the model without them is the whole one in which they do nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from graph_zoo import randomize
from prunus.apply import follow_class, shrink
from prunus.apply.edits import Edits, diff, rebuild
from prunus.core.errors import ModelError
from prunus.graph import analyze, certify


class Block(nn.Module):
    """A residual block that knows its place."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place, self.norm, self.inner = place, nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 12), nn.GELU())
        self.out = nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(self.inner(self.norm(x)))


class Stack(nn.Module):
    """Residual blocks, a plain layer among them, and a first block that the others need."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
        self.blocks = nn.ModuleList(Block(place) for place in range(4))
        self.plain = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.plain(x))


class Mixture(nn.Module):
    """The best two of four experts for each row; the experts are modules, or slices of one tensor."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.n_experts, self.gate, self.head = how, 4, nn.Linear(6, 4, bias=False), nn.Linear(6, 2)
        if how == "modules":
            self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 6)) for _ in range(4))
        else:
            self.up, self.down = nn.Parameter(torch.randn(4, 6, 9)), nn.Parameter(torch.randn(4, 9, 6))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(2, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        y = torch.zeros_like(x)
        for number in range(self.n_experts):
            rows, place = torch.where(chosen == number)
            y = y.index_add(0, rows, self.expert(number, x[rows]) * weights[rows, place, None])
        return self.head(y)

    def expert(self, number: int, x: Tensor) -> Tensor:
        if self.how == "modules":
            return self.experts[number](x)
        return (x @ self.up[number]).relu() @ self.down[number]


def of(model: nn.Module, x: Tensor):
    graph = certify(model, (x,), analyze(model, (x,)))
    return follow_class(model, (x,), graph)


def test_only_residual_blocks_can_leave_and_the_rest_follows():
    model, x = randomize(Stack()), torch.randn(5, 3)
    graph = of(model, x)
    (stack,) = graph.stacks
    assert (stack.kind, stack.containers, stack.entries, stack.min_units) == ("block", ("blocks",), (0, 1, 2, 3), 1)
    keep = torch.tensor([True, False, False, True])
    small = shrink(model, (x,), graph, {stack.name: keep}).model
    assert [block.place for block in small.blocks] == [0, 1]
    assert len(model.blocks) == 4
    silent = copy.deepcopy(model)
    silent.blocks[1] = silent.blocks[2] = nn.Identity()
    assert torch.equal(small(x), silent(x))
    small.train()(torch.randn(7, 3)).square().mean().backward()


def test_a_block_that_others_need_is_found_out():
    class Needed(Stack):
        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            first = self.blocks[0]
            for number, block in enumerate(self.blocks):
                x = block(x) + (first.norm.weight[0] if number else 0.0) * 3
            return self.head(x)

    model, x = randomize(Needed()), torch.randn(5, 3)
    found = {unit for stack in of(model, x).stacks for unit in stack.entries}
    assert 0 not in found


@pytest.mark.parametrize("how", ["modules", "slices"])
def test_experts_leave_with_their_row_of_the_router(how):
    model, x = randomize(Mixture(how)), torch.randn(40, 6)
    graph = of(model, x)
    (stack,) = graph.stacks
    assert (stack.kind, stack.size, stack.min_units) == ("expert", 4, 2)
    keep = torch.tensor([True, False, True, True])
    small = shrink(model, (x,), graph, {stack.name: keep}).model
    assert (small.n_experts, small.gate.weight.shape[0]) == (3, 3)
    weights = (model.gate(x).masked_fill(~keep, -torch.inf)).softmax(-1)
    assert (weights.topk(2, -1).indices != 1).all()
    again = copy.deepcopy(model)
    again.gate.register_forward_hook(lambda module, given, out: out.masked_fill(~keep, -torch.inf))
    assert torch.allclose(small(x), again(x), atol=1e-6)
    with pytest.raises(ModelError, match=r"loses? all|at least"):
        shrink(model, (x,), graph, {stack.name: torch.tensor([True, False, False, False])})


def test_a_wrong_pairing_of_experts_fails_the_certificate():
    class Crossed(Mixture):
        def forward(self, x: Tensor) -> Tensor:
            place = torch.arange(4.0)[self.gate(x).topk(2, dim=-1).indices].sum(-1, keepdim=True)
            return super().forward(x) * place

    model, x = randomize(Crossed("modules")), torch.randn(40, 6)
    certified = certify(model, (x,), analyze(model, (x,)))
    assert not certified.stacks
    assert any("experts" in frozen.name and "permutation" in frozen.reason for frozen in certified.frozen)


def test_a_bundle_builds_the_shorter_stack_anew_after_two_cuts():
    model, x = randomize(Stack()), torch.randn(5, 3)
    small = model
    for _ in range(2):
        graph = of(small, x)
        keep = torch.ones(graph.stacks[0].size, dtype=torch.bool)
        keep[1] = False
        small = shrink(small, (x,), graph, {graph.stacks[0].name: keep}).model
    edits = Edits.from_dict(diff(Stack(), small).to_dict())
    assert edits.entries == {"blocks": (0, 3)}
    again = rebuild(Stack(), edits)
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(x), small(x))
    assert [block.place for block in again.blocks] == [0, 1]


def test_blocks_and_widths_are_not_cut_at_once():
    model, x = randomize(Stack()), torch.randn(5, 3)
    graph = of(model, x)
    keep = {graph.stacks[0].name: torch.tensor([True, True, True, False])}
    keep["embed"] = torch.arange(8) < 4
    with pytest.raises(ModelError, match="cut of their own"):
        shrink(model, (x,), graph, keep)
