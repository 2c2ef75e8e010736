"""When is float32 enough for what was given?

Inputs become float32 where nothing is lost by it: every row that differs from another still does, and rounding is far below what
a column varies by. Else (timestamps, large ids) they stay float64 until the scaler has taken their mean away.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from prunus.core.errors import DataError
from prunus.data.large.sorted_buckets import SortedBuckets, digest_of_rows

__all__ = ["exact", "narrowed", "rounding_matters", "rounding_shows"]

Array = np.ndarray[Any, Any]

_RELEVANT = 2.0**-16  # of a column's deviation: what a rounding may change unseen
_ROWS = 4096  # looked at in one go
_WHOLE = 2**53  # beyond it float64 can't tell whole numbers apart either


def exact(array: Array, where: str) -> Array:
    """Return numbers without rounding any: uint8 as it is, float32 where it holds every value, else float64.

    Raises:
        DataError: whole numbers that float64 can't tell apart.

    >>> exact(np.array([1, 2]), "x").dtype, exact(np.array([16777217]), "x").dtype
    (dtype('float32'), dtype('float64'))
    """
    if array.dtype == np.uint8:
        return np.asarray(array, order="C")
    if array.dtype.kind in "iu" and array.size and (array.max() > _WHOLE or array.min() < -_WHOLE):
        raise DataError(
            f"{where}: whole numbers beyond 2**53 = {_WHOLE} can't be told apart as inputs: got {array.min()} to {array.max()}; "
            "subtract what they have in common, or leave the column out"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows float32 is infinite, and reported as such
        single = array.astype(np.float32, order="C")
    if array.dtype.itemsize <= 2 or array.dtype == np.float32 or np.isinf(single[np.isfinite(array)]).any():
        return single
    return single if np.array_equal(single, array, equal_nan=True) else array.astype(np.float64, order="C")


def narrowed(array: Array, where: str) -> Array:
    """Return numbers as they are kept: as :func:`exact`, but float32 too where the rounding doesn't matter.

    Raises:
        DataError: whole numbers that float64 can't tell apart.
    """
    kept = exact(array, where)
    return kept if kept.dtype != np.float64 or rounding_matters(kept) else kept.astype(np.float32)


def rounding_matters(array: Array) -> bool:
    """Return whether float32 would make rows equal that differ, or round by something that shows in a column.

    >>> rounding_matters(np.array([[1.7e9], [1.7e9 + 7]])), rounding_matters(np.array([[0.1], [0.2]]))
    (True, False)
    """
    rows = array.reshape(len(array), -1)
    return rounding_shows((rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)), len(rows))


def rounding_shows(chunks: Iterable[Array], n_rows: int) -> bool:
    """Return the same of rows that pass by, ``(rows, columns)``, a few at a time: about ``n_rows`` in all."""
    total = _Moments()
    with SortedBuckets(n_rows, ()) as given, SortedBuckets(n_rows, ()) as single:
        for values in chunks:
            part = values + 0.0  # -0.0 is 0.0
            rounded = part.astype(np.float32)
            total.add(part, np.abs(part - rounded).max(axis=0))
            given.add(digest_of_rows(part))
            single.add(digest_of_rows(rounded))
        return total.lost_much() or single.n_keys() < given.n_keys()


class _Moments:
    """What columns vary by, and what rounding takes from them."""

    def __init__(self) -> None:
        self.n, self.mean, self.squares = 0, np.zeros(1), np.zeros(1)
        self.low, self.high, self.lost = np.full(1, np.inf), np.full(1, -np.inf), np.zeros(1)

    def add(self, part: Array, lost: Array) -> None:
        n, mean = len(part), part.mean(axis=0)
        delta, n_all = mean - self.mean, self.n + len(part)
        self.squares = self.squares + np.square(part - mean).sum(axis=0) + delta**2 * self.n * n / n_all
        self.mean = self.mean + delta * n / n_all
        self.n = n_all
        self.low, self.high = np.minimum(self.low, part.min(axis=0)), np.maximum(self.high, part.max(axis=0))
        self.lost = np.fmax(self.lost, lost)

    def lost_much(self) -> bool:
        """Return whether it shows: a column that never changes has nothing to lose."""
        deviation = np.sqrt(self.squares / max(self.n, 1))
        return bool(((self.low < self.high) & (self.lost > _RELEVANT * deviation)).any())
