"""Wrong couplings, planted in a right one: the certificate must see each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from prunus.graph import AxisGraph, Group, Member, certify
from prunus.graph.tracing.states import canonical_states, running_on

__all__ = ["FAULTS", "every_fault", "is_caught", "matters"]


def drop_a_member(group: Group, at: int) -> Group | None:
    members = tuple(member for i, member in enumerate(group.members) if i != at)
    return replace(group, members=members) if members else None


def shift_an_offset(group: Group, at: int) -> Group | None:
    if len(group.members) == 1:
        return None  # shifting all members alike is the same coupling under other numbers
    if group.size == 2:
        return None  # the two orders of two units commute: no permutation tells which of them is which
    return _with(group, at, group.members[at].index.roll(1, dims=0))


def transpose_a_factorisation(group: Group, at: int) -> Group | None:
    index = group.members[at].index
    units, positions = index.shape
    if positions == 1 or len(group.members) == 1:
        return None
    ordered = index.flatten().sort().values
    for wrong in (ordered.view(positions, units).T.contiguous(), ordered.view(units, positions)):
        if not torch.equal(wrong.sort().values, index.sort().values):
            return _with(group, at, wrong)
    return None


FAULTS: tuple[Callable[[Group, int], Group | None], ...] = (drop_a_member, shift_an_offset, transpose_a_factorisation)


def _with(group: Group, at: int, index: Tensor) -> Group:
    members = (replace(member, index=index) if i == at else member for i, member in enumerate(group.members))
    return replace(group, members=tuple(members))


def every_fault(graph: AxisGraph) -> Iterator[tuple[str, Member, Group]]:
    """Yield every fault that can be planted: its name, the member that it is in, and the wrong group."""
    for group in graph.groups:
        for at, member in enumerate(group.members):
            for plant in FAULTS:
                wrong = plant(group, at)
                if wrong is not None:
                    yield plant.__name__, member, wrong


def is_caught(model: nn.Module, inputs: tuple[Tensor, ...], graph: AxisGraph, wrong: Group) -> bool:
    """Tell whether the certificate freezes the wrong group and says so."""
    certified = certify(model, inputs, replace(graph, groups=(wrong,), stacks=()), tolerance=1e-6)
    return (
        certified.groups == ()
        and certified.frozen[-1].name == wrong.name
        and "permutation certificate" in certified.frozen[-1].reason
    )


@torch.no_grad()
def matters(model: nn.Module, inputs: tuple[Tensor, ...], member: Member) -> bool:
    """Tell whether the order of a member's entries has any influence on the output: without one nothing can be wrong.

    A bias of attention keys has none (softmax drops what all keys share), nor have a unit's entries behind a zero.
    """
    states = {name: value.double() for name, value in canonical_states(model).items() if value.is_floating_point()}
    expected = _run(model, inputs, states)
    tensor = states[member.tensor]
    for order in (torch.arange(tensor.shape[member.dim]).roll(1), torch.arange(tensor.shape[member.dim]).flip(0)):
        moved = _run(model, inputs, {**states, member.tensor: tensor.index_select(member.dim, order)})
        if not torch.allclose(moved, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max())):
            return True
    return False


def _run(model: nn.Module, inputs: tuple[Tensor, ...], states: dict[str, Tensor]) -> Tensor:
    with running_on(model, states):
        return model(*(value.double() if value.is_floating_point() else value for value in inputs))
