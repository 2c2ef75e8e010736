"""How are the cells of a table written row by row, in single precision if that loses nothing that matters?

To the same rules as a table in memory (``sources.tables``): columns whose type doesn't tell are first written in double precision,
and once all have passed by it is known whether they have to stay so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from prunus.data.columns.cells import BadCell, Kind, read_cells
from prunus.data.disk.looks import Categories
from prunus.data.disk.raw_files import RawFile, RawFolder
from prunus.data.sources.exact_floats import rounding_shows
from prunus.data.sources.tables import LARGEST_CODE, bad_cells

__all__ = ["CellRows"]

Array = np.ndarray[Any, Any]

_AT_ONCE = 1 << 14


class CellRows:
    """The cells of a table's columns, side by side, on their way into a file."""

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        categories: Mapping[str, Categories],
        schema: pa.Schema,
        missing: tuple[str, ...],
        path: Path,
        folder: RawFolder,
    ) -> None:
        self._kinds, self._categories, self._missing, self._path, self._folder = (
            kinds,
            categories,
            missing,
            path,
            folder,
        )
        self._double = any(kind in ("date", "time") for kind in kinds.values())
        self._double |= any(len(one.words) > LARGEST_CODE for one in categories.values())
        exact = all(kind != "number" or _is_narrow(schema.field(name).type) for name, kind in kinds.items())
        self._unsure = not exact
        kind = np.float64 if self._double or self._unsure else np.float32
        name = "cells.bin" if self._unsure and not self._double else "values.bin"
        self.file = folder.file(name, kind, (len(kinds),))
        self._numbers = [place for place, kind in enumerate(kinds.values()) if kind == "number"]
        self._low = np.full(len(self._numbers), np.inf)
        self._inexact = False
        self._bad: dict[str, tuple[BadCell, int]] = {}

    def add(self, batch: pa.RecordBatch, rows: Array) -> None:
        """Write the cells of some more rows, whose numbers in the files are ``rows``."""
        values = np.empty((batch.num_rows, len(self._kinds)), self.file.dtype)
        for place, (name, kind) in enumerate(self._kinds.items()):
            column = pa.chunked_array([batch.column(name)])
            read = (
                self._categories[name].read(column)
                if kind == "category"
                else read_cells(column, name, kind, self._missing, str(self._path))
            )
            if read.bad:
                first, n = self._bad.get(name, (None, 0))
                if first is None:
                    one = read.bad[0]
                    first = BadCell(int(rows[one.row]), one.column, one.expected, one.got)
                self._bad[name] = first, n + len(read.bad)
            values[:, place] = read.values
        if self._unsure and self._numbers:
            held = values[:, self._numbers]
            self._low = np.fmin(self._low, np.fmin.reduce(held, axis=0))
            self._inexact = self._inexact or not np.array_equal(held.astype(np.float32), held, equal_nan=True)
        self.file.append(values)

    def finish(self) -> tuple[RawFile, bool]:
        """Return the file of all cells, and whether single precision can't tell their numbers apart.

        Raises:
            DataError: a cell can't be used; the first column with such cells is named.
        """
        with self.file:
            cells = self.file.mapped()
        for name in self._kinds:
            if name in self._bad:
                raise bad_cells(*self._bad[name], name, self._path)
        wide = self._inexact and rounding_shows(self._filled(cells), len(cells))
        if not self._unsure or self._double or wide:
            if self.file.path.name != "values.bin":
                self.file.path = self.file.path.rename(self._folder / "values.bin")
            return self.file, wide
        with self._folder.file("values.bin", np.float32, self.file.shape) as single:
            for start in range(0, len(cells), _AT_ONCE):
                single.append(cells[start : start + _AT_ONCE].astype(np.float32))
        del cells
        self.file.path.unlink()
        return single, False

    def _filled(self, cells: Array) -> Iterator[Array]:
        """Yield the columns of numbers, what is missing as the column's smallest."""
        low = np.where(np.isinf(self._low), 0.0, self._low)
        for start in range(0, len(cells), _AT_ONCE):
            held = cells[start : start + _AT_ONCE, self._numbers]
            yield np.where(np.isnan(held), low, held)


def _is_narrow(held: pa.DataType) -> bool:
    """Tell whether single precision holds every number of a type."""
    held = held.value_type if pa.types.is_dictionary(held) else held
    if pa.types.is_integer(held):
        return bool(held.bit_width <= 16)
    return bool(
        pa.types.is_float32(held) or pa.types.is_float16(held) or pa.types.is_boolean(held) or pa.types.is_null(held)
    )
