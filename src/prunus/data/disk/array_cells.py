"""How are rows that are arrays themselves (images, series) written one after the other, in single precision if that is enough?

To the same rules as arrays in memory (``sources.arrays``): bytes stay bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from prunus.core.errors import DataError, near
from prunus.data.disk.raw_files import RawFile, RawFolder
from prunus.data.rows.to_tensors import is_rows
from prunus.data.sources.arrays import INPUT_NAMES
from prunus.data.sources.exact_floats import exact, rounding_shows

__all__ = ["ArrayCells", "inputs_column", "numpy_of"]

Array = np.ndarray[Any, Any]

_AT_ONCE = 1 << 12


def inputs_column(schema: pa.Schema, path: Path) -> str | None:
    """Return the column of arrays that are the inputs; None: it is a table of numbers and texts.

    Raises:
        DataError: there are several, and none has the name of inputs.
    """
    held = [field.name for field in schema if is_rows(field.type)]
    named = [name for name in INPUT_NAMES if name in held]
    if len(held) > 1 and not named:
        raise DataError(
            f"{path}: expected one column of arrays, or one called x: got {', '.join(held)}; {near('x', held)}"
        )
    return named[0] if named else held[0] if held else None


def numpy_of(column: pa.Array, name: str, path: Path) -> Array:
    """Return a column of arrays, ``(rows, *shape)``, in its own type.

    Raises:
        DataError: a row has none, or a number in it is missing.
    """
    if column.null_count:
        raise DataError(f"{path}: column {name!r}: expected an array in every row, got none in {column.null_count}")
    if isinstance(column.type, pa.FixedShapeTensorType):
        return np.asarray(column.to_numpy_ndarray())
    flat = column.flatten()
    if flat.null_count:
        raise DataError(f"{path}: column {name!r}: expected numbers, got {flat.null_count} missing ones")
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(column), column.type.list_size)


class ArrayCells:
    """Inputs on their way into a file."""

    def __init__(self, first: Array, name: str, path: Path, folder: RawFolder) -> None:
        self._name, self._path, self._folder = name, path, folder
        kind = first.dtype
        self._unsure = kind != np.float32 and kind.itemsize > 2
        self._integer = kind.kind in "iu"
        held = np.uint8 if kind == np.uint8 else np.float64 if self._unsure else np.float32
        self.file = folder.file(("cells.bin" if self._unsure else "values.bin"), held, first.shape[1:])
        self._inexact = False
        self._range: list[Any] = []
        self._bad: tuple[int, int, float] | None = None
        self._n_bad = 0

    def add(self, values: Array) -> None:
        """Write some more rows."""
        if self._integer and values.size:
            self._range = [min([values.min(), *self._range[:1]]), max([values.max(), *self._range[1:]])]
            exact(np.array(self._range, values.dtype), f"{self._path}: the array {self._name!r}")
        if values.dtype.kind == "f":
            bad = ~np.isfinite(values).reshape(len(values), -1)
            if bad.any() and self._bad is None:
                row, place = divmod(int(bad.argmax()), bad.shape[1])
                self._bad = self.file.n + row, place, values.reshape(len(values), -1)[row, place].item()
            self._n_bad += int(bad.sum())
        if self._unsure:
            with np.errstate(over="ignore", invalid="ignore"):
                self._inexact = self._inexact or not np.array_equal(values.astype(np.float32), values, equal_nan=True)
        self.file.append(values)

    def finish(self, name: str, ids: Any) -> RawFile:
        """Return the file of all inputs.

        Raises:
            DataError: a number isn't finite.
        """
        with self.file:
            cells = self.file.mapped()
        if self._bad is not None:
            row, place, value = self._bad
            more = f" ({self._n_bad} such values in all)" if self._n_bad > 1 else ""
            raise DataError(
                f"{name}: input position {place}, sample {ids[row]!r}: expected a finite number, got {value}{more}; fill or remove "
                "such rows"
            )
        if not self._unsure:
            return self.file
        if self._inexact and (self._overflows(cells) or rounding_shows(self._flat(cells), len(cells))):
            self.file.path = self.file.path.rename(self._folder / "values.bin")
            return self.file
        with self._folder.file("values.bin", np.float32, self.file.shape) as single:
            for start in range(0, len(cells), _AT_ONCE):
                single.append(cells[start : start + _AT_ONCE].astype(np.float32))
        del cells
        self.file.path.unlink()
        return single

    @staticmethod
    def _flat(cells: Array) -> Iterator[Array]:
        for start in range(0, len(cells), _AT_ONCE):
            part = cells[start : start + _AT_ONCE]
            yield part.reshape(len(part), -1)

    def _overflows(self, cells: Array) -> bool:
        return any(bool((np.abs(part) > np.finfo(np.float32).max).any()) for part in self._flat(cells))
