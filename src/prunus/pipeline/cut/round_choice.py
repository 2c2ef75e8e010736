"""Which of the units that were scored stay in a round, by which share, and what is written down of why?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from math import lcm
from typing import Any

import numpy as np
from torch import nn

from prunus.core.recipes.recipe import LayerRule, Strategy
from prunus.core.types import Bools, Decision, Floats, Granularity, Step, Stratum
from prunus.core.units import as_mask, plural
from prunus.graph.costs.cost_model import CostModel
from prunus.pipeline.costing.kernel_widths import width_at
from prunus.pipeline.cut.alternatives import Weights, compare_allocations
from prunus.pipeline.cut.prunable import rule_for
from prunus.pipeline.cut.sensitivity import Zeroed, measure_losses
from prunus.pipeline.jobs.job import Candidate, Job
from prunus.select import allocations, keep_fractions, owl, select

__all__ = ["RoundChoice"]


@dataclass(frozen=True)
class RoundChoice:
    """What decides in the ``number``-th round; ``by_cost``: a target chooses, instead of the strategy's amount."""

    job: Job
    strategy: Strategy
    granularity: Granularity
    number: int
    stage: str
    by_cost: bool

    def note(self, text: str) -> None:
        """Tell what whoever reads the result should know."""
        self.job.workspace.note(self.stage, text)

    def losses(
        self,
        candidate: Candidate,
        strata: Sequence[Stratum],
        zeroed: Mapping[str, Callable[[Bools], Zeroed | nn.Module]],
    ) -> Mapping[str, Floats]:
        """Return each stratum's loss when it is pruned alone, where the allocation asks for it: measured before the first round."""
        if self.strategy.allocation != "sensitivity" or candidate.losses:
            return candidate.losses
        return measure_losses(
            self.job, candidate.model, strata, zeroed, shares=self.strategy.sensitivity_steps, stage=self.stage
        )

    def step(
        self,
        strata: Sequence[Stratum],
        called: Mapping[str, set[str]],
        losses: Mapping[str, Floats],
        choose: Callable[[Sequence[Stratum]], list[Bools]] | None = None,
        compare: Callable[[Sequence[Stratum], Sequence[Bools]], dict[str, Any] | None] | None = None,
        convolved: Collection[str] = (),
    ) -> Step:
        """Decide, and write the reasons down.

        Args:
            convolved: the strata whose units are channels of convolutions, which come in the widths that kernels want.
        """
        strategy = self.strategy
        rules = [rule_for(strategy, called[stratum.name]) for stratum in strata]
        strata = [
            replace(self._ruled(stratum, rule, stratum.name in convolved), losses=losses.get(stratum.name))
            for stratum, rule in zip(strata, rules, strict=True)
        ]
        keep = self._choose(strata, rules) if choose is None else choose(strata)
        facts: dict[str, Any] = {}
        if self.number == 0 and losses:
            facts["losses"] = {name: curve.tolist() for name, curve in losses.items()}
        own = any(rule is not None and rule.keep_fraction is not None for rule in rules)
        if strategy.compare_allocations and compare is not None and not own:
            compared = compare(strata, keep)
            facts |= {} if compared is None else {"allocations": compared}
        return self.written({s.name: k for s, k in zip(strata, keep, strict=True)}, strata, facts)

    def compare(
        self,
        model: nn.Module,
        strata: Sequence[Stratum],
        keep: Sequence[Bools],
        *,
        cost: CostModel | Weights,
        kind: str,
        trial: Callable[[Sequence[Bools]], AbstractContextManager[None]],
    ) -> dict[str, Any] | None:
        """Say what other allocations would have lost."""
        strategy = self.strategy
        chosen = "cost" if self.by_cost else "cutoff" if strategy.cutoff is not None else strategy.allocation
        return compare_allocations(
            self.job,
            model,
            strata,
            keep,
            chosen=chosen,
            cost=cost,
            kind=kind,
            trial=trial,
            normalize=strategy.normalize,
            note=self.note,
        )

    def written(
        self, keep: Mapping[str, Bools], strata: Sequence[Stratum], facts: Mapping[str, Any] | None = None
    ) -> Step:
        """Return the step that keeps these units, with the reason for the others; ``facts`` join its settings."""
        strategy = self.strategy
        reason = f"{strategy.criterion}: lowest in its "
        mask = as_mask(self.granularity)
        if mask is not None and mask.kind == "n_m":
            reason += f"{mask.second} neighbours"
        elif self.by_cost:
            reason = f"{strategy.criterion}: lowest for what it costs"
        elif strategy.cutoff is not None:
            reason = f"{strategy.criterion}: below the cutoff {strategy.cutoff:g}"
        else:
            reason += "model" if strategy.allocation in ("global", "lamp") else "layer"
        decisions = tuple(
            Decision(s.name, s.units, s.saliency, keep[s.name], np.where(keep[s.name], "kept", reason).astype(object))
            for s in strata
        )
        settings = {"round": self.number, **(facts or {})}
        return Step("prune", self.granularity, strategy.criterion, decisions, settings)

    def _choose(self, strata: Sequence[Stratum], rules: Sequence[LayerRule | None]) -> list[Bools]:
        """Keep a share of what the dense model had, among what is left of it; layers with a share of their own apart."""
        strategy = self.strategy
        kept: dict[str, Bools] = {}
        for amount in dict.fromkeys(map(self.amount, rules)):
            mine = [s for s, rule in zip(strata, rules, strict=True) if self.amount(rule) == amount]
            if amount is None:
                share: dict[str, float | None] = {"cutoff": strategy.cutoff}
            else:
                left = sum(len(stratum.saliency) for stratum in mine)
                fraction = keep_fractions(strategy.schedule, amount)[self.number]
                wanted = fraction * sum(stratum.whole for stratum in mine)
                # Less than half a unit: the floors decide what stays, or the message says that nothing does.
                share = {"keep_fraction": min(1.0, (round(wanted) or wanted) / max(left, 1))}
            allocation = allocations[strategy.allocation]
            if strategy.allocation == "owl":
                allocation = partial(owl, multiple=strategy.owl_multiple, spread=strategy.owl_spread)
            chosen = select(mine, allocation=allocation, normalize=strategy.normalize, **share)
            if amount is not None and not round(wanted):
                total = sum(stratum.whole for stratum in mine)
                self.note(
                    f"keep_fraction {amount:.6g} of {total} {plural(self.granularity)} is less than one; min_units keeps "
                    f"{sum(int(keep.sum()) for keep in chosen)}"
                )
            kept.update(zip((stratum.name for stratum in mine), chosen, strict=True))
        return [kept[stratum.name] for stratum in strata]

    def _ruled(self, stratum: Stratum, rule: LayerRule | None, convolved: bool) -> Stratum:
        """Give a stratum its least number of units and the multiple that they come in; whole modules have no widths."""
        if self.granularity in ("block", "expert"):
            return stratum
        strategy = self.strategy
        multiple = 1 if strategy.round_to == "auto" else strategy.round_to
        amount = self.amount(rule)
        if strategy.round_to == "auto" and convolved and not self.by_cost and amount is not None:
            multiple = width_at(amount * stratum.whole)
        return replace(
            stratum,
            min_units=strategy.min_units if rule is None or rule.min_units is None else rule.min_units,
            multiple=lcm(stratum.multiple, multiple if rule is None or rule.round_to is None else rule.round_to),
        )

    def amount(self, rule: LayerRule | None) -> float | None:
        """Return the share that stays by a layer's own rule, else by the strategy."""
        return rule.keep_fraction if rule is not None and rule.keep_fraction is not None else self.strategy.amount
