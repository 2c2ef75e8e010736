"""Which parts of the model may a recipe prune, and which rule holds for each?"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from prunus.apply import Shrunk, expressible, follow_class
from prunus.core.calls import arguments
from prunus.core.errors import RecipeError, RunError, near
from prunus.core.recipes.recipe import LayerRule, Strategy
from prunus.core.types import Granularity
from prunus.graph import AxisGraph, Group, analyze, certify

__all__ = [
    "check_comes_back",
    "check_names",
    "check_patterns",
    "groups_of",
    "layer_of",
    "names_of",
    "nothing_to_cut",
    "prunable_graph",
    "rule_for",
    "wide",
]


def prunable_graph(
    model: nn.Module,
    inputs: Any,
    exclude: Sequence[str],
    *,
    seed: int,
    granularity: Granularity = "channel",
    by_config: bool = False,
) -> AxisGraph:
    """Return the certified groups of ``model``, which takes ``inputs``, without those that a name pattern excludes.

    Of the groups that ``granularity`` will cut, those that the class can't follow are left whole where that helps.

    Args:
        by_config: only groups that the model's config can shrink, and which of them it shrinks together.

    Raises:
        ModelError: ``by_config``, and the model isn't built from a config.
    """
    given, kwargs = arguments(inputs)
    graph = certify(model, given, analyze(model, given, kwargs), kwargs=kwargs, seed=seed)
    kinds = {group.kind for group in graph.groups} if granularity == "channel" else {granularity}
    only = expressible if by_config else follow_class
    graph = only(model, given, graph, kwargs, kinds=kinds)
    patterns = wide(exclude)
    barred = {group.name for group in (*graph.groups, *graph.stacks) if _fits(names_of(group, model), patterns)}
    # One number stands for the sizes of a joint: if one of its groups is to stay whole, all do.
    barred |= {name for joint in graph.joints if barred & set(joint.groups) for name in joint.groups}

    def allowed(groups: Sequence[Group]) -> tuple[Group, ...]:
        return tuple(group for group in groups if group.name not in barred)

    joints = tuple(joint for joint in graph.joints if not barred & set(joint.groups))
    return replace(graph, groups=allowed(graph.groups), stacks=allowed(graph.stacks), joints=joints)


def check_comes_back(shrunk: Shrunk, expressible: bool, stage: str) -> None:
    """Refuse a cut that was to be said by the config and isn't.

    Raises:
        RunError: it says why.
    """
    if expressible and not shrunk.comes_back:
        raise RunError(
            f"{stage}: expressible: the config can't say this cut after all ({'; '.join(shrunk.notes)}); choose another amount, or "
            "leave expressible out"
        )


def groups_of(graph: AxisGraph, granularity: Granularity) -> tuple[Group, ...]:
    """Return the groups whose units are of a granularity; ``channel`` are all axes."""
    if granularity == "channel":
        return graph.groups
    return tuple(group for group in (*graph.groups, *graph.stacks) if group.kind == granularity)


def nothing_to_cut(graph: AxisGraph, granularity: str) -> str:
    """Say why there is nothing of a granularity to cut, and what there is."""
    there = sorted({"channel", *(group.kind for group in (*graph.groups, *graph.stacks))}) if graph.groups else []
    if granularity != "channel" and there:
        return f"the model has no {granularity} that can be pruned; it has {', '.join(there)}: choose among these"
    reasons = "; ".join(sorted({f"{item.name}: {item.reason}" for item in graph.frozen})[:3])
    return f"no group of channels can be pruned ({reasons}); use granularity weight or exclude less"


def wide(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return name patterns that also fit a model whose input features were cut (it lies in ``inner``)."""
    return (*patterns, *(f"inner.{pattern}" for pattern in patterns))


def check_patterns(model: nn.Module, strategy: Strategy) -> None:
    """Refuse a pattern that fits no name: it would protect or change nothing.

    Raises:
        RecipeError: it names the pattern and some names.
    """
    given = [("strategy.exclude", pattern) for pattern in strategy.exclude]
    check_names(
        model, [*given, *((f"strategy.layers.{i}.match", rule.match) for i, rule in enumerate(strategy.layers))]
    )


def check_names(model: nn.Module, given: Sequence[tuple[str, str]]) -> None:
    """Refuse a pattern, given as (where it stands, pattern), that fits no name.

    Raises:
        RecipeError: it names the pattern and some names.
    """
    names = [name for name, _ in (*model.named_modules(), *model.named_parameters()) if name]
    for where, pattern in given:
        if not fnmatch.filter(names, pattern):
            raise RecipeError(f"{where}: {pattern!r} fits no layer or parameter; {near(pattern, names[:60])}")


def names_of(group: Group, model: nn.Module) -> set[str]:
    """Return all names by which a recipe may mean a group: its own, its containers, parameters and layers."""
    names = {group.name, *group.containers}
    for tensor in [member.tensor for member in group.members]:
        names |= {tensor, layer_of(tensor)}
    return names


def layer_of(tensor: str) -> str:
    """Return the layer that holds a parameter."""
    return tensor.rpartition(".")[0]


def _fits(names: set[str], patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def rule_for(strategy: Strategy, names: set[str]) -> LayerRule | None:
    """Return the first rule that fits a group or parameter by any of its names."""
    return next((rule for rule in strategy.layers if _fits(names, wide([rule.match]))), None)
