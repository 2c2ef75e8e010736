"""Which values lie in the middle of columns that are too long to sort?

The bits of a number, read from the highest down, tell where it stands in the order. Each pass counts how many values begin alike,
and the next looks only at those that begin as the one that is wanted: two passes find it exactly in single precision, four in
double, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

__all__ = ["order_statistics"]

Array = np.ndarray[Any, Any]

_MOST_COUNTS = 1 << 24
"""So many counters at most: 128 MB."""


def order_statistics(chunks: Callable[[], Iterable[Array]], ranks: Sequence[Sequence[int]]) -> list[list[float]]:
    """Return the values that would stand at some places if each column were sorted, exactly.

    Args:
        chunks: yields the rows, float32 or float64, a few at a time; it is called once for each pass. NaN is no value.
        ranks: the places, from 0, for each column.

    >>> order_statistics(lambda: [np.array([[3.0], [np.nan]]), np.array([[-1.0], [2.0]])], [[0, 1]])
    [[-1.0, 2.0]]
    """
    wanted = list(dict.fromkeys((column, rank) for column, places in enumerate(ranks) for rank in places))
    left = {one: one[1] for one in wanted}
    begins = dict.fromkeys(wanted, 0)
    width, done = 0, 0
    digit = 16 if max(len(wanted), 1) << 16 <= _MOST_COUNTS else 8
    while not width or done < width:
        counts: dict[tuple[int, int], Array] = {(one[0], begins[one]): np.zeros(1 << digit, np.int64) for one in wanted}
        for values in chunks():
            keys = _keys(values)
            width = keys.dtype.itemsize * 8
            shift = width - done - digit
            for (column, begin), count in counts.items():
                held = keys[~np.isnan(values[:, column]), column]
                if done:
                    held = held[(held >> np.uint64(shift + digit)) == begin]
                count += np.bincount(
                    ((held >> np.uint64(shift)) & np.uint64((1 << digit) - 1)).astype(np.int64), minlength=1 << digit
                )
        for one in wanted:
            before = np.cumsum(counts[one[0], begins[one]])
            place = int(np.searchsorted(before, left[one], side="right"))
            left[one] -= int(before[place - 1]) if place else 0
            begins[one] = (begins[one] << digit) | place
        counts.clear()  # before the next pass makes its own
        done += digit
        width = width or done  # no rows at all
    found = {one: _value(begins[one], width) for one in wanted}
    return [[found[column, rank] for rank in places] for column, places in enumerate(ranks)]


def _keys(values: Array) -> Array:
    """Return whole numbers in the order of the values; -0.0 is 0.0."""
    wide = values.dtype == np.float64
    bits = (values + values.dtype.type(0)).view(np.uint64 if wide else np.uint32)
    top = bits.dtype.type(1 << (63 if wide else 31))
    keys = np.where(bits & top, ~bits, bits | top)
    return np.asarray(keys, np.uint64 if wide else np.uint32)


def _value(key: int, width: int) -> float:
    top = 1 << (width - 1)
    bits = key ^ top if key & top else ~key & ((1 << width) - 1)
    return float(np.array([bits], np.uint64 if width == 64 else np.uint32).view(f"f{width // 8}")[0])
