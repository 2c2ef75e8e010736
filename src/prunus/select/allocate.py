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
from prunus.select.amount import Ladder, budget, closest
from prunus.select.apportion import apportion

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
    everyone = np.ones(len(strata))
    return apportion(strata, keep_fraction, share=lambda s: s * everyone, level=lambda _, s: s)


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
    target = budget(int(ladder.size.sum()), keep_fraction)
    floor = ladder.counts(ladder.first)
    spare = target - int(floor.sum())
    if spare <= 0:
        return floor
    if (ladder.block > 1).any():
        return _rank_blocks(strata, ladder, target)
    rest = [_without_best(stratum.saliency, int(n)) for stratum, n in zip(strata, floor, strict=True)]
    pool = np.concatenate(rest)
    threshold = np.partition(pool, len(pool) - spare)[len(pool) - spare]
    counts = floor + np.array([np.count_nonzero(values > threshold) for values in rest], np.int64)
    for i, values in enumerate(rest):
        left = target - int(counts.sum())
        counts[i] += min(left, int(np.count_nonzero(values == threshold)))
    return counts


def _without_best(saliency: Floats, count: int) -> Floats:
    """Return the saliencies that are left when the ``count`` highest are taken out."""
    left = len(saliency) - count
    return np.partition(saliency, left)[:left] if count else saliency


def _rank_blocks(strata: Sequence[Stratum], ladder: Ladder, target: int) -> Ints:
    """Rank the steps from rung to rung by mean saliency and take as many as bring the total closest to ``target``."""
    floor = ladder.counts(ladder.first)
    priority, owner, gain = [], [], []
    for i, stratum in enumerate(strata):
        counts = np.minimum(np.arange(ladder.first[i], ladder.last[i] + 1) * ladder.block[i], ladder.size[i])
        ranked = np.sort(stratum.saliency)[::-1]
        steps = np.diff(counts)
        means = np.add.reduceat(ranked, counts[:-1]) / steps
        # A mean may round above the one before it; inside a stratum the better block must come first.
        priority.append(np.minimum.accumulate(means))
        owner.append(np.full(len(steps), i))
        gain.append(steps)
    order = np.argsort(-np.concatenate(priority), kind="stable")
    owners, gains = np.concatenate(owner)[order], np.concatenate(gain)[order]
    taken = closest(target, int(floor.sum()) + np.concatenate([[0], np.cumsum(gains)]))
    return floor + np.bincount(owners[:taken], weights=gains[:taken], minlength=len(strata)).astype(np.int64)
