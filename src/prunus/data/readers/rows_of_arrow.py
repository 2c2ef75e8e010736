"""How are Arrow's own files read a few rows at a time?

They are mapped into memory: what isn't compressed isn't copied. A stream in a file, as Hugging Face's ``datasets`` writes them, is
read, too; one that is compressed is held as it becomes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from prunus.data.sources.formats import add_row_reader
from prunus.data.sources.row_files import cut

__all__ = ["ArrowRows"]

_FILE = b"ARROW1"


class ArrowRows:
    """An Arrow file or stream, by its record batches."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        mapped = stack.enter_context(pa.memory_map(os.fspath(path)))
        is_file = mapped.read(len(_FILE)) == _FILE
        mapped.seek(0)
        self._file: Any = stack.enter_context(pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped))
        self.schema = self._file.schema
        self._parts = None if is_file else list(self._file)

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """How many rows each record batch has; of a compressed file, each is decompressed for it."""
        return tuple(self._part(number).num_rows for number in range(self._n_parts))

    @property
    def _n_parts(self) -> int:
        return len(self._parts) if self._parts is not None else int(self._file.num_record_batches)

    def _part(self, number: int) -> pa.RecordBatch:
        return self._parts[number] if self._parts is not None else self._file.get_batch(number)

    def batches(self, columns: Sequence[str] | None, n_rows: int, group: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a record batch, or of all."""
        numbers = range(self._n_parts) if group is None else [group]
        return cut((self._part(number) for number in numbers), columns, n_rows)


add_row_reader(".arrow", ArrowRows)
add_row_reader(".feather", ArrowRows)
