"""Which share of the cost does the search for a target ask for next?

It walks down to the goal, and bisects between the last share that was kept and the first that failed.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from prunus.core.recipes.recipe import Recipe, Target
from prunus.select import keep_fractions

__all__ = ["if_each_fails", "next_share", "walk"]

_STEP = 0.7
"""A walk without a schedule keeps about this share of the cost per step."""
_CLOSE = 0.93
"""Bisection ends when the share that failed is this close to the one that was kept."""


def walk(target: Target, recipe: Recipe, floor: float) -> tuple[float, ...]:
    """Return the shares that the walk goes down as long as nothing fails; the last is the goal.

    A schedule's rounds are its steps. Without one, a target is cut in one step, and under a contract in steps of about 0.7.
    """
    schedule = recipe.strategy.schedule if recipe.strategy is not None else None
    goal = target.share or max(floor, 1e-3)
    if schedule is not None and schedule.rounds > 1:
        return keep_fractions(schedule, goal)
    if recipe.contract is None:
        return (goal,)
    n_steps = max(1, round(np.log(goal) / np.log(_STEP)))
    if target.share is not None:
        n_steps = min(n_steps, max(1, recipe.contract.max_candidates // 2))
    return (*(goal ** (k / n_steps) for k in range(1, n_steps)), goal)


def next_share(kept: float, failed: float, goal: float | None, *, retried: bool) -> tuple[float | None, bool]:
    """Return the share to ask for next (None: the search is over), and whether that tries the goal a second time.

    ``kept`` and ``failed`` are what was asked for, too.

    >>> next_share(0.7, 0.5, 0.5, retried=False)
    (0.5916, False)
    >>> next_share(0.51, 0.5, 0.5, retried=False)
    (0.5, True)
    """
    if failed < _CLOSE * kept:
        return round(sqrt(kept * failed), 4), False
    # From a start that is so near, the goal itself may be within reach now.
    near = goal is not None and 0.85 * kept <= goal < kept
    return (goal, True) if near and not retried else (None, False)


def if_each_fails(kept: float, share: float, goal: float | None, *, retried: bool, most: int) -> tuple[float, ...]:
    """Return up to ``most`` shares that are asked for one after the other, the first being ``share``, if each of them fails.

    >>> if_each_fails(1.0, 0.7, 0.5, retried=False, most=9)
    (0.7, 0.8367, 0.9147, 0.9564)
    """
    found = [share]
    while len(found) < most:
        following, again = next_share(kept, found[-1], goal, retried=retried)
        if following is None:
            break
        retried = retried or again
        found.append(following)
    return tuple(found[:most])
