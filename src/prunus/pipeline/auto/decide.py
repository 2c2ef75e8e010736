"""What is cut: what a plan says, what weights say, the nearest of several ways, or the smallest that keeps a promise?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from prunus.core.types import Plan
from prunus.data import Batches
from prunus.evaluate import NonInferiority
from prunus.pipeline.auto.choosing import ALLOCATIONS, Choice, Tried
from prunus.pipeline.auto.implied import Objective
from prunus.pipeline.auto.promise import Promise
from prunus.pipeline.auto.recovering import Trainer
from prunus.pipeline.auto.ways import Made, Ways, candidates
from prunus.recover import Adjustment

__all__ = ["Decided", "Evidence", "decide"]


@dataclass(frozen=True)
class Evidence:
    """The examples that choose, what is to be kept on them, what is promised and how a cut is trained, if anything is."""

    examples: Batches
    objective: Objective
    promise: Promise | None = None
    trainer: Trainer | None = None

    def trained(self, made: Made) -> Made:
        """Return what was cut once it's trained, where that is asked for."""
        return made if self.trainer is None else replace(made, recovered=self.trainer(made.shrunk.model))


@dataclass(frozen=True)
class Decided:
    """A choice, carried out; what else was tried; and the test of what was promised."""

    choice: Choice
    made: Made
    tried: tuple[Tried, ...] = ()
    test: NonInferiority | None = None

    @property
    def delivered(self) -> bool:
        """Whether nothing was promised, or it is shown to be kept."""
        return self.test is None or self.test.kept


def decide(
    ways: Ways,
    evidence: Evidence | None,
    amount: tuple[str, float] | None,
    *,
    criterion: str,
    allocation: str,
    kinds: Sequence[Adjustment],
    plan: Plan | None = None,
) -> Decided:
    """Return what is cut.

    Args:
        evidence: None where there are no data: then weights alone decide, and nothing is set right.
        amount: of what how much may stay; None: half of the units, or as little as the promise allows.
    """
    promise = None if evidence is None else evidence.promise
    share = amount or ("units", 0.5)
    if plan is not None:
        choice = ways.planned(plan)
        examples, objective = (None, None) if evidence is None else (evidence.examples, evidence.objective)
        moments = None
        if examples is not None and objective is not None and plan.steps[0].settings.get("refitted"):
            moments = ways.moments(examples, objective)
        made = ways.made(choice, examples, objective, kinds, moments=moments)
        found = Decided(choice, made if evidence is None else evidence.trained(made))
    elif evidence is None:
        choice = _blind(ways, criterion, allocation, share)
        found = Decided(choice, ways.made(choice, None, None, ()))
    else:
        ways.note(f"kept is: {evidence.objective.said}")
        nearest = _Nearest(ways, evidence, criterion, allocation, kinds)
        if promise is not None and amount is None:
            found, test = promise.smallest(nearest.of_macs)
            return replace(found, test=test)
        found = nearest(share)
    return found if promise is None else replace(found, test=promise.shown(found.made.shrunk.model))


def _blind(ways: Ways, criterion: str, allocation: str, share: tuple[str, float]) -> Choice:
    if criterion == "auto":
        ways.note(
            "no data: units are judged by the norms of their weights (magnitude_l2); data=... judges by what they do"
        )
    return ways.blind("magnitude_l2" if criterion == "auto" else criterion, allocation, share)


@dataclass(frozen=True)
class _Nearest:
    """Of the ways that are asked for, the one that comes nearest to the dense model's answers at an amount."""

    ways: Ways
    evidence: Evidence
    criterion: str
    allocation: str
    kinds: Sequence[Adjustment]

    def __call__(self, amount: tuple[str, float]) -> Decided:
        ways, examples, objective = self.ways, self.evidence.examples, self.evidence.objective
        names = candidates(objective, ways.model, ways.groups) if self.criterion == "auto" else (self.criterion,)
        allocations = ALLOCATIONS if self.allocation == "auto" else (self.allocation,)
        choice, made, tried = ways.chosen(names, allocations, amount, examples, objective, self.kinds)
        return Decided(choice, self.evidence.trained(made), tried)

    def of_macs(self, amount: float) -> tuple[Decided, nn.Module]:
        """Return the nearest at a share of the multiplications, and its model."""
        found = self(("macs", amount))
        return found, found.made.shrunk.model
