"""Is a mean below a bound, asked after every single observation, for as long as one likes?

A test by betting: wealth is put against "the mean is at least so much". If that is true, nobody can expect to get richer, and the
chance to be ``1 / error`` times as rich *ever* is at most ``error`` (Ville's inequality). So one may look all the time and stop
when one likes, which tests for one number of observations don't allow. Wealth is spread over fixed bets of all sizes, which is a
bet, too; with values of a few kinds it depends on their counts alone, so nothing but counts is kept.

References:
    Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting, JRSS-B 86:1-27, 2024: capital processes
    (section 4) and bets on a grid (appendix B). They adapt the bets; fixed ones lose a little power and need no memory of the
    order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from prunus.core.bisection import edge

__all__ = ["interval", "log_wealth_above", "log_wealth_below"]

_SHARES = np.concatenate([np.geomspace(0.005, 0.2, 10), np.linspace(0.3, 0.9, 7), [0.99]])
_LOG_WEIGHTS = np.log(_SHARES / _SHARES.sum())
"""The bets, as shares of the largest one that can't lose everything, and how much wealth is put on each: more on bold ones."""


def log_wealth_below(counts: Mapping[float, int], bound: float) -> float:
    """Return the logarithm of the wealth that speaks for a mean below ``bound``; above ``log(1 / error)`` that is shown.

    Args:
        counts: how often each value, 0 to 1, was observed.
        bound: between 0 and 1.

    >>> round(log_wealth_below({0.0: 400}, 0.01), 1), log_wealth_below({}, 0.01)
    (3.1, 0.0)
    """
    return _log_wealth({1 - value: count for value, count in counts.items()}, 1 - bound)


def log_wealth_above(counts: Mapping[float, int], bound: float) -> float:
    """Return the logarithm of the wealth that speaks for a mean above ``bound``."""
    return _log_wealth(counts, bound)


def _log_wealth(counts: Mapping[float, int], bound: float) -> float:
    if not counts or not 0 < bound < 1:
        return 0.0
    bets = _SHARES / bound
    logs = sum((count * np.log1p(bets * (value - bound)) for value, count in counts.items()), np.zeros(len(bets)))
    logs += _LOG_WEIGHTS
    most = float(np.max(logs))
    return most + math.log(float(np.exp(logs - most).sum()))


def interval(counts: Mapping[float, int], error: float) -> tuple[float, float]:
    """Return bounds that hold the mean at every time at once, but for the chance ``error``.

    >>> low, high = interval({0.0: 900, 1.0: 100}, 0.05)
    >>> low < 0.1 < high
    True
    """
    if not sum(counts.values()):
        return 0.0, 1.0
    enough = math.log(2 / error)
    mean = sum(value * count for value, count in counts.items()) / sum(counts.values())
    least, most = 1e-9, 1 - 1e-9
    low, high, at = 0.0, 1.0, min(max(mean, least), most)
    if log_wealth_above(counts, least) >= enough:
        low = edge(lambda bound: log_wealth_above(counts, bound) >= enough, least, at, within=1e-7)[0]
    if log_wealth_below(counts, most) >= enough:
        high = edge(lambda bound: log_wealth_below(counts, bound) < enough, at, most, within=1e-7)[1]
    return low, high
