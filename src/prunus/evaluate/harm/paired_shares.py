"""Two models answer the same examples, some rightly by one alone: is that chance, and how far apart are their shares?

Only examples that one of the two gets right and the other wrong count: ``lost`` the first alone gets right, ``gained`` the second.
"""

from __future__ import annotations

from math import inf
from statistics import NormalDist

import numpy as np

from prunus.core.bisection import edge
from prunus.evaluate.noninferiority import tango_z

__all__ = ["mcnemar", "score_interval"]


def mcnemar(lost: int, gained: int) -> float:
    """Return the two-sided p-value of "neither model is right more often": exact, a sign test of the examples that differ.

    References:
        McNemar, Psychometrika 12:153-157, 1947.

    >>> round(mcnemar(0, 6), 5)
    0.03125
    """
    n, fewer = lost + gained, min(lost, gained)
    if n == 0:
        return 1.0
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1, dtype=np.float64)))])
    k = np.arange(fewer + 1)
    tail = float(np.exp(logs[n] - logs[k] - logs[n - k] - n * np.log(2)).sum())
    return min(1.0, 2 * tail)


def score_interval(lost: int, gained: int, n: int, confidence: float) -> tuple[float, float]:
    """Return the interval of the drop, ``(lost - gained) / n``, by Tango's score; it has a width where nothing differs, too.

    References:
        Tango, Statistics in Medicine 17:891-908, 1998.

    >>> low, high = score_interval(10, 2, 100, 0.95)
    >>> round(low, 4), round(high, 4)
    (0.0143, 0.158)
    """
    if n == 0:
        return -1.0, 1.0
    reach, value = NormalDist().inv_cdf((1 + confidence) / 2), (lost - gained) / n
    _, high = edge(lambda drop: _z(lost, gained, n, drop) > -reach, value, 1.0, within=1e-9)
    low, _ = edge(lambda drop: _z(lost, gained, n, drop) > reach, -1.0, value, within=1e-9)
    return low, high


def _z(lost: int, gained: int, n: int, drop: float) -> float:
    """Return the score of "the drop is so much", which falls as ``drop`` rises."""
    if drop in (-1.0, 1.0):
        return -inf if drop > 0 else inf
    return float(tango_z(lost, gained, n, drop)) if drop >= 0 else -float(tango_z(gained, lost, n, -drop))
