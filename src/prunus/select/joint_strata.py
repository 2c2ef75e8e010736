"""How are strata chosen from that can only keep one and the same share, because one number stands for all of their sizes?

They are one stratum to whoever shares out a budget: as many units as the largest of them has, each as salient as the units of all
of them in its place from the best on. What that one keeps, each of them keeps of its own units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, lcm
from typing import Protocol

import numpy as np

from prunus.core.types import Floats, Ints, Stratum

__all__ = ["Cost", "JointCost", "Merged"]


class Cost(Protocol):
    """What counts cost together: :class:`prunus.graph.costs.cost_model.CostModel`, or any function like it."""

    def total(self, counts: Sequence[int] | Ints) -> float:
        """Return the whole cost."""
        ...

    def part(self, group: int, counts: Sequence[int] | Ints) -> float:
        """Return the part of the cost that the count of one stratum can change."""
        ...

    def neighbours(self, group: int) -> set[int]:
        """Return the strata whose savings change with the count of one."""
        ...


@dataclass(frozen=True)
class Merged:
    """Strata with those of one ``joint`` made one; ``parts`` are the numbers of the given ones, for each."""

    strata: tuple[Stratum, ...]
    parts: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, strata: Sequence[Stratum]) -> Merged:
        """Merge ``strata``; what is in no joint stays as it is."""
        parts: dict[str | int, list[int]] = {}
        for i, stratum in enumerate(strata):
            parts.setdefault(stratum.joint or i, []).append(i)
        made = tuple(_merged([strata[i] for i in mine]) for mine in parts.values())
        return cls(made, tuple(map(tuple, parts.values())), tuple(len(s.saliency) for s in strata))

    @property
    def is_plain(self) -> bool:
        """Whether nothing was merged."""
        return len(self.parts) == len(self.sizes)

    def expand(self, counts: Ints) -> Ints:
        """Return what each given stratum keeps when the merged ones keep ``counts``."""
        if self.is_plain:
            return counts
        found = np.zeros(len(self.sizes), np.int64)
        for stratum, mine, count in zip(self.strata, self.parts, counts.tolist(), strict=True):
            for i in mine:
                found[i] = self.sizes[i] * count // max(1, len(stratum.saliency))
        return found

    def gather(self, counts: Ints) -> Ints:
        """Return what the merged strata keep when the given ones keep ``counts``."""
        if self.is_plain:
            return counts
        found = np.zeros(len(self.parts), np.int64)
        for place, (stratum, mine) in enumerate(zip(self.strata, self.parts, strict=True)):
            found[place] = len(stratum.saliency) * counts[mine[0]] // max(1, self.sizes[mine[0]])
        return found

    def cost(self, cost: Cost) -> Cost:
        """Return the cost of counts of the merged strata."""
        return cost if self.is_plain else JointCost(cost, self)


@dataclass(frozen=True)
class JointCost:
    """The cost of merged strata, told by that of the given ones."""

    given: Cost
    merged: Merged

    def total(self, counts: Sequence[int] | Ints) -> float:
        """Return the whole cost."""
        return self.given.total(self.merged.expand(np.asarray(counts)))

    def part(self, group: int, counts: Sequence[int] | Ints) -> float:
        """Return the whole cost: what one number changes lies all over the model."""
        return self.total(counts)

    def neighbours(self, group: int) -> set[int]:
        """Return all strata: a few settings are all that there is to choose."""
        return set(range(len(self.merged.parts)))


def _merged(strata: Sequence[Stratum]) -> Stratum:
    if len(strata) == 1 and not strata[0].joint:
        return strata[0]
    largest = max(strata, key=lambda s: len(s.saliency))
    size = len(largest.saliency)
    steps = gcd(*(len(s.saliency) for s in strata))
    # A number of steps that gives every stratum one of its multiples, where there is one below the whole.
    each = lcm(*(s.multiple // gcd(s.multiple, len(s.saliency) // steps) for s in strata))
    each = each if steps % each == 0 and each < steps else 1
    floor = max(-(-s.min_units * steps // len(s.saliency)) for s in strata)
    places = np.array([_spread(s.saliency, size) for s in strata])
    if largest.additive:  # errors add up: a place has the part of the unit's that lies in it
        places = places * np.array([[len(s.saliency) / size] for s in strata])
    return replace(
        largest,
        name=largest.joint,
        saliency=places.sum(axis=0) if largest.additive else places.mean(axis=0),
        unit=None,
        row=None,
        min_units=floor * (size // steps),
        multiple=each * (size // steps),
        cost=sum(s.cost * len(s.saliency) for s in strata) / size,
        n_weights=sum(s.n_weights for s in strata),
        losses=_together([s.losses for s in strata]),
    )


def _together(losses: Sequence[Floats | None]) -> Floats | None:
    """Return the sum of losses that were measured at the same shares; None where they weren't."""
    first = losses[0]
    if first is None or any(each is None or not np.array_equal(each[:, 0], first[:, 0]) for each in losses):
        return None
    return np.column_stack([first[:, 0], np.sum([each[:, 1] for each in losses if each is not None], axis=0)])


def _spread(saliency: Floats, size: int) -> Floats:
    """Return the saliencies from the best on, over ``size`` places.

    >>> _spread(np.array([1.0, 3.0]), 4)
    array([3., 3., 1., 1.])
    """
    ranked: Floats = np.sort(saliency)[::-1][np.arange(size) * len(saliency) // size]
    return ranked
