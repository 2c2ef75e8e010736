"""What does one round of pruning cut: evidence, score, select, apply?

Decisions number the units as the dense model does, so that a plan reads without knowing the rounds before.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunus.apply import Masks, follow_class, shrink
from prunus.core.errors import PlanError, RecipeError, RunError, near
from prunus.core.recipe import LayerRule, Strategy
from prunus.core.types import Bools, Decision, Granularity, Ints, Step, Stratum
from prunus.graph import AxisGraph, Group, analyze, certify
from prunus.pipeline.job import Candidate, Decide, Job
from prunus.recover import default_loss
from prunus.score import criteria, gather, norm_scales, prunable_weights, score_groups, score_weights
from prunus.select import keep_fractions, select

__all__ = ["Budgeted", "Round", "check_patterns", "groups_of", "prunable_graph", "wide"]

Budgeted = Callable[[AxisGraph, Sequence[Group], nn.Module, Sequence[Stratum]], list[Bools]]
"""How a target chooses: which units of each stratum stay, given what the model costs."""


@dataclass(frozen=True)
class Round:
    """One cut: units of one granularity, the ``number``-th time; ``budgeted`` chooses instead of the strategy's amount."""

    job: Job
    seed: int
    strategy: Strategy
    granularity: Granularity
    number: int
    stage: str
    decide: Decide
    budgeted: Budgeted | None = None

    def cut(self, candidate: Candidate) -> tuple[Candidate, Step]:
        """Return the candidate after the cut, and what was decided."""
        return self._cut_weights(candidate) if self.granularity == "weight" else self._cut_groups(candidate)

    def _cut_weights(self, candidate: Candidate) -> tuple[Candidate, Step]:
        model, strategy = candidate.model, self.strategy
        names = prunable_weights(model, wide(strategy.exclude))
        shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        if not names:
            raise RunError(
                f"{self.stage}: the model has no weight that may be pruned (excluded: {list(strategy.exclude)}); allow some"
            )
        masks = dict(candidate.masks) or {name: torch.ones(shapes[name], dtype=torch.bool) for name in names}
        original = {name: shapes[name].numel() for name in names}

        def compute() -> tuple[Step, ...]:
            evidence = self._evidence(model, names)
            strata = [
                _only(stratum, masks[stratum.name].flatten().numpy())
                for stratum in score_weights(evidence, names, strategy.criterion, seed=self.seed)
            ]
            return (self._step(strata, original, {name: {name, _layer(name)} for name in names}),)

        (step,) = self.decide(self.stage, compute)
        new = {}
        for decision in step.decisions:
            name = decision.stratum
            if name not in shapes or decision.unit.max(initial=-1) >= shapes[name].numel():
                raise PlanError(
                    f"the plan prunes {name!r}, which this model doesn't have in that size: use the model of the plan"
                )
            mask = torch.zeros(shapes[name].numel(), dtype=torch.bool)
            mask[torch.from_numpy(decision.unit[decision.keep])] = True
            new[name] = mask.view(shapes[name])
        Masks(model, new).enforce()
        return candidate.having(masks=new), step

    def _cut_groups(self, candidate: Candidate) -> tuple[Candidate, Step]:
        model, inputs, strategy = candidate.model, self.job.trace_inputs, self.strategy
        graph = prunable_graph(model, inputs, strategy.exclude, seed=self.seed, granularity=self.granularity)
        groups = groups_of(graph, self.granularity)
        if candidate.alive:  # a group that was cut down to one unit is none any more
            groups = tuple(group for group in groups if group.name in candidate.alive)
        if not groups:
            raise RunError(f"{self.stage}: {_nothing_to_cut(graph, self.granularity)}")
        alive = dict(candidate.alive) or {group.name: np.arange(group.size, dtype=np.int64) for group in groups}
        original = dict(candidate.original) or {group.name: group.size for group in groups}

        def compute() -> tuple[Step, ...]:
            strata = score_groups(
                groups,
                self._evidence(model, sorted({name for group in groups for name in group.parameters(model)})),
                strategy.criterion,
                reduce=strategy.reduce,
                norm_scales=norm_scales(model),
                seed=self.seed,
                note=lambda text: self.job.workspace.note(self.stage, text),
            )
            least = {group.name: group.min_units for group in groups}
            strata = [replace(s, unit=alive[s.name], min_units=least[s.name]) for s in strata]
            called = {group.name: _names(group, model) for group in groups}
            choose = None if self.budgeted is None else partial(self.budgeted, graph, groups, model)
            return (self._step(strata, original, called, choose),)

        (step,) = self.decide(self.stage, compute)
        keep = _aligned(step, alive)
        shrunk = shrink(model, inputs, graph, {name: torch.from_numpy(mask) for name, mask in keep.items()})
        for note in shrunk.notes:
            self.job.workspace.note(self.stage, note)
        return (
            candidate.having(
                model=shrunk.model,
                kind="graph" if "graph" in (candidate.kind, shrunk.kind) else "eager",
                cuts=(*candidate.cuts, {name: tuple(np.flatnonzero(mask).tolist()) for name, mask in keep.items()}),
                alive={name: units[keep[name]] if name in keep else units for name, units in alive.items()},
                original=original,
                frozen=candidate.frozen
                or tuple({"name": f.name, "size": f.size, "reason": f.reason} for f in graph.frozen),
            ),
            step,
        )

    def _evidence(self, model: nn.Module, names: Sequence[str]) -> Any:
        examples = self.job.data.calibration
        return gather(model, names, examples, default_loss(examples.task), criteria[self.strategy.criterion].needs)

    def _step(
        self,
        strata: Sequence[Stratum],
        original: Mapping[str, int],
        called: Mapping[str, set[str]],
        choose: Callable[[Sequence[Stratum]], list[Bools]] | None = None,
    ) -> Step:
        """Decide, and write the reasons down."""
        strategy = self.strategy
        rules = [_rule(strategy, called[stratum.name]) for stratum in strata]
        strata = [self._ruled(stratum, rule) for stratum, rule in zip(strata, rules, strict=True)]
        keep = choose(strata) if choose is not None else self._choose(strata, rules, original)
        reason = f"{strategy.criterion}: lowest in its " + ("layer" if strategy.allocation == "uniform" else "model")
        if choose is not None:
            reason = f"{strategy.criterion}: lowest for what it costs"
        if strategy.cutoff is not None:
            reason = f"{strategy.criterion}: below the cutoff {strategy.cutoff:g}"
        decisions = tuple(
            Decision(s.name, s.units, s.saliency, k, np.where(k, "kept", reason).astype(object))
            for s, k in zip(strata, keep, strict=True)
        )
        return Step("prune", self.granularity, strategy.criterion, decisions, {"round": self.number})

    def _choose(
        self, strata: Sequence[Stratum], rules: Sequence[LayerRule | None], original: Mapping[str, int]
    ) -> list[Bools]:
        """Keep a share of what the dense model had, among what is left of it; layers with a share of their own apart."""
        strategy = self.strategy
        kept: dict[str, Bools] = {}
        for amount in dict.fromkeys(map(self._amount, rules)):
            mine = [s for s, rule in zip(strata, rules, strict=True) if self._amount(rule) == amount]
            if amount is None:
                share: dict[str, float | None] = {"cutoff": strategy.cutoff}
            else:
                left = sum(len(stratum.saliency) for stratum in mine)
                fraction = keep_fractions(strategy.schedule, amount)[self.number]
                wanted = round(fraction * sum(original[stratum.name] for stratum in mine))
                share = {"keep_fraction": min(1.0, wanted / max(left, 1))}
            chosen = select(mine, allocation=strategy.allocation, normalize=strategy.normalize, **share)
            kept.update(zip((stratum.name for stratum in mine), chosen, strict=True))
        return [kept[stratum.name] for stratum in strata]

    def _ruled(self, stratum: Stratum, rule: LayerRule | None) -> Stratum:
        """Give a stratum its least number of units and the multiple that they come in; whole modules have no widths."""
        if self.granularity in ("block", "expert"):
            return stratum
        strategy = self.strategy
        multiple = 1 if strategy.round_to == "auto" else strategy.round_to
        return replace(
            stratum,
            min_units=strategy.min_units if rule is None or rule.min_units is None else rule.min_units,
            multiple=multiple if rule is None or rule.round_to is None else rule.round_to,
        )

    def _amount(self, rule: LayerRule | None) -> float | None:
        return rule.keep_fraction if rule is not None and rule.keep_fraction is not None else self.strategy.amount


def prunable_graph(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    exclude: Sequence[str],
    *,
    seed: int,
    granularity: Granularity = "channel",
) -> AxisGraph:
    """Return the certified groups of ``model`` without those that a name pattern excludes.

    Of the groups that ``granularity`` will cut, those that the class can't follow are left whole where that helps.
    """
    kinds = None if granularity == "channel" else {granularity}
    graph = follow_class(model, inputs, certify(model, inputs, analyze(model, inputs), seed=seed), kinds=kinds)
    patterns = wide(exclude)

    def allowed(groups: Sequence[Group]) -> tuple[Group, ...]:
        return tuple(group for group in groups if not _fits(_names(group, model), patterns))

    return replace(graph, groups=allowed(graph.groups), stacks=allowed(graph.stacks))


def groups_of(graph: AxisGraph, granularity: Granularity) -> tuple[Group, ...]:
    """Return the groups whose units are of a granularity; ``channel`` are all axes."""
    if granularity == "channel":
        return graph.groups
    return tuple(group for group in (*graph.groups, *graph.stacks) if group.kind == granularity)


def _nothing_to_cut(graph: AxisGraph, granularity: str) -> str:
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
    names = [name for name, _ in (*model.named_modules(), *model.named_parameters()) if name]
    given = [("strategy.exclude", pattern) for pattern in strategy.exclude]
    given += [(f"strategy.layers.{i}.match", rule.match) for i, rule in enumerate(strategy.layers)]
    for where, pattern in given:
        if not fnmatch.filter(names, pattern):
            raise RecipeError(f"{where}: {pattern!r} fits no layer or parameter; {near(pattern, names[:60])}")


def _names(group: Group, model: nn.Module) -> set[str]:
    names = {group.name, *group.containers}
    for tensor in [member.tensor for member in group.members]:
        names |= {tensor, _layer(tensor)}
    return names


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0]


def _fits(names: set[str], patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _rule(strategy: Strategy, names: set[str]) -> LayerRule | None:
    """Return the first rule that fits a group or parameter by any of its names."""
    return next((rule for rule in strategy.layers if _fits(names, wide([rule.match]))), None)


def _only(stratum: Stratum, alive: Bools) -> Stratum:
    return replace(stratum, saliency=stratum.saliency[alive], unit=np.flatnonzero(alive).astype(np.int64))


def _aligned(step: Step, alive: Mapping[str, Ints]) -> dict[str, Bools]:
    """Return, per group, which of the units that are still there stay.

    Raises:
        PlanError: the plan speaks of units that aren't there.
    """
    keep = {}
    for decision in step.decisions:
        if decision.stratum not in alive or not np.array_equal(decision.unit, alive[decision.stratum]):
            raise PlanError(
                f"the plan prunes the {step.granularity}s {decision.stratum!r} of another model (expected {len(decision.unit)} "
                "of them): use the model and the prunus that the plan was made with"
            )
        keep[decision.stratum] = decision.keep
    return keep
