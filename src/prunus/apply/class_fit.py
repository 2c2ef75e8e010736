"""Which groups can the class itself follow, and which would only the traced computation?

A class often computes one size from others (``width // heads``), and then it can't follow when all of them are cut. A trial cut
of half of everything shows that, and leaving one of the entangled groups whole mostly mends it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from prunus.apply.classes.losable_entries import stacks_that_follow
from prunus.apply.difference import Trial, why_not_run
from prunus.apply.shrink import cut_down, cut_to_fit
from prunus.graph import AxisGraph, Frozen, tie_head_dims
from prunus.graph.solver.axes import leaves, leaves_of_product
from prunus.graph.tracing.garbage import settled
from prunus.graph.tracing.remembered import Remembered

__all__ = ["follow_class"]

_MOST_FAILURES = 30
"""So many cuts may fail; the groups that haven't fitted by then stay whole."""

_STRICT = 1e-11
"""What a trial may differ by: less than a cut may, so that what follows here follows whichever units go."""


@settled()
def follow_class(
    model: nn.Module,
    inputs: tuple[Any, ...],
    graph: AxisGraph,
    kwargs: Mapping[str, Any] | None = None,
    *,
    kinds: Container[str] | None = None,
) -> AxisGraph:
    """Return ``graph`` with those groups frozen that keep the model's class from running after a cut, and those joined that it
    has one size for.

    Where nothing helps the groups come back as they are: cuts then give the traced computation. Of the stacks those units stay
    in the graph that the class can lose.

    Args:
        inputs: what the trial is run on, as for ``analyze``; ``graph`` comes from there.
        kinds: only groups and stacks of these kinds are going to be cut, the others aren't tried (default: all).
    """
    asked = [stack for stack in graph.stacks if kinds is None or stack.kind in kinds]
    others = [stack for stack in graph.stacks if kinds is not None and stack.kind not in kinds]
    memory = Remembered()
    thin, slim = model, lambda: model
    if graph.solution is not None and graph.groups:
        graph, thin, slim = _groups_that_follow(model, inputs, graph, kwargs or {}, kinds, memory)
    found = stacks_that_follow(model, inputs, asked, kwargs, thin=thin, slim=slim, memory=memory)
    return replace(graph, stacks=(*others, *found))


def _groups_that_follow(
    model: nn.Module,
    inputs: tuple[Any, ...],
    graph: AxisGraph,
    kwargs: Mapping[str, Any],
    kinds: Container[str] | None,
    memory: Remembered,
) -> tuple[AxisGraph, nn.Module, Callable[[], nn.Module]]:
    """Return ``graph`` with the groups that the class can't follow frozen, the model without half of all others, and what makes
    a still slimmer one.
    """
    graph = tie_head_dims(graph)
    trial = {
        group.name: torch.arange(group.size) < _rounded(max(1, group.size // 2), group.multiple)
        for group in graph.groups
        if kinds is None or group.kind in kinds
    }
    trial = {name: mask for name, mask in trial.items() if not bool(mask.all())}
    problems: list[str] = []
    tried = Trial(model, memory=memory)
    thin: dict[frozenset[str], nn.Module] = {}

    @cache
    def half_fits(names: frozenset[str], last: bool) -> bool:
        if len(problems) == _MOST_FAILURES:
            return False
        cut = {name: trial[name].flip(0) if last else trial[name] for name in trial if name in names}
        if last and tried.is_proven({name: int(mask.sum()) for name, mask in cut.items()}):
            return True
        smaller, _, found = cut_to_fit(model, graph, cut, inputs, kwargs, tolerance=_STRICT, trial=tried)
        if found:
            problems.append(found)
            return False
        thin.clear()
        thin[names] = smaller
        return True

    def grown(halves: Sequence[bool]) -> tuple[frozenset[str], frozenset[str]]:
        def fits(names: frozenset[str]) -> bool:
            return all(half_fits(names, last) for last in halves)

        known = next((names for names in _attempts(graph, trial.keys()) if fits(names)), frozenset())
        return known, _grown_by_family(known, _families(graph, trial.keys()), fits)

    known, works = grown([False])
    # The other units tell what units of no influence hide: mostly nothing.
    if works and not half_fits(works, True):
        known, works = grown([False, True])
    if not known and works:
        # A class that could lose little is no use: then the traced computation, which loses all, is the better result.
        whole, least, most = (_left(tried, graph, {n: trial[n] for n in names}) for names in ((), works, trial))
        works = works if whole - least >= (whole - most) / 2 else known
    halved = thin.get(works, model)

    def slim() -> nn.Module:
        """Make the model with a quarter of these units, but three lest something broadcasts; the halved one if it won't run."""
        kept = {group.name: _rounded(max(3, group.size // 4), group.multiple) for group in graph.groups}
        cut = {
            name: torch.arange(len(trial[name])) < kept[name] for name in works if kept[name] < int(trial[name].sum())
        }
        rest = {name: trial[name] for name in works - cut.keys()}
        smaller = cut_down(model, graph, {**rest, **cut}, trial=tried)[0]
        return halved if why_not_run(smaller, inputs, kwargs, tried) else smaller

    return _freeze(graph, trial.keys() - works, problems[0]) if works and problems else graph, halved, slim


def _rounded(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _families(graph: AxisGraph, names: Set[str]) -> list[list[list[str]]]:
    """Return the groups of these names by what they are called in their block, and those together that several blocks have."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for group in graph.groups:
        if group.name in names:
            alike = re.sub(r"\d+", "*", group.name.partition("#")[0])
            role = group.kind, alike.rpartition(".")[2]
            found.setdefault(role, {}).setdefault(alike, []).append(group.name)
    return [list(families.values()) for families in found.values()]


def _grown_by_family(
    known: frozenset[str], roles: Sequence[Sequence[Sequence[str]]], fits: Callable[[frozenset[str]], bool]
) -> frozenset[str]:
    """Return ``known`` with all groups of a role that fit beside it, then with whole families, and then with single groups."""
    works = _grown(known, [frozenset(name for family in role for name in family) - known for role in roles], fits)
    for role in roles:
        left = [name for family in role for name in family if name not in works]
        # Of groups of one role that differ, the first or the last mostly fits; where neither does, the others don't either.
        ends = [frozenset({name}) for name in dict.fromkeys([*left[:1], *left[-1:]])]
        if not left or (len(left) > len(ends) and not any(fits(works | end) for end in ends)):
            continue
        if len(role) > 1:
            works = _grown(works, [frozenset(family) - works for family in role], fits)
        for family in role:
            alone = [frozenset({name}) for name in family if name not in works]
            grown = _grown(_grown(works, alone[:1], fits), alone[1:][-1:], fits)
            works = _grown(grown, alone[1:-1], fits) if grown > works else works
    return works


def _grown(
    works: frozenset[str], parts: Sequence[frozenset[str]], fits: Callable[[frozenset[str]], bool]
) -> frozenset[str]:
    """Return ``works`` with as many of the ``parts`` as fit beside it, halving what doesn't."""
    parts = [part for part in parts if part]
    if not parts:
        return works
    if fits(together := works.union(*parts)):
        return together
    if len(parts) > 1:
        for half in (parts[: len(parts) // 2], parts[len(parts) // 2 :]):
            works = _grown(works, half, fits)
    return works


def _left(whole: Trial, graph: AxisGraph, cut: Mapping[str, Tensor]) -> int:
    """Return how many parameters are left after a cut."""
    smaller = cut_down(whole.model, graph, cut, trial=whole)[0] if cut else whole.model
    return sum(parameter.numel() for parameter in smaller.parameters())


def _freeze(graph: AxisGraph, names: Set[str], problem: str) -> AxisGraph:
    reason = f"forward computes this size from other ones, so the class couldn't follow ({problem})"
    spared = tuple(Frozen(g.name, g.size, g.members, reason) for g in graph.groups if g.name in names)
    groups = tuple(group for group in graph.groups if group.name not in names)
    return replace(graph, groups=groups, frozen=(*graph.frozen, *spared))


def _attempts(graph: AxisGraph, trial: Set[str]) -> Iterator[frozenset[str]]:
    """Yield what to cut: everything; then less, where two groups share a dimension (heads x head dimension)."""
    yield frozenset(trial)
    assert graph.solution is not None
    name_of = {leaf: name for name in graph.solution.leaf if name in trial for leaf in graph.solution.axes_of(name)}
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
        if spared and trial - spared:
            yield frozenset(trial - spared)
