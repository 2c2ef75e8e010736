"""Which examples have the same content as one of a stronger part, and which are there twice?

Rows are brought in order by their digests, a part of all digests at a time, so that nothing but the digests themselves grows with
the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from prunus.core.types import Digests, Ints
from prunus.data.large.sorted_buckets import SortedBuckets

__all__ = ["Twins", "find_twins"]

_AT_ONCE = 1 << 16


@dataclass(frozen=True, eq=False)
class Twins:
    """Rows that are ``gone``, by part and number, and which row ``stays`` for each.

    ``n_repeats`` counts the rows of one part whose content another row of it has, too.
    """

    gone: Ints
    stays: Ints
    n_repeats: int

    def __len__(self) -> int:
        return len(self.gone)


def find_twins(digests: Digests, part_of: np.ndarray[Any, np.dtype[np.int8]], repeats_in: int) -> Twins:
    """Return which rows have the content of a row in a stronger part; of equal rows in one part all stay.

    Args:
        digests: of the rows, ``(n, 32)``.
        part_of: the part of each row, 0 the strongest; -1: of none.
        repeats_in: the part whose repeats are counted.
    """
    gone, n_repeats = [], 0
    with SortedBuckets(len(digests), ("part", "row")) as buckets:
        for start in range(0, len(digests), _AT_ONCE):
            parts = part_of[start : start + _AT_ONCE]
            rows = np.flatnonzero(parts >= 0)
            buckets.add(digests[start : start + _AT_ONCE][rows], part=parts[rows], row=rows + start)
        for records, first in buckets.groups():
            group = np.cumsum(first) - 1
            owner = records[first][group] if len(records) else records
            weaker = records["part"] != owner["part"]
            gone.append(np.stack([records["part"][weaker], records["row"][weaker], owner["row"][weaker]], axis=1))
            counts = np.bincount(group[~weaker & (records["part"] == repeats_in)])
            n_repeats += int(counts[counts > 1].sum())
    found = np.concatenate(gone)
    found = found[np.lexsort([found[:, 1], found[:, 0]])]
    return Twins(found[:, 1], found[:, 2], n_repeats)
