"""How is a budget shared out when every stratum has its own idea of a fair share?

All strata climb one common *level*. ``share(level)`` says which share of its units each stratum then keeps, never falling, and
``level(stratum, share)`` is its inverse. The level rises until the budget is spent, so the counts are exact, and a larger budget
never takes a unit away.

References:
    With ``share(level) = level`` this is Webster's method (Sainte-Laguë; Balinski & Young, *Fair Representation*, 1982). The
    better-known largest-remainder method spends the budget exactly too, but may take a unit from a stratum when the budget grows
    (the Alabama paradox), and then a larger keep fraction would not keep a superset.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import numpy as np

from prunus.core.types import Floats, Ints, Stratum
from prunus.select.amount import Ladder, budget

__all__ = ["apportion", "whole"]


def apportion(
    strata: Sequence[Stratum],
    keep_fraction: float,
    *,
    share: Callable[[float], Floats],
    level: Callable[[int, float], float],
) -> Ints:
    """Return how many units each stratum keeps: ``round(keep_fraction * total)`` in all, or what the floors ask for.

    Args:
        share: from the level to each stratum's share of its ``whole``; what is outside of [0, 1] counts as the nearer end.
        level: from a stratum and a share to the level at which it gets it.
    """
    ladder, wholes = Ladder.of(strata), whole(strata)
    target = budget(int(ladder.size.sum()), keep_fraction)

    def rungs(height: float) -> Ints:
        return ladder.nearest(np.clip(share(height), 0.0, 1.0) * wholes / np.maximum(ladder.size, 1))

    def threshold(stratum: int, rung: int) -> float:
        return level(stratum, ladder.threshold(stratum, rung) * ladder.size[stratum] / wholes[stratum])

    numbers = range(len(strata))
    low, high = min(level(i, 0.0) for i in numbers), max(level(i, 1.0) for i in numbers)
    for _ in range(60):  # find the level whose rounding stays just within the budget
        middle = (low + high) / 2
        if ladder.counts(rungs(middle)).sum() <= target:
            low = middle
        else:
            high = middle
    # One rung back, so that rounding errors of the level can't matter; the last rungs are climbed one by one, in order.
    return _climb(ladder, np.maximum(rungs(low) - 1, ladder.first), target, threshold)


def whole(strata: Sequence[Stratum]) -> Ints:
    """Return how many units each stratum had before the first round: ``(strata,)``, at least 1."""
    return np.array([max(stratum.whole or len(stratum.saliency), 1) for stratum in strata], np.int64)


def _climb(ladder: Ladder, rung: Ints, target: int, threshold: Callable[[int, int], float]) -> Ints:
    """Climb the rung with the lowest threshold, again and again, and stop where the total is closest to ``target``."""
    steps: list[tuple[float, int, int]] = []

    def wait(stratum: int) -> None:
        if rung[stratum] < ladder.last[stratum]:
            step = int(rung[stratum]) + 1
            heapq.heappush(steps, (threshold(stratum, step), stratum, step))

    for stratum in range(len(rung)):
        wait(stratum)
    counts = ladder.counts(rung)
    while counts.sum() < target:
        _, stratum, rung[stratum] = heapq.heappop(steps)
        wider = ladder.counts(rung)
        if wider.sum() - target > target - counts.sum():
            break
        counts = wider
        wait(stratum)
    return counts
