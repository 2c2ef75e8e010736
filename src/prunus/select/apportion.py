"""How is a budget shared out when every stratum has its own idea of a fair share?

Each stratum climbs from count to count, and each of its steps is due at a *level*. The lowest come first until the budget is
spent, so the counts are exact, and a larger budget never takes a unit away.

References:
    Where a share is its own level this is Webster's method (Sainte-Laguë; Balinski & Young, *Fair Representation*, 1982). The
    better-known largest-remainder method spends the budget exactly too, but may take a unit from a stratum when the budget grows
    (the Alabama paradox), and then a larger keep fraction would not keep a superset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from prunus.core.types import Floats, Ints, Stratum
from prunus.select.amount import Ladder, budget

__all__ = ["apportion", "spend", "whole"]


def apportion(strata: Sequence[Stratum], keep_fraction: float, level: Callable[[int, Floats], Floats]) -> Ints:
    """Return how many units each stratum keeps: ``round(keep_fraction * total)`` in all, or what the floors ask for.

    Args:
        level: from a stratum and shares of its ``whole`` to the levels at which it gets them, which never fall.
    """
    ladder, wholes = Ladder.of(strata), whole(strata)

    def due(i: int) -> Floats:
        counts = ladder.climb(i)
        return level(i, (counts[:-1] + counts[1:]) / (2 * wholes[i]))  # a share is rounded to the nearest count

    return spend(ladder, keep_fraction, due)


def whole(strata: Sequence[Stratum]) -> Ints:
    """Return how many units each stratum had before the first round: ``(strata,)``, at least 1."""
    return np.array([max(stratum.whole or len(stratum.saliency), 1) for stratum in strata], np.int64)


def spend(ladder: Ladder, keep_fraction: float, due: Callable[[int], Floats]) -> Ints:
    """Return the counts that the steps up from the floors lead to, taken by their level, the lowest first.

    On a tie the earlier stratum comes first. The end is where the total is nearest to the budget, of two as near at the higher.

    Args:
        due: the level of each step of a stratum, in the order of the steps; of single units, in any order.
    """
    floor = ladder.counts(ladder.first)
    spare = budget(int(ladder.size.sum()), keep_fraction) - int(floor.sum())
    if spare <= 0:
        return floor
    levels = [due(i) for i in range(len(floor))]
    pool = np.concatenate(levels)
    if (ladder.block == 1).all():  # single weights of a large model: a threshold is found sooner than an order
        pool.partition(spare - 1)
        last = pool[spare - 1]
        before = np.array([np.count_nonzero(steps < last) for steps in levels])
        tied = np.array([np.count_nonzero(steps == last) for steps in levels])
        first = np.diff(np.minimum(np.cumsum(tied), spare - before.sum()), prepend=0)
        counts: Ints = floor + before + first
        return counts
    order = np.argsort(pool, kind="stable")
    gain = np.concatenate([np.diff(ladder.climb(i)) for i in range(len(floor))])[order]
    owner = np.repeat(np.arange(len(floor)), [len(steps) for steps in levels])[order]
    taken = np.searchsorted(np.cumsum(gain) - gain / 2, spare, side="right")
    np.add.at(floor, owner[:taken], gain[:taken])
    return floor
