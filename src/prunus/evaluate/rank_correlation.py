"""Do two scores put the same examples in the same order?"""

from __future__ import annotations

from math import atanh, isfinite, nan, sqrt, tanh
from statistics import NormalDist

import numpy as np

from prunus.core.types import Floats

__all__ = ["rank_correlation"]


def rank_correlation(one: Floats, other: Floats, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return Spearman's correlation of two scores of the same examples, and its interval; NaN where one of them is constant.

    References:
        Bonett and Wright, Psychometrika 65:23-28, 2000, for the interval.

    >>> [round(number, 2) for number in rank_correlation(np.arange(10.0), np.arange(10.0) ** 3)]
    [1.0, 1.0, 1.0]
    """
    first, second = _ranks(one), _ranks(other)
    if len(first) < 2 or first.std() == 0 or second.std() == 0:
        return nan, nan, nan
    value = float(np.corrcoef(first, second)[0, 1])
    value = min(1.0, max(-1.0, value))
    if len(first) < 5:
        return value, -1.0, 1.0
    if 1 - abs(value) < 1e-12:
        return value, value, value
    half = NormalDist().inv_cdf((1 + confidence) / 2) * sqrt((1 + value**2 / 2) / (len(first) - 3))
    low, high = tanh(atanh(value) - half), tanh(atanh(value) + half)
    return (value, low, high) if isfinite(low) and isfinite(high) else (value, -1.0, 1.0)


def _ranks(values: Floats) -> Floats:
    """Return the rank of each value; equal ones share theirs."""
    _, first, group, count = np.unique(values, return_index=True, return_inverse=True, return_counts=True)
    del first
    ends = np.cumsum(count)
    middle: Floats = ends - (count - 1) / 2.0
    return middle[group]
