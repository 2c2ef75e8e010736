"""Which groups can the class itself follow, and which would only the traced computation?

A class often computes one size from others (``width // heads``), and then it can't follow when all of them are cut. A trial cut
of half of everything shows that, and leaving one of the entangled groups whole mostly mends it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Set
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from prunus.apply.entries import stacks_that_follow
from prunus.apply.shrink import cut_down, difference
from prunus.graph import AxisGraph, Frozen
from prunus.graph.axes import find, leaves, leaves_of_product

__all__ = ["follow_class"]

_MOST_ALONE = 24
"""So many groups are tried one by one; with more, that would take longer than what it spares is worth."""


def follow_class(
    model: nn.Module,
    inputs: tuple[Any, ...],
    graph: AxisGraph,
    kwargs: Mapping[str, Any] | None = None,
    *,
    kinds: Container[str] | None = None,
) -> AxisGraph:
    """Return ``graph`` with those groups frozen that keep the model's class from running after a cut.

    Where nothing helps the groups come back as they are: cuts then give the traced computation. Of the stacks those units stay
    in the graph that the class can lose.

    Args:
        inputs: what the trial is run on, as for ``analyze``; ``graph`` comes from there.
        kinds: only groups of these kinds are going to be cut (default: all).
    """
    graph = replace(graph, stacks=stacks_that_follow(model, inputs, graph.stacks, kwargs))
    if graph.solution is None or not graph.groups:
        return graph
    trial = {
        group.name: torch.arange(group.size) < -(-max(1, group.size // 2) // group.multiple) * group.multiple
        for group in graph.groups
        if kinds is None or group.kind in kinds
    }
    trial = {name: mask for name, mask in trial.items() if not bool(mask.all())}
    first = ""

    def problem_of(attempt: Mapping[str, Tensor]) -> str:
        # The other units tell what units of no influence hide.
        others = {name: mask.flip(0) for name, mask in attempt.items()}
        for cut in (attempt, others):
            if found := difference(*cut_down(model, graph, cut), inputs, kwargs or {}):
                return found
        return ""

    works: Mapping[str, Tensor] = {}
    for attempt in _attempts(graph, trial):
        problem = problem_of(attempt)
        if not problem:
            works = attempt
            break
        first = first or problem
    if len(works) < len(trial) <= _MOST_ALONE:
        alone = {name: mask for name, mask in trial.items() if not problem_of({name: mask})}
        # A class that could lose little is no use: then the traced computation, which loses all, is the better result.
        least = _left(model, graph, works) if works else (_left(model, graph, {}) + _left(model, graph, trial)) / 2
        if alone and _left(model, graph, alone) <= least and not problem_of(alone):
            works = alone
    return _freeze(graph, trial.keys() - works.keys(), first) if works else graph


def _left(model: nn.Module, graph: AxisGraph, cut: Mapping[str, Tensor]) -> int:
    """Return how many parameters are left after a cut."""
    smaller = cut_down(model, graph, cut)[0] if cut else model
    return sum(parameter.numel() for parameter in smaller.parameters())


def _freeze(graph: AxisGraph, names: Set[str], problem: str) -> AxisGraph:
    reason = f"forward computes this size from other ones, so the class couldn't follow ({problem})"
    spared = tuple(Frozen(g.name, g.size, g.members, reason) for g in graph.groups if g.name in names)
    groups = tuple(group for group in graph.groups if group.name not in names)
    return replace(graph, groups=groups, frozen=(*graph.frozen, *spared))


def _attempts(graph: AxisGraph, trial: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
    """Yield what to cut: everything; then less, where two groups share a dimension (heads x head dimension)."""
    yield trial
    assert graph.solution is not None
    name_of = {find(leaf): name for name, leaf in graph.solution.leaf.items() if name in trial}
    states = graph.solution.solver.states.values()
    outer: set[str] = set()
    inner: set[str] = set()
    for axes in states:
        for atom in axes:
            names = [name_of[leaf] for leaf in leaves_of_product(atom) if leaf in name_of]
            outer.update(names[:-1] if len(names) > 1 else ())
            inner.update(names[-1:] if len(names) > 1 else ())
    # A width that the heads are computed from lies in the other dimensions of their parameters.
    widths: set[str] = set()
    for axes in states:
        here = {name_of[leaf] for atom in axes for leaf in leaves(atom) if leaf in name_of}
        widths |= here if here & (outer | inner) else set()
    for spared in (inner, outer, inner | outer, widths):
        left = {name: mask for name, mask in trial.items() if name not in spared}
        if spared and left:
            yield left
