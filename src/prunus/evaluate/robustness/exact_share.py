"""Of how many examples does something hold, and how surely: the exact interval of a counted share."""

from __future__ import annotations

from prunus.core.types import Measurement
from prunus.evaluate.noninferiority import upper_share

__all__ = ["clopper_pearson", "counted_share"]


def clopper_pearson(successes: int, n: int, confidence: float) -> tuple[float, float]:
    """Return the interval of a share that misses no share more often than asked, whatever the truth is; of nothing [0, 1].

    References:
        Clopper & Pearson, Biometrika 26:404-413, 1934.

    >>> low, high = clopper_pearson(8, 10, 0.95)
    >>> round(low, 4), round(high, 4)
    (0.4439, 0.9748)
    """
    if n == 0:
        return 0.0, 1.0
    error = (1 - confidence) / 2
    high = 1.0 if successes == n else upper_share(successes, n, error)
    low = 0.0 if successes == 0 else 1 - upper_share(n - successes, n, error)
    return low, high


def counted_share(name: str, successes: int, n: int, confidence: float, *, higher_is_better: bool) -> Measurement:
    """Return a share with its exact interval."""
    low, high = clopper_pearson(successes, n, confidence)
    return Measurement(name, successes / n if n else float("nan"), low, high, "share", higher_is_better)
