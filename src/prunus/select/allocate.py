"""How is one budget shared among the strata?

An allocation is a function ``(strata, keep_fraction) -> counts``, registered by name. Every one of them spends the budget exactly
(as near to it as floors and multiples allow), and never gives a stratum less when the budget grows: that is what makes a
larger keep fraction keep a superset.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import numpy as np

from prunus.core.registry import Registry
from prunus.core.types import Floats, Ints, Stratum
from prunus.select.amount import Ladder, budget, closest

__all__ = ["Allocation", "allocation", "allocations", "global_ranking", "uniform"]

Allocation = Callable[[Sequence[Stratum], float], Ints]
"""``(strata, keep_fraction) -> counts``: how many units each stratum keeps; saliencies come normalised."""

allocations: Registry[Allocation] = Registry("allocation")


def allocation(name: str) -> Callable[[Allocation], Allocation]:
    """Register an allocation, which also enrols it in the law tests."""
    return lambda function: allocations.add(name, function)


@allocation("uniform")
def uniform(strata: Sequence[Stratum], keep_fraction: float) -> Ints:
    """Return counts that keep the same share of every stratum, and ``round(keep_fraction * total)`` in all.

    Args:
        strata: floors (``min_units``) come first; if they exceed the budget, they stand.
        keep_fraction: in (0, 1].

    References:
        Webster's method (Sainte-Laguë; Balinski & Young, *Fair Representation*, 1982). The better-known largest-remainder method
        spends the budget exactly too, but may take a unit from a stratum when the budget grows (the Alabama paradox), and
        then a larger keep fraction would not keep a superset.

    >>> layers = [Stratum("a", np.zeros(5)), Stratum("b", np.zeros(3)), Stratum("c", np.zeros(1))]
    >>> uniform(layers, 5 / 9)
    array([3, 1, 1])
    """
    ladder = Ladder.of(strata)
    target = budget(int(ladder.size.sum()), keep_fraction)
    low, high = 0.0, 1.0
    if ladder.counts(ladder.nearest(high)).sum() <= target:
        return ladder.counts(ladder.nearest(high))
    for _ in range(60):  # find the share whose rounding stays just within the budget
        middle = (low + high) / 2
        if ladder.counts(ladder.nearest(middle)).sum() <= target:
            low = middle
        else:
            high = middle
    # One rung back, so that rounding errors of the share can't matter; the last rungs are climbed one by one, in order.
    rung = np.maximum(ladder.nearest(low) - 1, ladder.first)
    return _climb(ladder, rung, target)


def _climb(ladder: Ladder, rung: Ints, target: int) -> Ints:
    """Climb the rung with the lowest threshold, again and again, and stop where the total is closest to ``target``."""
    counts = ladder.counts(rung)
    total = int(counts.sum())
    waiting = [
        (ladder.threshold(i, int(rung[i]) + 1), i, int(rung[i]) + 1)
        for i in np.flatnonzero(rung < ladder.last).tolist()
    ]
    heapq.heapify(waiting)
    while waiting and total < target:
        _, stratum, step = heapq.heappop(waiting)
        count = min(step * int(ladder.block[stratum]), int(ladder.size[stratum]))
        gain = count - int(counts[stratum])
        if total + gain - target > target - total:
            break
        counts[stratum] = count
        total += gain
        if step < ladder.last[stratum]:
            heapq.heappush(waiting, (ladder.threshold(stratum, step + 1), stratum, step + 1))
    return counts


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
    if spare >= len(pool):
        return ladder.size.copy()
    threshold = np.partition(pool, len(pool) - spare)[len(pool) - spare]
    counts = floor + np.array([np.count_nonzero(values > threshold) for values in rest], np.int64)
    for i, values in enumerate(rest):
        left = target - int(counts.sum())
        counts[i] += min(left, int(np.count_nonzero(values == threshold)))
    return counts


def _without_best(saliency: Floats, count: int) -> Floats:
    """Return the saliencies that are left when the ``count`` highest are taken out."""
    n = len(saliency)
    if count == 0:
        return saliency
    return np.partition(saliency, n - count)[: n - count] if count < n else saliency[:0]


def _rank_blocks(strata: Sequence[Stratum], ladder: Ladder, target: int) -> Ints:
    """Rank the steps from rung to rung by mean saliency and take as many as bring the total closest to ``target``."""
    floor = ladder.counts(ladder.first)
    priority, owner, gain = [], [], []
    for i, stratum in enumerate(strata):
        counts = np.minimum(np.arange(ladder.first[i], ladder.last[i] + 1) * ladder.block[i], ladder.size[i])
        if len(counts) < 2:
            continue
        ranked = np.sort(stratum.saliency)[::-1]
        steps = np.diff(counts)
        means = np.add.reduceat(ranked, counts[:-1]) / steps
        # A mean may round above the one before it; inside a stratum the better block must come first.
        priority.append(np.minimum.accumulate(means))
        owner.append(np.full(len(steps), i))
        gain.append(steps)
    if not gain:
        return floor
    order = np.argsort(-np.concatenate(priority), kind="stable")
    owners, gains = np.concatenate(owner)[order], np.concatenate(gain)[order]
    taken = closest(target, int(floor.sum()) + np.concatenate([[0], np.cumsum(gains)]))
    return floor + np.bincount(owners[:taken], weights=gains[:taken], minlength=len(strata)).astype(np.int64)
