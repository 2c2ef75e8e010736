"""What does one round of pruning cut: evidence, score, select, apply?

Decisions number the units as the dense model does, so that a plan reads without knowing the rounds before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunus.apply import Masks, shrink
from prunus.core.calls import arguments
from prunus.core.errors import PlanError, RunError
from prunus.core.recipes.recipe import Strategy
from prunus.core.types import Bools, Granularity, Ints, Step, Stratum
from prunus.core.units import Mask, as_mask
from prunus.data import Examples
from prunus.graph import AxisGraph, Group
from prunus.graph.costs.cost_model import count_model
from prunus.pipeline.costing.kernel_widths import convolved
from prunus.pipeline.cut.alternatives import Weights
from prunus.pipeline.cut.compensation import check_compensation, compensate_removed, sparsegpt_step
from prunus.pipeline.cut.graph_tables import describe
from prunus.pipeline.cut.prunable import (
    check_comes_back,
    groups_of,
    layer_of,
    names_of,
    nothing_to_cut,
    prunable_graph,
    rule_for,
    wide,
)
from prunus.pipeline.cut.refitted import refitted
from prunus.pipeline.cut.round_choice import RoundChoice
from prunus.pipeline.cut.round_evidence import gather_evidence
from prunus.pipeline.cut.sensitivity import Zeroed, losses_in, without
from prunus.pipeline.cut.unit_places import kept_outputs, n_weights, slices_at, weights_at
from prunus.pipeline.cut.weight_tiles import best_of_tiles, tiles_of
from prunus.pipeline.jobs.job import Candidate, Decide, Job
from prunus.score import Evidence, block_paths, check_criterion, criteria, norm_scales, score_groups, score_weights
from prunus.select import keep_fractions

__all__ = ["Budgeted", "Round"]

Budgeted = Callable[[AxisGraph, Sequence[Group], nn.Module, Sequence[Stratum]], list[Bools]]
"""How a target chooses: which units of each stratum stay, given what the model costs."""

_REDUCE: Mapping[str, Any] = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "first": lambda saliency, axis: saliency.take(0, axis),
}


@dataclass(frozen=True)
class Round:
    """One cut: units of one granularity, the ``number``-th time; ``budgeted`` chooses instead of the strategy's amount.

    ``known`` is what hangs together in the model to be cut, where that was found out already.
    """

    job: Job
    seed: int
    strategy: Strategy
    granularity: Granularity
    number: int
    stage: str
    decide: Decide
    examples: Examples | None = None
    budgeted: Budgeted | None = None
    known: AxisGraph | None = None

    @property
    def choice(self) -> RoundChoice:
        """What decides which of the scored units stay."""
        return RoundChoice(
            self.job, self.strategy, self.granularity, self.number, self.stage, self.budgeted is not None
        )

    def cut(self, candidate: Candidate) -> tuple[Candidate, Step]:
        """Return the candidate after the cut, and what was decided."""
        check_criterion(self.strategy.criterion, self.granularity)
        check_compensation(self.strategy)
        mask = as_mask(self.granularity)
        return self._cut_groups(candidate) if mask is None else self._cut_weights(candidate, mask)

    def _cut_weights(self, candidate: Candidate, mask: Mask) -> tuple[Candidate, Step]:
        model, strategy = candidate.model, self.strategy
        shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        tiles = tiles_of(model, wide(strategy.exclude), mask)
        if not tiles:
            raise RunError(
                f"{self.stage}: the model has no weight that may be pruned (excluded: {list(strategy.exclude)}); allow some"
            )
        names = list(tiles)
        # What one unit is: a whole tile where it goes as one, else a single weight.
        units = {name: tiles[name] if mask.kind == "block" else np.arange(tiles[name].size)[:, None] for name in names}
        masks = dict(candidate.masks) or {name: torch.ones(shapes[name], dtype=torch.bool) for name in names}
        called = {name: {name, layer_of(name)} for name in names}

        def compute() -> tuple[Step, ...]:
            if criteria[strategy.criterion].compensation == "column_by_column":
                return (self._sweep(model, names, masks, mask),)
            evidence = self._evidence(candidate, names)
            scored = score_weights(evidence, names, strategy.criterion, seed=self.seed, note=self.choice.note)
            if mask.kind == "n_m":
                return (
                    self.choice.written({s.name: best_of_tiles(s, tiles[s.name], mask.first) for s in scored}, scored),
                )
            strata = []
            for stratum in scored:
                place = units[stratum.name]
                alive = masks[stratum.name].flatten().numpy()[place[:, 0]]
                single = mask == Mask("block", 1, 1)
                saliency = stratum.saliency[:, None] if single else stratum.saliency[place]
                judged = replace(
                    stratum,
                    saliency=_REDUCE[strategy.reduce](saliency, axis=1),
                    cost=float(place.shape[1]),
                    row=stratum.row if single else None,
                )
                strata.append(replace(_only(judged, alive), whole=len(place), shape=tuple(shapes[stratum.name])))
            zeroed = {stratum.name: partial(weights_at, model, stratum.name, units[stratum.name]) for stratum in strata}

            def trial(keep: Sequence[Bools]) -> AbstractContextManager[None]:
                return without(
                    [
                        place
                        for s, mask in zip(strata, keep, strict=True)
                        for place in weights_at(model, s.name, units[s.name][s.units], ~mask)
                    ]
                )

            compare = partial(self.choice.compare, model, cost=Weights(strata), kind="weights", trial=trial)
            return (self.choice.step(strata, called, self.choice.losses(candidate, strata, zeroed), compare=compare),)

        (step,) = self.decide("prune", self.stage, compute)
        new = {}
        for decision in step.decisions:
            name = decision.stratum
            if name not in units or decision.unit.max(initial=-1) >= len(units[name]):
                raise PlanError(
                    f"the plan prunes {name!r}, which this model doesn't have in that size: use the model of the plan"
                )
            kept = torch.zeros(shapes[name].numel(), dtype=torch.bool)
            kept[torch.from_numpy(units[name][decision.unit[decision.keep]].ravel())] = True
            new[name] = kept.view(shapes[name])
        for note in compensate_removed(model, new, strategy.criterion, self.job.data.calibration):
            self.choice.note(note)
        Masks(model, new).enforce()
        return candidate.replaced(
            masks=new, losses=losses_in(step) or candidate.losses, kept_outputs={}, folded_outputs={}
        ), step

    def _cut_groups(self, candidate: Candidate) -> tuple[Candidate, Step]:
        model, inputs, strategy = candidate.model, self.job.trace_inputs, self.strategy
        given, named = arguments(inputs)
        graph = self.known or prunable_graph(
            model,
            inputs,
            strategy.exclude,
            seed=self.seed,
            granularity=self.granularity,
            by_config=strategy.expressible,
        )
        groups = groups_of(graph, self.granularity)
        if candidate.alive:  # a group that was cut down to one unit is none any more
            groups = tuple(group for group in groups if group.name in candidate.alive)
        if not groups:
            raise RunError(f"{self.stage}: {nothing_to_cut(graph, self.granularity)}")
        alive = dict(candidate.alive) or {group.name: np.arange(group.size, dtype=np.int64) for group in groups}
        original = dict(candidate.original) or {group.name: group.size for group in groups}
        names = sorted({name for group in groups for name in group.parameters(model)})
        known: list[Evidence] = []  # nothing where a plan tells what goes

        def compute() -> tuple[Step, ...]:
            evidence = self._evidence(candidate, names, blocks=block_paths(groups))
            known.append(evidence)
            strata = score_groups(
                groups,
                evidence,
                strategy.criterion,
                reduce=strategy.reduce,
                norm_scales=norm_scales(model),
                seed=self.seed,
                note=self.choice.note,
            )
            of = {group.name: group for group in groups}
            strata = [
                replace(
                    s,
                    unit=alive[s.name],
                    min_units=of[s.name].min_units,
                    multiple=of[s.name].multiple,
                    whole=original[s.name],
                    joint=graph.joint_of(s.name),
                    n_weights=n_weights(model, of[s.name]),
                )
                for s in strata
            ]

            def trial(keep: Sequence[Bools]) -> AbstractContextManager[None]:
                gone = {s.name: ~mask for s, mask in zip(strata, keep, strict=True)}
                return refitted(model, groups, gone, evidence if criteria[strategy.criterion].joint else None)

            def alone(group: Group, gone: Bools) -> Zeroed | nn.Module:
                if group.containers:  # whole modules: zeros inside aren't the same as their absence
                    return shrink(model, given, graph, {group.name: torch.from_numpy(~gone)}, kwargs=named).model
                return slices_at(model, group, gone)

            zeroed = {group.name: partial(alone, group) for group in groups}
            called = {group.name: names_of(group, model) for group in groups}
            choose = None if self.budgeted is None else partial(self.budgeted, graph, groups, model)
            compare = None
            if not any(group.containers for group in groups):  # whole modules can't be tried by zeros
                target = self.job.recipe.target
                kind = target.kind if target is not None and target.kind != "latency" else "macs"
                compare = partial(
                    self.choice.compare,
                    model,
                    cost=count_model(kind, graph, groups, model),
                    kind=kind,
                    trial=trial,
                )
            losses, wide_in = self.choice.losses(candidate, strata, zeroed), convolved(groups, model)
            return (self.choice.step(strata, called, losses, choose, compare, wide_in),)

        (step,) = self.decide("prune", self.stage, compute)
        keep = _aligned(step, alive)
        kept = {name: torch.from_numpy(mask) for name, mask in keep.items()}
        gone = {name: ~mask for name, mask in keep.items()}
        moments = None
        if criteria[strategy.criterion].joint:  # it counts on readers that are refitted
            moments = known[0] if known else self._evidence(candidate, names)
        with refitted(model, groups, gone, moments, zeroed=False):
            shrunk = shrink(model, given, graph, kept, kwargs=named)
        check_comes_back(shrunk, strategy.expressible, self.stage)
        rewound = candidate.rewound
        if rewound is not None:  # the weights to go back to lose the same units
            twin = shrink(rewound, given, replace(graph, solution=None), kept, kwargs=named, prefer=shrunk.kind)
            if twin.kind != shrunk.kind:
                raise RunError(
                    f"{self.stage}: the weights to go back to can't be cut as the model is; use no rewind_to"
                )
            rewound = twin.model
        for note in shrunk.notes:
            self.job.workspace.note(self.stage, note)
        return (
            candidate.replaced(
                model=shrunk.model,
                rewound=rewound,
                kind="graph" if "graph" in (candidate.kind, shrunk.kind) else "eager",
                alive={name: units[keep[name]] if name in keep else units for name, units in alive.items()},
                original=original,
                graph=candidate.graph or describe(graph, model),
                losses=losses_in(step) or candidate.losses,
                kept_outputs=kept_outputs(model, groups, keep),
                folded_outputs={layer_of(name): f for name, f in shrunk.folded.items() if name.endswith(".weight")},
                frozen=candidate.frozen
                or tuple({"name": f.name, "size": f.size, "reason": f.reason} for f in graph.frozen),
            ),
            step,
        )

    def _evidence(self, candidate: Candidate, names: Sequence[str], blocks: Sequence[str] = ()) -> Evidence:
        return gather_evidence(
            self.job,
            candidate,
            self.strategy,
            names,
            seed=self.seed,
            stage=self.stage,
            blocks=blocks,
            examples=self.examples,
        )

    def _sweep(self, model: nn.Module, names: Sequence[str], masks: Mapping[str, Tensor], mask: Mask) -> Step:
        """Decide as SparseGPT does, by the share that each layer keeps now, or N:M."""
        shares = {}
        for name in names if mask.kind != "n_m" else ():
            amount = self.choice.amount(rule_for(self.strategy, {name, layer_of(name)}))
            assert amount is not None, "a recipe gives no cutoff where columns are judged one by one"
            shares[name] = keep_fractions(self.strategy.schedule, amount)[self.number]
        n_m = (mask.first, mask.second) if mask.kind == "n_m" else None
        decisions, notes = sparsegpt_step(model, names, masks, self.job.data.calibration, shares=shares, n_m=n_m)
        for note in notes:
            self.choice.note(note)
        return Step("prune", self.granularity, self.strategy.criterion, decisions, {"round": self.number})


def _only(stratum: Stratum, alive: Bools) -> Stratum:
    row = None if stratum.row is None else stratum.row[alive]
    return replace(stratum, saliency=stratum.saliency[alive], unit=np.flatnonzero(alive).astype(np.int64), row=row)


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
