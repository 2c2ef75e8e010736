"""When is float32 enough for what was given?

Inputs become float32 where nothing is lost by it: every row that differs from another still does, and rounding is far below what
a column varies by. Else (timestamps, large ids) they stay float64 until the scaler has taken their mean away.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np

from prunus.core.errors import DataError

__all__ = ["exact", "narrowed", "rounding_matters"]

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
    given: set[bytes] = set()
    single: set[bytes] = set()
    lost = np.zeros(rows.shape[1])
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS] + 0.0  # -0.0 is 0.0
        rounded = part.astype(np.float32)
        lost = np.fmax(lost, np.abs(part - rounded).max(axis=0))
        given.update(sha256(row.tobytes()).digest() for row in part)
        single.update(sha256(row.tobytes()).digest() for row in rounded)
    varies = rows.min(axis=0) < rows.max(axis=0)  # a column that never changes has nothing to lose
    return len(single) < len(given) or bool((varies & (lost > _RELEVANT * rows.std(axis=0))).any())
