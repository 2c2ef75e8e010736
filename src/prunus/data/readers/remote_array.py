"""How are the rows of a ``.npy`` object read without fetching the others?"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from prunus.core.errors import DataError
from prunus.core.text import shown

__all__ = ["RemoteArray"]


class RemoteArray:
    """An array at a URL, of which a slice is fetched when it is asked for; ``[name]`` is a field of a structured one.

    Args:
        path: what errors call it.
        file: the object, opened.

    Raises:
        DataError: it is no array of rows, holds Python objects, lies column after column, or is cut off.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self._path, self._file, self._field = path, file, ""
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, in_columns, self.dtype = read(file)
        self._start = file.tell()
        if self.dtype.hasobject:
            raise DataError(f"{path}: it holds Python objects, which could run code when read; save numbers or texts")
        if not self.shape:
            raise DataError(f"{path}: expected one row per example, got a single value")
        if in_columns and len(self.shape) > 1:
            raise DataError(
                f"{path}: its values lie column after column, so that rows can't be fetched: save numpy.ascontiguousarray of it"
            )
        size, there = prod(self.shape) * self.dtype.itemsize, file.seek(0, 2) - self._start
        if size > there:
            raise DataError(
                f"{path}: it declares {shown(self.shape)} of {self.dtype}, {size} bytes, and holds {there}: fetch it anew"
            )

    @property
    def ndim(self) -> int:
        """How many dimensions there are."""
        return len(self.shape)

    def __len__(self) -> int:
        """Return how many rows there are."""
        return int(self.shape[0])

    def __getitem__(self, what: slice | str) -> Any:
        if isinstance(what, str):
            found = object.__new__(RemoteArray)
            found.__dict__.update(self.__dict__, _field=what)
            return found
        start, stop, _ = what.indices(len(self))
        row = prod(self.shape[1:]) * self.dtype.itemsize
        self._file.seek(self._start + start * row)
        content = self._file.read(max(stop - start, 0) * row)
        array = np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])
        return array[self._field] if self._field else array
