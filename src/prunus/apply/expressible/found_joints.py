"""Which groups can the config of a model shrink, and which of them only together?

A setting, or a few at once, are scaled, the class is built on the meta device, and the shapes of its parameters tell which groups
got smaller. Then half of those is really cut: the class that the new config builds must compute, with the weights that are left,
what the model without those units computes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from prunus.apply.classes.built_smaller import with_share
from prunus.apply.classes.config_settings import built_shapes, is_allowed, settings, shapes_of
from prunus.apply.classes.configs import built_from_config
from prunus.apply.classes.entries import comes_back, drop_entries
from prunus.apply.classes.losable_entries import stacks_that_follow
from prunus.apply.difference import Trial
from prunus.apply.expressible.explain import scaled_groups
from prunus.apply.expressible.settings import explicit, moves, settings_that_count, steps_of
from prunus.apply.shrink import cut_as_said
from prunus.core.errors import ModelError
from prunus.graph import AxisGraph, Frozen, Group, Joint, Setting
from prunus.graph.solver.axis_positions import left_of
from prunus.graph.tracing.garbage import settled

__all__ = ["expressible"]

_HALF = Fraction(1, 2)


@settled()
def expressible(
    model: nn.Module,
    inputs: tuple[Any, ...],
    graph: AxisGraph,
    kwargs: Mapping[str, Any] | None = None,
    *,
    kinds: Container[str] | None = None,
) -> AxisGraph:
    """Return ``graph`` with those groups only that the model's config can shrink, and which of them shrink together.

    Args:
        inputs: what the trial is run on, as for ``analyze``; ``graph`` comes from there.
        kinds: only settings are taken that shrink groups of these kinds and no others (default: all).

    Raises:
        ModelError: the model's class isn't built from a config, or the config builds another model.
    """
    name = type(model).__name__
    if not built_from_config(model):
        raise ModelError(
            f"expressible: {name} isn't built from a config, so there is nothing that could say a cut: leave it out, and keep the "
            "model as a bundle"
        )
    tried = _Tried(model, inputs, kwargs or {}, graph, shapes_of(model))
    if built_shapes(type(model), vars(model)["config"]) != tried.shapes:
        raise ModelError(
            f"expressible: the config of this {name} builds parameters of other shapes than it has, so from_pretrained "
            "wouldn't bring it back even whole: set the config right, or leave expressible out"
        )
    joints = tried.joints()
    kind_of = {group.name: group.kind for group in graph.groups}
    asked = [j for j in joints if kinds is None or all(kind_of[name] in kinds for name in j.groups)]
    chosen = _apart(asked, kind_of)
    stacks = tuple(stack for stack in graph.stacks if kinds is None or stack.kind in kinds)
    stacks = _that_come_back(model, inputs, stacks, kwargs or {})
    if not chosen and not stacks:
        raise ModelError(f"expressible: no setting of the config of this {name} {_nothing(joints, kind_of)}")
    return replace(_only(graph, chosen, joints), stacks=stacks)


def _nothing(joints: Sequence[Joint], kind_of: Mapping[str, str]) -> str:
    """Say what no setting does, and what some do."""
    if not joints:
        return "shrinks what can be pruned: leave expressible out, and keep the model as a bundle"
    there = [f"{j.name} shrinks {', '.join(sorted({kind_of[name] for name in j.groups}))}" for j in joints]
    return f"says this alone: {'; '.join(there)}; choose a granularity that has all of one, or channel"


def _that_come_back(
    model: nn.Module, inputs: tuple[Any, ...], stacks: Sequence[Group], kwargs: Mapping[str, Any]
) -> tuple[Group, ...]:
    """Return the stacks that the class can lose units of so that its config builds what is left, tried with one unit less."""
    found = []
    for stack in stacks_that_follow(model, inputs, stacks, kwargs):
        for gone in (0, -1):
            keep = torch.ones(stack.size, dtype=torch.bool)
            keep[gone] = False
            if int(keep.sum()) < stack.min_units:
                break
            with suppress(ModelError):
                if comes_back(drop_entries(model, inputs, stack, keep, kwargs), inputs, kwargs):
                    found.append(stack)
                    break
    return tuple(found)


def _apart(joints: Iterable[Joint], kind_of: Mapping[str, str]) -> tuple[Joint, ...]:
    """Return joints that have no group in common: whole heads rather than a part of each, then what fewer settings say."""

    def order(joint: Joint) -> tuple[bool, int]:
        return any(kind_of[name] == "head_dim" for name in joint.groups), len(joint.settings)

    chosen: list[Joint] = []
    for joint in sorted(joints, key=order):
        if not any(set(joint.groups) & set(other.groups) for other in chosen):
            chosen.append(joint)
    return tuple(chosen)


def _only(graph: AxisGraph, chosen: tuple[Joint, ...], found: Sequence[Joint]) -> AxisGraph:
    """Return the graph with the groups of ``chosen``; the others are frozen."""
    joint_of = {name: joint for joint in chosen for name in joint.groups}
    groups = tuple(
        replace(g, multiple=math.lcm(g.multiple, g.size // joint_of[g.name].n_steps))
        for g in graph.groups
        if g.name in joint_of
    )
    frozen = tuple(
        Frozen(g.name, g.size, g.members, _why_not(g.name, found)) for g in graph.groups if g.name not in joint_of
    )
    return replace(graph, groups=groups, frozen=(*graph.frozen, *frozen), joints=chosen)


def _why_not(name: str, found: Sequence[Joint]) -> str:
    for joint in found:
        if name in joint.groups:
            others = [other for other in joint.groups if other != name]
            return f"its size is the setting {joint.name}, which also shrinks {_some(others)}"
    return "no setting of the model's config says this size alone"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


@dataclass(frozen=True)
class _Tried:
    """A model whose settings are tried."""

    model: nn.Module
    inputs: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    graph: AxisGraph
    shapes: Mapping[str, tuple[int, ...]]

    def joints(self) -> list[Joint]:
        """Return all joints; several may have groups in common."""
        kind, given = type(self.model), vars(self.model)["config"]
        config = explicit(kind, given, self.shapes)
        said = _said(given, config)
        heads = {group.size for group in self.graph.groups if group.kind == "head"}
        counted, silent = settings_that_count(kind, config, self.shapes, heads | {a * b for a in heads for b in heads})
        trial = Trial(self.model)
        found: list[Joint] = []
        for move in moves(counted, silent):
            # What each setting says alone needn't be tried together.
            if not {*move} <= {joint.settings[0] for joint in found if len(joint.settings) == 1}:
                found += self._said_by(move, config, said, found, trial)
        return found

    def _said_by(
        self, move: tuple[Setting, ...], config: Any, said: tuple[Setting, ...], known: Sequence[Joint], trial: Trial
    ) -> Iterator[Joint]:
        steps = steps_of(move)
        ratio = _HALF if steps % 2 == 0 else Fraction(steps - 1, steps)
        built = built_shapes(type(self.model), with_share(config, move, ratio)) if steps != 1 else None
        if built is None or built == self.shapes or built.keys() != self.shapes.keys():
            return
        for names in scaled_groups(self.graph, built, ratio):
            if len(move) > 1 and _is_union(names, [joint.groups for joint in known]):
                continue
            order = tuple(group.name for group in self.graph.groups if group.name in names)
            most = math.gcd(steps, *(group.size for group in self.graph.groups if group.name in names))
            joint = Joint(order, most, move, said)
            if self._works(joint, config, ratio, trial):
                divisors = (n for n in range(most, 1, -1) if most % n == 0)
                finest = (replace(joint, n_steps=n) for n in divisors)
                yield from itertools.islice((j for j in finest if self._is_fine(j, config, trial)), 1)
                return

    def _is_fine(self, joint: Joint, config: Any, trial: Trial) -> bool:
        """Tell whether a joint holds at the smallest cut, one step below the whole."""
        share = Fraction(joint.n_steps - 1, joint.n_steps)
        said = with_share(config, joint.settings, share)
        built = built_shapes(type(self.model), said)
        assert self.graph.solution is not None
        sizes = self.graph.solution.sizes(self._counts(joint, share))
        states = self.graph.solution.solver.states
        wanted = {
            name: tuple(left_of(atom, sizes) for atom in states[name]) if name in states else shape
            for name, shape in self.shapes.items()
        }
        return built == wanted and self._works(joint, config, share, trial)

    def _works(self, joint: Joint, config: Any, share: Fraction, trial: Trial) -> bool:
        said = with_share(config, joint.settings, share)
        if not is_allowed(said) and is_allowed(vars(self.model)["config"]):
            return False
        sizes = {group.name: group.size for group in self.graph.groups}
        masks = {name: torch.arange(sizes[name]) < n for name, n in self._counts(joint, share).items()}
        return cut_as_said(self.model, self.graph, masks, said, self.inputs, self.kwargs, trial=trial)[0] is not None

    def _counts(self, joint: Joint, share: Fraction) -> dict[str, int]:
        return {group.name: int(group.size * share) for group in self.graph.groups if group.name in joint.groups}


def _said(given: Any, config: Any) -> tuple[Setting, ...]:
    """Return the settings that ``config`` says and ``given`` doesn't."""
    before = dict(settings(given))
    return tuple(
        (*path, value) for path, value in settings(config) if value is not None and before.get(path, value) is None
    )


def _is_union(names: frozenset[str], known: Sequence[Collection[str]]) -> bool:
    """Tell whether what is known already says this, one after the other."""
    covered: set[str] = set()
    for groups in known:
        if names >= set(groups) and not covered & set(groups):
            covered |= set(groups)
    return covered == names
