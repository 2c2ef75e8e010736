"""Tensors with the units of groups in another order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from graph_zoo import randomize
from prunus.graph import AxisGraph, Group, analyze, certify
from prunus.graph.reorder import reordered
from prunus.graph.tracing.states import canonical_states


class Dense(nn.Module):
    """Every layer reads all before it: as many groups lie along one dimension of the last."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 + 6 * i, 6, 1) for i in range(depth))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3 + 6 * i) for i in range(depth))
        self.out = nn.Conv2d(3 + 6 * depth, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = torch.cat([x, layer(norm(x).relu())], dim=1)
        return self.out(x).mean(dim=(2, 3))


def one_after_the_other(states: dict[str, Tensor], groups: tuple[Group, ...], orders: dict[str, Tensor]) -> Any:
    for group in groups:
        for member in group.members:
            source = torch.arange(states[member.tensor].shape[member.dim])
            source[member.index.reshape(-1)] = member.index[orders[group.name]].reshape(-1)
            states = {**states, member.tensor: states[member.tensor].index_select(member.dim, source)}
    return states


def a_case(depth: int) -> tuple[nn.Module, tuple[Tensor], AxisGraph]:
    model, inputs = randomize(Dense(depth)).eval(), (torch.randn(2, 3, 4, 4),)
    return model, inputs, analyze(model, inputs)


def test_all_moves_at_once_are_the_moves_one_after_the_other_and_afterwards_everything_is_as_it_was():
    model, _, graph = a_case(4)
    states = {name: value.detach().clone() for name, value in canonical_states(model).items()}
    before = {name: value.clone() for name, value in states.items()}
    everything, a_swap = (lambda n: torch.arange(n).roll(1)), (lambda n: torch.tensor([1, 0, *range(2, n)]))
    for order in (everything, a_swap):
        orders = {group.name: order(group.size) for group in graph.groups}
        expected = one_after_the_other(before, graph.groups, orders)
        with reordered(states, graph.groups, orders) as got:
            assert all(torch.equal(expected[name], got[name]) for name in before)
            assert any(not torch.equal(before[name], got[name]) for name in before)
        assert all(torch.equal(before[name], states[name]) for name in before)


def test_a_wrong_coupling_that_is_no_permutation_leaves_nothing_behind():
    model, _, graph = a_case(2)
    states = {name: value.detach().clone() for name, value in canonical_states(model).items()}
    before = {name: value.clone() for name, value in states.items()}
    group = graph.groups[0]
    for member in group.members:
        member.index[1] = member.index[2]
    with reordered(states, (group,), {group.name: torch.tensor([1, 0, *range(2, group.size)])}):
        pass
    assert all(torch.equal(before[name], states[name]) for name in before)


class Counted(TorchDispatchMode):
    """How many numbers are copied to other places."""

    moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.index_select, torch.ops.aten.index_copy_):
            self.moved += 1
        return out


def test_the_certificate_moves_along_a_dimension_once_however_many_groups_lie_along_it():
    for depth in (4, 12):
        model, inputs, graph = a_case(depth)
        assert len(graph.groups) >= depth
        with Counted() as counted:
            assert certify(model, inputs, graph).groups == graph.groups
        dimensions = len({(m.tensor, m.dim) for group in graph.groups for m in group.members})
        assert counted.moved <= 4 * dimensions
