"""How are columns gathered a few rows at a time, when memory shouldn't hold all of them?

Each lies in a file without a name that grows, and is mapped into memory in the end, as :mod:`prunus.data.large.scratch` has it.
What a file can't hold (objects, or rows of another kind than the first ones) stays in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from prunus.core.files.plain_files import explain_os_error
from prunus.data.large.scratch import SCRATCH_BYTES

__all__ = ["GrownColumns"]

Array = np.ndarray[Any, Any]


class GrownColumns:
    """Columns by name, each as :func:`numpy.concatenate` would make it of all that was added.

    Args:
        in_files: whether large ones go into files; else all stay in memory.
    """

    def __init__(self, *, in_files: bool) -> None:
        self._in_files = in_files
        self._columns: dict[str, _Column] = {}

    def add(self, rows: Mapping[str, Array]) -> None:
        """Add some rows of every column.

        Raises:
            OutputError: the disk is full.
        """
        if not self._columns:
            self._columns = {name: _Column(in_file=self._in_files) for name in rows}
        for name, column in self._columns.items():
            column.add(rows[name])

    def whole(self) -> dict[str, Array]:
        """Return every column; nothing can be added any more. None was added: no columns."""
        return {name: column.whole() for name, column in self._columns.items()}


class _Column:
    def __init__(self, *, in_file: bool) -> None:
        self._in_file = in_file
        self._held: list[Array] = []
        self._held_bytes = self._n_filed = 0
        self._file: IO[bytes] | None = None
        self._kind: tuple[np.dtype[Any], tuple[int, ...]] | None = None

    def add(self, rows: Array) -> None:
        self._held.append(np.asarray(rows))
        self._held_bytes += self._held[-1].nbytes
        if self._in_file and self._held_bytes > SCRATCH_BYTES:
            self._to_file()

    def _to_file(self) -> None:
        rows = np.concatenate(self._held)
        kind = rows.dtype, rows.shape[1:]
        if rows.dtype.hasobject or self._kind not in (None, kind):
            self._in_file, self._held = False, [*self._from_file(), rows]
            return
        try:
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115 - closed once it is mapped
            self._file.write(np.ascontiguousarray(rows).data.cast("B"))
        except OSError as error:
            raise explain_os_error(error, Path(tempfile.gettempdir())) from error
        self._kind, self._n_filed = kind, self._n_filed + len(rows)
        self._held, self._held_bytes = [], 0

    def _from_file(self) -> list[Array]:
        """Return what lies in the file, mapped; nothing where there is none."""
        if self._file is None or self._kind is None:
            return []
        with self._file as file:
            try:
                file.flush()
            except OSError as error:
                raise explain_os_error(error, Path(tempfile.gettempdir())) from error
            dtype, shape = self._kind
            found = np.asarray(np.memmap(file, dtype, "r+", shape=(self._n_filed, *shape)))
        self._file = None
        return [found]

    def whole(self) -> Array:
        if self._file is not None and self._held:
            self._to_file()
        parts = [*self._from_file(), *self._held]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
