"""How is a way of choosing scored, bounded, tried and carried out?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from prunus.apply import Shrunk, shrink
from prunus.core.calls import select_rows
from prunus.core.errors import DataError, PlanError, RecipeError, near
from prunus.core.events import Event, Listener
from prunus.core.types import Plan, Stratum
from prunus.data import Batched
from prunus.graph import AxisGraph, Group
from prunus.graph.costs.cost_model import CostModel, count_model
from prunus.graph.tracing.states import duplicate
from prunus.pipeline.auto.choosing import ALLOCATIONS, Choice, Tried, allocate, by_distance, choices
from prunus.pipeline.auto.implied import Objective
from prunus.pipeline.auto.recovering import Recovered
from prunus.pipeline.costing.kernel_widths import convolved, fitting, in_multiples, width_at
from prunus.pipeline.cut.alternatives import lost_less
from prunus.pipeline.cut.prunable import layer_of
from prunus.pipeline.cut.refitted import refitted
from prunus.pipeline.cut.unit_places import kept_outputs, n_weights
from prunus.pipeline.shipping import model_fingerprint
from prunus.recover import FEWEST, Adjusted, Adjustment, Answers, adjust, distance, split_off
from prunus.score import Evidence, criteria, gather, norm_scales, score_groups
from prunus.select import floor_counts, select

__all__ = ["Made", "Ways", "candidates"]

_STAGE = "prune"
_FINALISTS = 3
"""So many of the choices are really cut and adjusted before one wins."""
_LABELLED = ("magnitude_l2", "wanda", "activation_variance", "fisher_empirical", "taylor")
_UNLABELLED = _LABELLED[:-1]
_JOINT = "reconstruction"
_JOINT_NUMBERS = 1 << 26
"""Judging units together and refitting takes the square of every layer's fan-in; with more numbers it isn't done unasked."""
_SINGLE_EXAMPLES = 128
"""Squares of single examples' gradients take a backward pass each: so many examples are enough to rank units."""


@dataclass(frozen=True)
class Made:
    """A cut that was carried out; ``distance`` is to the dense model's outputs on held-out examples, where there are some.

    ``recovered`` tells how it was trained, where it was; the distance is from before. ``refitted``: the layers that read the
    units got other weights before these went.
    """

    shrunk: Shrunk
    adjusted: Adjusted | None
    distance: float | None
    recovered: Recovered | None = None
    refitted: bool = False


@dataclass(frozen=True)
class Ways:
    """What every way of choosing needs."""

    model: nn.Module
    given: tuple[Any, ...]
    named: Mapping[str, Any]
    graph: AxisGraph
    groups: Sequence[Group]
    round_to: int | Literal["auto"]
    min_units: int
    batch_size: int
    seed: int
    tell: Listener
    note: Callable[[str], None]

    def blind(self, criterion: str, allocation: str, share: tuple[str, float]) -> Choice:
        """Choose by the weights alone; where an allocation isn't asked for, every group keeps the same share."""
        needed = [need for need in criteria[criterion].needs if need not in ("weight", "noise", "flow")]
        if needed:
            raise DataError(f"criterion {criterion} needs examples ({', '.join(needed)}): give data=...")
        strata = self._scored((criterion,), None, None)[1][criterion]
        strata, cost, limit = self._limit(strata, share)
        allocation = "uniform" if allocation == "auto" else allocation
        if share[0] == "units" and allocation == "uniform":
            return Choice(criterion, allocation, tuple(strata), tuple(select(strata, keep_fraction=share[1])))
        keep = allocate(strata, cost, limit, allocation)
        if keep is None:
            raise self._below(strata, cost, share)
        return Choice(criterion, allocation, tuple(strata), tuple(keep))

    def chosen(
        self,
        names: Sequence[str],
        allocations: Sequence[str],
        share: tuple[str, float],
        examples: Batched,
        objective: Objective,
        kinds: Sequence[Adjustment],
    ) -> tuple[Choice, Made, tuple[Tried, ...]]:
        """Try every criterion with every allocation, cut and adjust the best, and take the nearest to the dense outputs."""
        fit, held_out = split_off(examples)
        few = len(examples) < FEWEST
        if few:
            self.note(
                f"{len(examples)} examples are too few to hold some out (at least {FEWEST}): the first way is taken"
            )
        refit = not few and "least_squares" in kinds and _few_moments(self.model, self.groups)
        evidence, scored = self._scored(names, examples if few else fit, objective, refit=refit)
        strata, cost, limit = self._limit(next(iter(scored.values())), share)
        multiples = {s.name: s.multiple for s in strata}
        scored = {name: in_multiples(each, multiples) for name, each in scored.items()}
        found = list(choices(scored, allocations[:1] if few else allocations, cost, limit))
        if not found:
            raise self._below(strata, cost, share)
        whole = cost.total([len(s.saliency) for s in strata])
        if few:
            return found[0], self.made(found[0], examples, objective, ()), ()
        moments = evidence if refit else None
        dense = Answers(duplicate(self.model))  # of a copy: units of the model itself are set to zero for a while

        def rank(ways: Sequence[Choice]) -> list[tuple[float, Choice]]:
            return by_distance(
                self.model,
                self.groups,
                ways,
                dense,
                held_out,
                evidence=moments,
                measure=objective.measure,
                batch_size=self.batch_size,
                tell=lambda done, total: self.tell(Event("progress", f"{_STAGE} / compare", done=done, total=total)),
            )

        ranked = rank(found)
        finals = [(self.made(one, examples, objective, kinds, dense, moments), one) for _, one in ranked[:_FINALISTS]]
        best, choice = min(finals, key=lambda one: _number(one[0].distance))
        after = {id(one): made.distance for made, one in finals}
        if len(allocations) == 1:  # it was asked for, so it is taken; that another loses less is said
            others = [name for name in ALLOCATIONS if name != choice.allocation]
            found = list(choices({choice.criterion: choice.strata}, others, cost, limit))
            far = {one.allocation: value for value, one in (*ranked, *rank(found)) if one.criterion == choice.criterion}
            said = lost_less(choice.allocation, far, "macs" if share[0] == "units" else share[0])
            if said is not None:
                self.note(said)
        tried = tuple(
            Tried(
                one.criterion,
                one.allocation,
                cost.total([int(mask.sum()) for mask in one.keep]) / whole,
                far,
                after.get(id(one)),
                one is choice,
            )
            for far, one in ranked
        )
        return choice, best, tried

    def made(
        self,
        choice: Choice,
        examples: Batched | None,
        objective: Objective | None,
        kinds: Sequence[Adjustment],
        dense: Answers | None = None,
        moments: Evidence | None = None,
    ) -> Made:
        """Cut for real, and set right what is left.

        Args:
            dense: the model's answers to the held-out examples, if known.
            moments: of the inputs of the layers that read the units: they are refitted before the cut, where that brings the
                outputs nearer than units set to zero.
        """
        gone = {stratum.name: ~mask for stratum, mask in zip(choice.strata, choice.keep, strict=True)}

        def cut(known: Evidence | None) -> Shrunk:
            with refitted(self.model, self.groups, gone, known, zeroed=False):
                return shrink(self.model, self.given, self.graph, choice.masks, kwargs=self.named)

        if examples is None or objective is None or len(examples) < FEWEST:
            return Made(cut(None), None, None)
        fit, held_out = split_off(examples)
        dense = dense or Answers(duplicate(self.model))

        def apart(one: nn.Module) -> float:
            return _number(distance(one, dense, held_out, measure=objective.measure, batch_size=self.batch_size))

        shrunk = cut(moments)
        if moments is not None:
            with refitted(self.model, self.groups, gone, None):
                zeros = apart(self.model)
            if not apart(shrunk.model) < zeros:
                moments, shrunk = None, cut(None)
        adjusted = None
        if kinds:
            keep = {s.name: mask for s, mask in zip(choice.strata, choice.keep, strict=True)}
            adjusted = adjust(
                shrunk.model,
                self.model,
                fit,
                kinds,
                held_out=held_out,
                target=dense,
                measure=objective.measure,
                kept=kept_outputs(self.model, self.groups, keep),
                folded={layer_of(name): f for name, f in shrunk.folded.items() if name.endswith(".weight")},
                batch_size=self.batch_size,
            )
        far = None if adjusted is None else adjusted.distance
        if far is None:
            far = distance(shrunk.model, dense, held_out, measure=objective.measure, batch_size=self.batch_size)
        return Made(shrunk, adjusted, far, refitted=moments is not None)

    def planned(self, plan: Plan) -> Choice:
        """Return what a plan decided.

        Raises:
            PlanError: it is another model's.
        """
        here = model_fingerprint(self.model)
        if plan.fingerprints.get("model") != here:
            raise PlanError(
                f"the plan was made for another model (fingerprint {plan.fingerprints.get('model', 'missing')[:12]}, got "
                f"{here[:12]}): use the model of the plan, or make a new one"
            )
        sizes = {group.name: group.size for group in self.groups}
        (step,) = plan.steps
        wrong = [d.stratum for d in step.decisions if sizes.get(d.stratum) != len(d.unit)]
        if wrong:
            raise PlanError(
                f"the plan cuts {wrong[0]!r}, which this call doesn't find in that size; {near(wrong[0], sizes)}; use the "
                "arguments that the plan was made with"
            )
        strata = tuple(Stratum(d.stratum, d.saliency) for d in step.decisions)
        return Choice(
            step.criterion, str(step.settings.get("allocation", "")), strata, tuple(d.keep for d in step.decisions)
        )

    def moments(self, examples: Batched, objective: Objective) -> Evidence:
        """Return what :meth:`chosen` knows of the inputs of all layers, to carry out a plan that needs it."""
        return self._evidence((_JOINT,), split_off(examples)[0], objective)

    def _scored(
        self, names: Sequence[str], examples: Batched | None, objective: Objective | None, *, refit: bool = False
    ) -> tuple[Evidence, dict[str, list[Stratum]]]:
        evidence = self._evidence((*names, _JOINT) if refit else names, examples, objective)
        scales = norm_scales(self.model)
        return evidence, {
            name: [
                self._ruled(stratum, group)
                for stratum, group in zip(
                    score_groups(self.groups, evidence, name, norm_scales=scales, seed=self.seed, note=self.note),
                    self.groups,
                    strict=True,
                )
            ]
            for name in names
        }

    def _evidence(self, names: Sequence[str], examples: Batched | None, objective: Objective | None) -> Evidence:
        parameters = sorted({name for group in self.groups for name in group.parameters(self.model)})
        needs = {need for name in names for need in criteria[name].needs}
        some = _Nothing() if examples is None else examples
        loss = _no_loss if objective is None else objective.loss
        cheap = needs - {"squared_gradient"}
        self.tell(Event("start", f"{_STAGE} / score", f"{', '.join(names)} on {len(some)} examples"))
        evidence = gather(self.model, parameters, some, loss, cheap, self.batch_size, seed=self.seed)
        if "squared_gradient" in needs:
            first = _First(some, _SINGLE_EXAMPLES)
            single = gather(self.model, parameters, first, loss, ["squared_gradient"], self.batch_size, seed=self.seed)
            evidence = evidence.replaced("squared_gradient", single.of("squared_gradient") or {})
        return evidence

    def _ruled(self, stratum: Stratum, group: Group) -> Stratum:
        return replace(
            stratum,
            min_units=max(group.min_units, self.min_units),
            multiple=group.multiple if self.round_to == "auto" else lcm(group.multiple, self.round_to),
            whole=group.size,
            joint=self.graph.joint_of(group.name),
            n_weights=n_weights(self.model, group),
        )

    def _limit(self, strata: Sequence[Stratum], share: tuple[str, float]) -> tuple[list[Stratum], CostModel, float]:
        """Return the strata in the widths that kernels want, the cost that counts, and how much of it may be left."""
        kind, fraction = share
        cost = count_model("macs" if kind == "units" else cast("Any", kind), self.graph, self.groups, self.model)
        whole = cost.total([group.size for group in self.groups])
        sizes = convolved(self.groups, self.model) if self.round_to == "auto" else {}
        if kind != "units":
            limit = fraction * whole
            return fitting(strata, sizes, cost, limit) if sizes else list(strata), cost, limit
        strata = in_multiples(strata, {name: width_at(fraction * size) for name, size in sizes.items()})
        uniform = select(strata, keep_fraction=fraction)
        return strata, cost, cost.total([int(mask.sum()) for mask in uniform])

    def _below(self, strata: Sequence[Stratum], cost: CostModel, share: tuple[str, float]) -> RecipeError:
        floor = cost.total(floor_counts(strata)) / cost.total([group.size for group in self.groups])
        return RecipeError(
            f"{share[1]:g} of the {share[0]} is below the floor: what can't be cut costs {floor:.3g} of the dense model; ask for "
            f"more than that, or exclude less"
        )


class _Nothing:
    """No examples."""

    def __len__(self) -> int:
        return 0

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Any:
        """Yield nothing."""
        return iter(())


@dataclass(frozen=True)
class _First:
    """The first so many examples of a set, by batches of it."""

    examples: Batched
    n: int

    def __len__(self) -> int:
        return min(self.n, len(self.examples))

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Any:
        """Yield batches until there are enough."""
        left = len(self)
        for batch in self.examples.batches(batch_size, generator):
            size = len(batch.index)
            if size > left:
                batch = type(batch)(*(select_rows(field, torch.arange(left)) for field in batch))
            yield batch
            left -= min(size, left)
            if left == 0:
                return


def _no_loss(outputs: Any, batch: Any) -> Tensor:
    raise AssertionError("a criterion of weights alone takes no loss")


def candidates(objective: Objective, model: nn.Module, groups: Sequence[Group]) -> tuple[str, ...]:
    """Return the criteria that ``auto`` tries; the one that judges units together where its second moments aren't too many."""
    names = _LABELLED if objective.labelled else _UNLABELLED
    return (*names, _JOINT) if _few_moments(model, groups) else names


def _few_moments(model: nn.Module, groups: Sequence[Group]) -> bool:
    """Tell whether the squares of all layers' fan-ins are few enough to be taken unasked."""
    parameters = dict(model.named_parameters())
    weights = [parameters[name] for name in {name for group in groups for name in group.parameters(model)}]
    return sum((weight.numel() // weight.shape[0]) ** 2 for weight in weights if weight.dim() > 1) <= _JOINT_NUMBERS


def _number(value: float | None) -> float:
    return float("inf") if value is None or not np.isfinite(value) else value
