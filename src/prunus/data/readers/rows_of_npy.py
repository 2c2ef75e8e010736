"""How are ``.npy`` files read a few rows at a time?

They are mapped into memory; from a URL, the wanted rows are fetched. ``part-0.npy`` is the column ``x``, one row per row; a
structured array has a column per field. A file ``part-0.label.npy`` beside it is the column ``label``, and so for any other name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from prunus.core.errors import DataError
from prunus.core.files.urls.url_path import is_url
from prunus.core.text import shown
from prunus.data.readers.remote_array import RemoteArray
from prunus.data.sources.formats import add_row_reader

__all__ = ["INPUTS", "NpyRows", "beside_npy"]

INPUTS = "x"
GROUP_ROWS = 1 << 16
"""A mapped array can be read from anywhere: a group is as many rows as one may want at once."""


class NpyRows:
    """An array in a file, and those beside it, by pieces of equal length."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        main = _opened(path, stack)
        fields = main.dtype.names
        self.arrays: dict[str, Any] = {INPUTS: main} if fields is None else {name: main[name] for name in fields}
        for name, other in beside_npy(path).items():
            if name in self.arrays:
                raise DataError(f"{other}: {path} has a column {name!r} already; rename the file")
            self.arrays[name] = _opened(other, stack)
            if len(self.arrays[name]) != len(main):
                raise DataError(
                    f"{other}: expected {len(main)} rows as in {path.name}, got {len(self.arrays[name])}; make it anew"
                )
        self.schema = pa.schema([(name, _column(array[:1]).type) for name, array in self.arrays.items()])
        n = len(main)
        self.groups = tuple(min(GROUP_ROWS, n - start) for start in range(0, n, GROUP_ROWS))

    def batches(self, columns: Sequence[str] | None, n_rows: int, group: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a piece, or of all; numbers aren't copied."""
        names = list(self.arrays) if columns is None else list(columns)
        first = 0 if group is None else group * GROUP_ROWS
        last = sum(self.groups) if group is None else first + self.groups[group]
        for start in range(first, last, n_rows):
            stop = min(start + n_rows, last)
            yield pa.record_batch([_column(self.arrays[name][start:stop]) for name in names], names)


def _opened(path: Path, stack: ExitStack) -> Any:
    """Return an array whose rows are read when they are asked for."""
    return RemoteArray(path, stack.enter_context(path.open("rb"))) if is_url(path) else mapped(path)


def mapped(path: Path) -> np.ndarray[Any, Any]:
    """Return the array in a ``.npy`` file, mapped into memory.

    Raises:
        DataError: it holds Python objects, or no rows.
    """
    array: np.ndarray[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim == 0:
        raise DataError(f"{path}: expected one row per example, got a single value")
    return array


def beside_npy(path: Path) -> dict[str, Path]:
    """Return the files ``NAME.column.npy`` that lie beside ``NAME.npy``, by their columns."""
    start = f"{path.stem}."
    found = sorted(other for other in path.parent.glob("*.npy") if other != path and other.name.startswith(start))
    names = {other.name[len(start) : -len(".npy")]: other for other in found}
    return {name: other for name, other in names.items() if "." not in name}


def _column(array: np.ndarray[Any, Any]) -> pa.Array:
    """Return rows as a column; those of more than one value as tensors of a fixed shape."""
    if array.dtype.kind not in "biufUS":
        raise DataError(f"expected numbers or texts, got an array of {shown(str(array.dtype))}; convert it")
    if array.ndim == 1:
        return pa.array(np.ascontiguousarray(array))
    if array.dtype.kind not in "iuf":
        raise DataError(
            f"expected rows of numbers, got an array {array.shape} of {shown(str(array.dtype))}; convert it"
        )
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array))


add_row_reader(".npy", NpyRows)
