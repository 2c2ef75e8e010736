"""How is one budget shared among the strata?

An allocation is a function ``(strata, keep_fraction) -> counts``, registered by name. Every one of them spends the budget exactly
(as near to it as floors and multiples allow), and never gives a stratum less when the budget grows: that is what makes a
larger keep fraction keep a superset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from prunus.core.code.registry import Registry
from prunus.core.types import Floats, Ints, Stratum
from prunus.select.amount import Ladder
from prunus.select.apportion import apportion, spend

__all__ = ["Allocation", "allocation", "allocations", "global_ranking", "uniform"]

Allocation = Callable[[Sequence[Stratum], float], Ints]
"""``(strata, keep_fraction) -> counts``: how many units each stratum keeps; saliencies come normalised."""

allocations: Registry[Allocation] = Registry("allocation")


_Kind = TypeVar("_Kind", bound=Allocation)


def allocation(name: str) -> Callable[[_Kind], _Kind]:
    """Register an allocation, which also enrols it in the law tests."""

    def register(function: _Kind) -> _Kind:
        allocations.add(name, function)
        return function

    return register


@allocation("uniform")
def uniform(strata: Sequence[Stratum], keep_fraction: float) -> Ints:
    """Return counts that keep the same share of every stratum, and ``round(keep_fraction * total)`` in all.

    Args:
        strata: floors (``min_units``) come first; if they exceed the budget, they stand.
        keep_fraction: in (0, 1].

    >>> layers = [Stratum("a", np.zeros(5)), Stratum("b", np.zeros(3)), Stratum("c", np.zeros(1))]
    >>> uniform(layers, 5 / 9)
    array([3, 1, 1])
    """
    return apportion(strata, keep_fraction, level=lambda _, shares: shares)


@allocation("global")
def global_ranking(strata: Sequence[Stratum], keep_fraction: float) -> Ints:
    """Return counts that keep the best units of one ranking over all strata, ``round(keep_fraction * total)`` in all.

    Floors come first; with a ``multiple``, units compete in blocks of that size by their mean saliency. On a tie, the earlier
    stratum keeps more.

    >>> layers = [Stratum("a", np.array([5.0, 4.0, 3.0])), Stratum("b", np.array([2.0, 1.0, 0.0]))]
    >>> global_ranking(layers, 0.5)
    array([2, 1])
    """
    ladder = Ladder.of(strata)
    floor = ladder.counts(ladder.first)

    def due(i: int) -> Floats:
        saliency = strata[i].saliency
        if ladder.block[i] == 1:
            return -_without_best(saliency, int(floor[i]))
        counts = ladder.climb(i)
        means = np.add.reduceat(np.sort(saliency)[::-1], counts[:-1]) / np.diff(counts)
        # A mean may round above the one before it; inside a stratum the better block must come first.
        return -np.minimum.accumulate(means)

    return spend(ladder, keep_fraction, due)


def _without_best(saliency: Floats, count: int) -> Floats:
    """Return the saliencies that are left when the ``count`` highest are taken out."""
    left = len(saliency) - count
    return np.partition(saliency, left)[:left] if count else saliency
