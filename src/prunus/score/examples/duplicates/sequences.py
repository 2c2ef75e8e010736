"""What are the integers of some sequences, and how many in a row tell two of them apart?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from prunus.core.errors import DataError
from prunus.core.types import Ints

__all__ = ["fitting_width", "rows_of_integers"]

_SAMPLED = 4096
_BY_CHANCE = 0.1
"""So many pieces of one sequence may be in an unrelated one by chance."""
_WIDEST = 32


def rows_of_integers(sequences: Any, padding: int | None) -> tuple[Callable[[Ints], tuple[Ints, Ints]], Ints]:
    """Return what gives the integers of some rows and how many each has, and how many every row has: ``(n,)``.

    Raises:
        DataError: rows that aren't sequences of integers.
    """
    given = sequences.detach().cpu().numpy() if isinstance(sequences, Tensor) else sequences
    if isinstance(given, np.ndarray) and given.dtype != object:
        if given.ndim != 2 or given.dtype.kind not in "iu":
            raise DataError(
                f"near-duplicates are looked for among sequences of integers (n, length): got {given.dtype} of shape {given.shape}"
            )
        read: Callable[[Ints], tuple[Ints, Ints]] = _of_table(given, padding)
    else:
        read = _of_list(given, padding)
    sizes = [read(np.arange(i, min(i + _SAMPLED, len(given))))[1] for i in range(0, len(given), _SAMPLED)]
    return read, np.concatenate([np.zeros(0, np.int64), *sizes])


def _of_table(table: Any, padding: int | None) -> Callable[[Ints], tuple[Ints, Ints]]:
    def read(rows: Ints) -> tuple[Ints, Ints]:
        values = table[rows].astype(np.int64)
        stays = np.ones(values.shape, np.bool_) if padding is None else values != padding
        return values[stays], stays.sum(axis=1)

    return read


def _of_list(sequences: Any, padding: int | None) -> Callable[[Ints], tuple[Ints, Ints]]:
    def read(rows: Ints) -> tuple[Ints, Ints]:
        parts = [_integers(sequences[row], row, padding) for row in rows.tolist()]
        return np.concatenate([np.zeros(0, np.int64), *parts]), np.fromiter(map(len, parts), np.int64, len(parts))

    return read


def _integers(sequence: Any, row: int, padding: int | None) -> Ints:
    try:
        values = np.asarray(sequence.detach().cpu() if isinstance(sequence, Tensor) else sequence)
    except ValueError as error:
        raise DataError(f"near-duplicates are looked for among sequences of integers: row {row}: {error}") from None
    if values.size == 0:
        return np.zeros(0, np.int64)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise DataError(
            f"near-duplicates are looked for among sequences of integers: row {row} is {values.dtype} of shape {values.shape}"
        )
    values = values.astype(np.int64)
    return values if padding is None else values[values != padding]


def fitting_width(values: Callable[[Ints], tuple[Ints, Ints]], sizes: Ints) -> int:
    """Return the fewest integers in a row of which sequences that have nothing to do with each other share hardly any."""
    if not len(sizes):
        return 1
    rows = np.linspace(0, len(sizes) - 1, min(_SAMPLED, len(sizes))).astype(np.int64)
    _, counts = np.unique(values(rows)[0], return_counts=True)
    longest = int(np.median(sizes[rows]))
    equal = (
        float(np.square(counts / counts.sum()).sum()) if len(counts) else 1.0
    )  # the chance that two integers are the same
    if equal == 1:
        return 1
    fitting = (width for width in range(1, _WIDEST) if longest * equal**width <= _BY_CHANCE)
    return max(min(next(fitting, _WIDEST), longest), 1)
