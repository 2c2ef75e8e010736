"""How is it kept from happening that who looks at twenty classes finds one that changed by chance?

Holm's procedure for p-values of any origin; and the largest of many studentised differences, where they were resampled together: it
knows how they hang together, so that its intervals are mostly narrower than Bonferroni's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunus.core.types import Floats

__all__ = ["Simultaneous", "holm", "max_t"]


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p-values that may each be compared with the error that all of them share.

    References:
        Holm, Scandinavian Journal of Statistics 6:65-70, 1979.

    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = np.empty(len(p_values)), 0.0
    for place, number in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = highest
    return tuple(adjusted.tolist())


@dataclass(frozen=True)
class Simultaneous:
    """Intervals that hold for all differences together, and p-values of each that count the others, each ``(parts,)``."""

    value: Floats
    low: Floats
    high: Floats
    p_value: Floats


def max_t(differences: Floats, confidence: float) -> Simultaneous:
    """Return what holds for all parts at once, of differences that were resampled together.

    A part whose resamples don't vary has no interval of its own (all NaN): nothing can be said of it.

    Shapes:
        ``differences`` is ``(1 + resamples, parts)``: plain first. A resample in which a part isn't there is NaN for it.
    References:
        Romano & Wolf, JASA 100:94-108, 2005 (single step).
    """
    value, drawn = differences[0], _whole(differences[1:])
    spread = drawn.std(axis=0, ddof=1)
    usable = np.isfinite(value) & np.isfinite(spread) & (spread > 0)
    scale = np.where(usable, spread, 1.0)
    apart = np.where(usable, np.abs(drawn - drawn.mean(axis=0)) / scale, 0.0).max(axis=1, initial=0.0)
    reach = float(np.quantile(apart, confidence))
    seen = np.abs(value) / scale
    p_value = (1 + (apart[:, None] >= seen).sum(axis=0)) / (1 + len(drawn))
    low, high, p_value = (
        np.where(usable, x, np.nan) for x in (value - reach * scale, value + reach * scale, np.minimum(p_value, 1.0))
    )
    return Simultaneous(value, low, high, p_value)


def _whole(drawn: Floats) -> Floats:
    """Return resamples without holes: where a part wasn't there, others of its own take the place, in turn."""
    filled = drawn.copy()
    for part in np.flatnonzero(~np.isfinite(drawn).all(axis=0)):
        holes = ~np.isfinite(drawn[:, part])
        if not holes.all():
            filled[holes, part] = np.resize(drawn[~holes, part], holes.sum())
    return filled
