"""What are a model's tensors with the units of its groups in another order?

All moves along one dimension of a tensor are one, however many groups lie along it. Where few entries move they change places in
the tensors themselves, for a block, and go back afterwards: that costs next to nothing, whatever the tensors weigh.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from prunus.graph.grouping.groups import Group
from prunus.graph.grouping.members import Member

__all__ = ["reordered"]

_FEW = 0.25
"""Up to this share of the entries change places where they are."""


@contextmanager
def reordered(
    states: Mapping[str, Tensor],
    groups: tuple[Group, ...],
    orders: Mapping[str, Tensor],
    *,
    shared: Container[str] = (),
) -> Iterator[dict[str, Tensor]]:
    """Give all tensors with the units of every group in a new order, the same order in all of its members.

    Args:
        states: the tensors by name; what is given may share memory with them, and they are as they were after the block.
        orders: for each group by name, which unit comes to each place.
        shared: the names of tensors that others hold, too: nothing is written into them.
    """
    result = dict(states)
    undo: list[tuple[Tensor, int, Tensor, Tensor]] = []
    pending: dict[tuple[str, int], Tensor] = {}

    def move() -> None:
        for (name, dim), source in pending.items():
            tensor = result[name]
            to = torch.nonzero(source != torch.arange(len(source))).flatten()
            if len(to) > _FEW * len(source):
                result[name] = tensor.index_select(dim, source.to(tensor.device))
            elif len(to):
                if name in shared and tensor is states[name]:
                    tensor = result[name] = tensor.clone()
                to, origin = to.to(tensor.device), source[to].to(tensor.device)
                undo.append((tensor, dim, to, tensor.index_select(dim, to)))
                tensor.index_copy_(dim, to, tensor.index_select(dim, origin))
        pending.clear()

    try:
        for group in groups:
            order = orders[group.name]
            if group.containers:
                move()
                _swap_entries(result, group, order)
            moved = torch.nonzero(order != torch.arange(group.size)).flatten()
            origins = order[moved]
            for member in group.members:
                key = (member.tensor, member.dim)
                if key not in pending:
                    pending[key] = torch.arange(result[member.tensor].shape[member.dim])
                _compose(pending[key], member, moved, origins)
        move()
        yield result
    finally:
        for tensor, dim, to, held in reversed(undo):
            tensor.index_copy_(dim, to, held)


def _compose(source: Tensor, member: Member, moved: Tensor, origins: Tensor) -> None:
    """Add a member's move to those before it along the same dimension."""
    source[member.index[moved].reshape(-1)] = source[member.index[origins].reshape(-1)]


def _swap_entries(result: dict[str, Tensor], group: Group, order: Tensor) -> None:
    before = dict(result)
    for container in group.containers:
        for place, other in zip(group.entries, (group.entries[unit] for unit in order.tolist()), strict=True):
            here, there = f"{container}.{place}.", f"{container}.{other}."
            for name in before:
                if name.startswith(here):
                    result[name] = before[there + name.removeprefix(here)]
