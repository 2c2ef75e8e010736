"""What does a stage take that was measured on few rows, on many: so much in any case, and so much for each row?

A straight line through the measured points, and the interval in which a new point would lie (Student's t) at the number of rows
that is asked about. It can't be narrower than what the points vary by. Where a stage may well take the same for any number of rows,
as memory from disk does, chance alone makes a slope, and fifty times the rows make fifty times of it: there a line only rises where
the points show that it does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["Line", "Predicted", "fitted", "flat", "flat_unless_shown"]

CONFIDENCE = 0.8
_KNOWN_TO = 0.01
"""Two runs may agree by chance: a peak isn't known better than to this share of it, by what the allocator keeps."""


@dataclass(frozen=True)
class Predicted:
    """An amount, and between which two it lies, four times out of five."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def times(self, factor: float) -> Predicted:
        """Return so many times as much."""
        return Predicted(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Line:
    """``fixed`` for any number of rows and ``per_row`` for each, neither below 0, through ``n`` points; never below ``least``."""

    fixed: float
    per_row: float
    n: int
    mean: float
    spread: float
    residual: float
    least: float = 0.0

    def at(self, rows: float, share: float = 1.0) -> Predicted:
        """Return what so many rows take; ``share`` of what grows with them, where several share it out."""
        value = self.fixed + self.per_row * rows * share
        if self.n < 3 or not self.spread:
            return Predicted(value, value, value)
        error = self.residual * math.sqrt(1 + 1 / self.n + (rows - self.mean) ** 2 / self.spread)
        off = _student(self.n - 2) * error * share
        return Predicted(value, min(max(value - off, self.least), value), value + off)

    def through(self, rows: float, value: float) -> Line:
        """Return the line with what is fixed raised so that it goes through a point, where that lies above."""
        return replace(self, fixed=self.fixed + max(value - self.fixed - self.per_row * rows, 0.0))


def fitted(rows: Sequence[float], values: Sequence[float]) -> Line:
    """Return the line of least squares.

    >>> line = fitted([100, 200], [3.0, 5.0])
    >>> round(line.fixed, 9), round(line.per_row, 9), line.at(1000).value.__round__(6)
    (1.0, 0.02, 21.0)
    """
    x, y = np.asarray(rows, np.float64), np.asarray(values, np.float64)
    centre, middle = x.mean(), y.mean()
    spread = float(((x - centre) ** 2).sum())
    slope = max(float(((x - centre) * (y - middle)).sum()) / spread, 0.0) if spread else 0.0
    fixed = float(middle - slope * centre)
    if fixed < 0:  # less than nothing in any case: then all grows with the rows
        fixed, slope = 0.0, float((x * y).sum() / (x * x).sum())
    left = y - fixed - slope * x
    residual = math.sqrt(float((left**2).sum()) / max(len(x) - 2, 1))
    return Line(fixed, slope, len(x), float(centre), spread, residual)


def flat_unless_shown(rows: Sequence[float], values: Sequence[float]) -> Line:
    """Return the line of least squares where its slope is more than chance makes of what the points vary by, else a flat one.

    What many rows take is taken to be no less than what few did.

    >>> flat_unless_shown([1, 1, 2, 2], [50.0, 54.0, 53.0, 52.0]).per_row
    0.0
    >>> flat_unless_shown([1, 1, 2, 2], [50.0, 51.0, 60.0, 61.0]).per_row
    10.0
    >>> flat_unless_shown([1, 1, 2, 2], [340.0, 340.0, 347.0, 347.0]).per_row
    0.0
    """
    line, y = fitted(rows, values), np.asarray(values, np.float64)
    least = float(y.min())
    error = max(line.residual, _KNOWN_TO * float(y.mean())) / math.sqrt(line.spread or 1.0)
    if line.n < 3 or not line.spread or line.per_row > _sure(line.n - 2) * error:
        return replace(line, least=least)
    return flat(rows, values)


def flat(rows: Sequence[float], values: Sequence[float]) -> Line:
    """Return the line of what takes the same for any rows: their mean.

    >>> flat([100, 200], [3.0, 5.0]).at(1e9).value
    4.0
    """
    y = np.asarray(values, np.float64)
    residual = float(y.std(ddof=1)) if len(y) > 1 else 0.0
    return replace(fitted(rows, values), fixed=float(y.mean()), per_row=0.0, residual=residual, least=float(y.min()))


def _sure(degrees: int) -> float:
    """Return how many standard errors a slope is above 0 by chance once in a hundred times: of ten stages one in ten runs."""
    table = {1: 31.82, 2: 6.965, 3: 4.541, 4: 3.747, 5: 3.365, 6: 3.143, 7: 2.998, 8: 2.896}
    return table.get(degrees, 2.5)


def _student(degrees: int) -> float:
    """Return how many standard errors hold four of five, by how many points tell the error."""
    table = {1: 3.078, 2: 1.886, 3: 1.638, 4: 1.533, 5: 1.476, 6: 1.440, 7: 1.415, 8: 1.397}
    return table.get(degrees, 1.3)
