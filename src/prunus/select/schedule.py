"""In how many rounds does a cut reach its goal, and how much stays after each?

A schedule is a plain function ``(progress, keep_fraction) -> share that stays``: 1 at progress 0, ``keep_fraction`` at progress 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prunus.core.code.registry import Registry
from prunus.select.amount import check_keep_fraction

if TYPE_CHECKING:
    from prunus.core.recipes.recipe import Schedule

__all__ = ["cubic", "geometric", "keep_fractions", "linear", "one_shot", "schedules"]

Curve = Callable[[float, float], float]

schedules: Registry[Curve] = Registry("schedule")


def one_shot(progress: float, keep_fraction: float) -> float:
    """Return ``keep_fraction`` as soon as anything is cut.

    >>> one_shot(0.0, 0.2), one_shot(1.0, 0.2)
    (1.0, 0.2)
    """
    return keep_fraction if progress > 0 else 1.0


def linear(progress: float, keep_fraction: float) -> float:
    """Return a share that falls by the same amount in every round.

    >>> linear(0.5, 0.25)
    0.625
    """
    return 1 - (1 - keep_fraction) * progress


def cubic(progress: float, keep_fraction: float) -> float:
    """Return a share that falls fast while much is redundant, and slowly at the end.

    References:
        Zhu & Gupta, 2017, arXiv:1710.01878, equation 1, with initial sparsity 0 (prunus counts what stays).

    >>> cubic(0.5, 0.5)
    0.5625
    """
    return keep_fraction + (1 - keep_fraction) * (1 - progress) ** 3


def geometric(progress: float, keep_fraction: float) -> float:
    """Return a share that falls by the same factor in every round.

    References:
        Frankle & Carbin, ICLR 2019, arXiv:1803.03635 (iterative pruning takes p^(1/n) of what is left in each of n rounds).

    >>> geometric(0.5, 0.25)
    0.5
    """
    return float(keep_fraction**progress)


schedules.add("one_shot", one_shot)
schedules.add("linear", linear)
schedules.add("cubic", cubic)
schedules.add("geometric", geometric)


def keep_fractions(schedule: Schedule, keep_fraction: float) -> tuple[float, ...]:
    """Return the share of the original units that stays after each round; the last is ``keep_fraction`` itself.

    Raises:
        RecipeError: ``keep_fraction`` isn't in (0, 1], or the schedule's kind is unknown.

    >>> from prunus.core.recipes.recipe import Schedule
    >>> keep_fractions(Schedule(kind="linear", rounds=3), 0.25)
    (0.75, 0.5, 0.25)
    """
    goal = check_keep_fraction(keep_fraction)
    curve, rounds = schedules[schedule.kind], schedule.rounds
    # The end is set, not computed: rounding must not move the amount that was asked for.
    return (*(curve(number / rounds, goal) for number in range(1, rounds)), goal)
