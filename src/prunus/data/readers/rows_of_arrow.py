"""How are Arrow's own files read a few rows at a time?

They are mapped into memory: what isn't compressed isn't copied. From a URL, the record batches and columns that are wanted are
fetched; how many rows a batch has is read off its narrowest column. A stream in a file, as Hugging Face's ``datasets`` writes them,
is read, too; one that is compressed is held as it becomes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from prunus.core.files.urls.url_path import is_url
from prunus.data.sources.formats import add_row_reader
from prunus.data.sources.row_files import cut

__all__ = ["ArrowRows"]

_FILE = b"ARROW1"


class ArrowRows:
    """An Arrow file or stream, by its record batches."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._remote = is_url(path)
        mapped = stack.enter_context(path.open("rb") if self._remote else pa.memory_map(os.fspath(path)))
        is_file = mapped.read(len(_FILE)) == _FILE
        mapped.seek(0)
        self._source = mapped
        self._file: Any = stack.enter_context(pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped))
        self.schema = self._file.schema
        self._parts = None if is_file else list(self._file)

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """How many rows each record batch has; of a compressed file, each is decompressed for it."""
        file = self._of([_narrowest(self.schema)]) if self._remote and self._parts is None else self
        return tuple(file._part(number).num_rows for number in range(self._n_parts))

    @property
    def _n_parts(self) -> int:
        return len(self._parts) if self._parts is not None else int(self._file.num_record_batches)

    def _part(self, number: int) -> pa.RecordBatch:
        return self._parts[number] if self._parts is not None else self._file.get_batch(number)

    def batches(self, columns: Sequence[str] | None, n_rows: int, group: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a record batch, or of all."""
        numbers = range(self._n_parts) if group is None else [group]
        file = self._of(columns) if self._remote and self._parts is None and columns is not None else self
        return cut((file._part(number) for number in numbers), columns, n_rows)

    def _of(self, columns: Sequence[str]) -> ArrowRows:
        """Return the same file, of which only some columns are read."""
        found = copy(self)
        fields = [number for number, name in enumerate(self.schema.names) if name in columns]
        found._file = pa.ipc.open_file(self._source, options=pa.ipc.IpcReadOptions(included_fields=fields))
        return found


def _narrowest(schema: pa.Schema) -> str:
    """Return the column of the fewest bytes per row; one whose width isn't known is taken as wide."""
    widths = {
        field.name: getattr(field.type, "bit_width", 1 << 20) if pa.types.is_primitive(field.type) else 1 << 20
        for field in schema
    }
    return str(min(widths, key=lambda name: widths[name]))


add_row_reader(".arrow", ArrowRows)
add_row_reader(".feather", ArrowRows)
