"""Which head dimensions must keep one and the same size, because the class holds one number for them?

Queries and keys could lose other units than the values, but ``forward`` mostly reads all three by one ``head_dim``. Then they are
one group, so that every choice of units is one that the class can follow.
"""

from __future__ import annotations

from dataclasses import replace
from math import lcm

import torch
from torch import Tensor

from prunus.graph.axes import Atom, find, leaves, positions
from prunus.graph.groups import AxisGraph, Group, Member
from prunus.graph.observe import Attribute

__all__ = ["tie_head_dims"]


def tie_head_dims(graph: AxisGraph) -> AxisGraph:
    """Return ``graph`` with one group for all head dimensions that ``forward`` takes from one attribute.

    Unit ``u`` of the group is unit ``u`` of each of them. Where one has several positions for each unit (rotary halves), the others
    lose as many units at these positions. What is joined was proved group by group, and so it holds together.
    """
    if graph.solution is None:
        return graph
    of = {find(graph.solution.leaf[group.name]): group for group in graph.groups if group.kind == "head_dim"}
    groups = {group.name: group for group in graph.groups}
    tied = dict(graph.solution.tied)
    for axes in _sized_alike(graph, set(of)).values():
        first, *others = sorted(axes, key=lambda axis: next(leaves(axis)).size)
        lead, units = of[next(leaves(first))], positions(first)[next(leaves(first))]
        parts = [of[leaf] for axis in others if (leaf := find(axis)).kind == "leaf"]
        # A group that another attribute has joined already stays where it is.
        parts = [part for part in parts if part.name not in tied and part.name in groups]
        if parts and lead.name in groups and lead.name not in tied:
            for part in parts:
                del groups[part.name]
            groups[lead.name] = _joined(lead, parts, units)
            tied[lead.name] = tuple((graph.solution.leaf[part.name], units.shape[1]) for part in parts)
    return replace(graph, groups=tuple(groups.values()), solution=replace(graph.solution, tied=tied))


def _sized_alike(graph: AxisGraph, known: set[Atom]) -> dict[Attribute, list[Atom]]:
    """Return, for each attribute, the axes that forward reads as so many, one for each of the ``known`` leaves."""
    assert graph.solution is not None
    solver = graph.solution.solver
    found: dict[Attribute, dict[Atom, Atom]] = {}
    for use in solver.trace.uses:
        value = solver.values.get(use.node)
        if use.kind != "size" or not isinstance(use.expression, Attribute) or not value or use.dim >= len(value):
            continue
        axis = value[use.dim]
        if isinstance(axis, Atom) and len(parts := set(leaves(axis))) == 1 and parts <= known:
            found.setdefault(use.expression, {}).setdefault(parts.pop(), axis)
    return {
        attribute: [*axes.values()] for attribute, axes in found.items() if len({a.size for a in axes.values()}) == 1
    }


def _joined(lead: Group, parts: list[Group], units: Tensor) -> Group:
    """Return ``lead`` with the members of other groups; of theirs, ``units`` (units, positions) go with each unit of its own."""
    index = {(m.tensor, m.dim): [m.index] for m in lead.members}
    trained = {(m.tensor, m.dim): m.is_parameter for group in (lead, *parts) for m in group.members}
    for group in parts:
        for m in group.members:
            index.setdefault((m.tensor, m.dim), []).append(m.index[units].flatten(1))
    members = tuple(Member(*place, torch.cat(found, dim=1), trained[place]) for place, found in index.items())
    return replace(lead, members=members, multiple=lcm(lead.multiple, *(group.multiple for group in parts)))
