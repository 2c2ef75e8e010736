"""How is an array written row by row whose length isn't known, and read back without reading it?

The bytes of the rows, one after the other; what they are stands elsewhere (the manifest of their folder).
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from prunus.core.errors import DataError

__all__ = ["RawFile", "RawFolder", "mapped_rows"]


class RawFile:
    """A file of rows of one kind that grows; a full disk raises where it is written to."""

    def __init__(self, path: Path, dtype: Any, shape: tuple[int, ...] = ()) -> None:
        self.path, self.dtype, self.shape, self.n = path, np.dtype(dtype), shape, 0
        self._file = path.open("wb")

    def __enter__(self) -> RawFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, rows: np.ndarray[Any, Any]) -> None:
        """Write more rows, ``(rows, *shape)``."""
        assert rows.shape[1:] == self.shape, f"{self.path}: {rows.shape}"
        self._file.write(np.ascontiguousarray(rows, self.dtype).data if len(rows) else b"")
        self.n += len(rows)

    def mapped(self) -> np.ndarray[Any, Any]:
        """Return the rows, mapped from the file."""
        self._file.flush()
        return mapped_rows(self.path, self.dtype, (self.n, *self.shape))

    def told(self) -> dict[str, Any]:
        """Return what has to be known to map it again."""
        return {"dtype": self.dtype.str, "shape": [self.n, *self.shape]}


class RawFolder:
    """A folder of such files, which are closed with ``stack`` at the latest."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path, self.stack = path, stack

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def file(self, name: str, dtype: Any, shape: tuple[int, ...] = ()) -> RawFile:
        """Return a new file."""
        return self.stack.enter_context(RawFile(self.path / name, dtype, shape))


def mapped_rows(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return the rows in a file, mapped: pages that are changed are this process's own.

    Raises:
        DataError: the file isn't there or has another size.
    """
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    held = path.stat().st_size if path.is_file() else -1
    if held != expected:
        raise DataError(
            f"{path}: expected {expected} bytes, got {max(held, 0)}: remove its folder, and it is made anew"
        )
    return np.asarray(np.memmap(path, dtype, "c", shape=shape)) if expected else np.empty(shape, dtype)
