"""Which criterion, which allocation? Each is tried, on examples that had no part in the scores.

No criterion and no allocation wins everywhere. All are compared at the cost of the cut that keeps the same share everywhere:
first with units set to zero (and what reads them refitted, where least squares follow and second moments are known), which costs
one pass over the held-out examples each; the best are then really cut and set right, and what is nearest to the dense model's
outputs wins. What was tried is in the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from prunus.core.types import Bools, Stratum
from prunus.data import Batched
from prunus.graph import Group
from prunus.graph.costs.cost_model import CostModel
from prunus.pipeline.cut.alternatives import by_cost, within
from prunus.pipeline.cut.refitted import refitted
from prunus.recover import Answers, Measure, distance
from prunus.score import Evidence
from prunus.select import floor_counts

__all__ = ["ALLOCATIONS", "Choice", "Tried", "allocate", "by_distance", "choices"]

ALLOCATIONS = ("uniform", "global", "cost")
"""The same share of every group; one ranking of all units; loss weighed against what is saved."""


@dataclass(frozen=True)
class Tried:
    """One way, and how far it took the outputs on held-out examples: by :func:`by_distance`, and cut and adjusted (or None).

    ``cost`` is the share of the dense model's that is left.
    """

    criterion: str
    allocation: str
    cost: float
    zeroed: float
    adjusted: float | None = None
    chosen: bool = False


@dataclass(frozen=True)
class Choice:
    """Which units of every group stay, by what."""

    criterion: str
    allocation: str
    strata: tuple[Stratum, ...]
    keep: tuple[Bools, ...]

    def whole(self) -> Choice:
        """Return the choice that lets everything stay."""
        return replace(self, keep=tuple(np.ones_like(mask) for mask in self.keep))

    @property
    def masks(self) -> dict[str, torch.Tensor]:
        """The units that stay, by group."""
        return {stratum.name: torch.from_numpy(mask) for stratum, mask in zip(self.strata, self.keep, strict=True)}


def allocate(strata: Sequence[Stratum], cost: CostModel, limit: float, allocation: str) -> list[Bools] | None:
    """Return what an allocation keeps at no more than ``limit``; None where its floors cost more.

    A criterion compares units of one group; so that ``global`` can rank all of them, each group's saliencies are divided by
    their mean.
    """
    if cost.total(floor_counts(strata)) > limit:
        return None
    if allocation == "cost":
        return by_cost(strata, cost, limit)
    return within(strata, cost, limit, allocation, "mean" if allocation == "global" else "none")


def choices(
    scored: Mapping[str, Sequence[Stratum]], allocations: Sequence[str], cost: CostModel, limit: float
) -> Iterator[Choice]:
    """Yield every criterion with every allocation at no more than ``limit``; what comes out as another did is left out."""
    seen: list[tuple[Bools, ...]] = []
    for criterion, strata in scored.items():
        for allocation in allocations:
            keep = allocate(strata, cost, limit, allocation)
            if keep is None or any(all(map(np.array_equal, keep, other)) for other in seen):
                continue
            seen.append(tuple(keep))
            yield Choice(criterion, allocation, tuple(strata), tuple(keep))


def by_distance(
    model: nn.Module,
    groups: Sequence[Group],
    found: Sequence[Choice],
    dense: Answers,
    held_out: Batched,
    *,
    evidence: Evidence | None,
    measure: Measure,
    batch_size: int,
    tell: Callable[[int, int], None],
) -> list[tuple[float, Choice]]:
    """Return how far each choice takes the outputs with its units zeroed, the nearest first; ties keep their order.

    With ``evidence`` that has second moments the layers that read the units are refitted for the trial: zeros alone rank at random
    where much goes. A distance that isn't finite counts as the farthest. ``dense`` are the answers of a copy. ``model`` ends in
    evaluation mode.
    """
    rows = []
    for number, choice in enumerate(found):
        tell(number, len(found))
        gone = {stratum.name: ~mask for stratum, mask in zip(choice.strata, choice.keep, strict=True)}
        with refitted(model, groups, gone, evidence):
            far = distance(model, dense, held_out, measure=measure, batch_size=batch_size)
        rows.append((far if np.isfinite(far) else float("inf"), choice))
    return sorted(rows, key=lambda row: row[0])
