"""Which head dimensions must keep one and the same size, because the class holds one number for them?

Queries and keys could lose other units than the values, but ``forward`` mostly reads all three by one ``head_dim``. Then they are
one group, so that every choice of units is one that the class can follow.
"""

from __future__ import annotations

from dataclasses import replace
from math import lcm

import torch
from torch import Tensor

from prunus.graph.grouping.groups import AxisGraph, Group
from prunus.graph.grouping.members import Member
from prunus.graph.solver.axes import Atom, find, leaves, sum_of
from prunus.graph.solver.axis_positions import positions
from prunus.graph.tracing.observe import Attribute, Expression

__all__ = ["tie_head_dims"]


def tie_head_dims(graph: AxisGraph) -> AxisGraph:
    """Return ``graph`` without the head dimensions that ``forward`` takes from the same attribute as others: those take them in.

    Unit ``u`` of a group is then unit ``u`` of both. Where one axis is made of parts (rotary halves, and what isn't turned), the
    other goes with the parts, position by position. What is joined was proved group by group, and so it holds together.
    """
    if graph.solution is None:
        return graph
    of = {find(graph.solution.leaf[group.name]): group for group in graph.groups if group.kind == "head_dim"}
    groups = {group.name: group for group in graph.groups}
    tied = dict(graph.solution.tied)
    for axes in _sized_alike(graph, set(of)).values():
        first, *others = sorted(axes, key=lambda axis: find(axis).kind == "leaf")
        leads = {of[leaf].name: units for leaf, units in positions(first).items() if leaf in of}
        parts = [of[leaf] for axis in others if (leaf := find(axis)).kind == "leaf"]
        # What another attribute has joined already stays where it is.
        parts = [part for part in parts if part.name in groups and part.name not in {*leads, *tied}]
        if leads.keys() <= groups.keys():
            for part in parts:
                del groups[part.name]
            for name, units in leads.items() if parts else ():
                groups[name] = _joined(groups[name], parts, units)
                more = ((graph.solution.leaf[part.name], units.shape[1]) for part in parts)
                tied[name] = (*tied.get(name, ()), *more)
    return replace(graph, groups=tuple(groups.values()), solution=replace(graph.solution, tied=tied))


def _sized_alike(graph: AxisGraph, known: set[Atom]) -> dict[Attribute, list[Atom]]:
    """Return, for each attribute, the axes with ``known`` leaves that forward reads as so many; those of the same leaves once."""
    assert graph.solution is not None
    solver = graph.solution.solver
    found: dict[Attribute, dict[frozenset[Atom], Atom]] = {}
    for use in solver.trace.uses:
        read = solver.axis(use.node, use.dim) if use.kind == "size" else None
        attribute, axes = (None, []) if read is None else _read(use.expression, read)
        for axis in axes:
            parts = frozenset(leaves(axis)) & known
            if attribute is not None and parts:
                found.setdefault(attribute, {}).setdefault(parts, axis)
    return {
        attribute: [*axes.values()] for attribute, axes in found.items() if len({a.size for a in axes.values()}) == 1
    }


def _read(expression: Expression, axis: Atom) -> tuple[Attribute | None, list[Atom]]:
    """Return the attribute that an axis is read by, and the axis; where it is a multiple of it, the parts that lie side by side."""
    if isinstance(expression, Attribute):
        return expression, [axis]
    if not isinstance(expression, tuple) or expression[0] != "*" or find(axis).kind != "sum":
        return None, []
    attribute = next((part for part in expression[1:] if isinstance(part, Attribute)), None)
    if attribute is None or not all(isinstance(part, Attribute | int) for part in expression[1:]):
        return None, []
    found: list[Atom] = []
    taken: list[Atom] = []
    for part in find(axis).parts:
        taken.append(part)
        if sum(each.size for each in taken) == attribute.get():
            found.append(sum_of(taken))
            taken = []
    return (None, []) if taken else (attribute, found)


def _joined(lead: Group, parts: list[Group], units: Tensor) -> Group:
    """Return ``lead`` with the members of other groups; of theirs, ``units`` (units, positions) go with each unit of its own."""
    index = {(m.tensor, m.dim): [m.index] for m in lead.members}
    trained = {(m.tensor, m.dim): m.is_parameter for group in (lead, *parts) for m in group.members}
    for group in parts:
        for m in group.members:
            index.setdefault((m.tensor, m.dim), []).append(m.index[units].flatten(1))
    members = tuple(Member(*place, torch.cat(found, dim=1), trained[place]) for place, found in index.items())
    return replace(lead, members=members, multiple=lcm(lead.multiple, *(group.multiple for group in parts)))
