"""How is a Parquet file read as a table? What guards against files that declare too much is ``core.files.parquet_file``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prunus.core.errors import DataError, PrunusError
from prunus.core.files import parquet_file
from prunus.core.files.expansion import ROW_BYTES
from prunus.core.files.urls.range_file import RangeFile
from prunus.core.files.urls.url_path import is_url
from prunus.data.sources.formats import add_row_reader
from prunus.data.sources.tables import add_table_reader, arrow_text

__all__ = ["read_parquet"]


def read_parquet(path: Path, arguments: Mapping[str, Any]) -> pa.Table:
    """Return the table in a Parquet file, without the columns that pandas keeps its row index in.

    Raises:
        DataError: the file is damaged, or would become far larger than it is.
    """
    try:
        # Of a table that is held whole, every byte is needed.
        source = pa.BufferReader(path.read_bytes()) if is_url(path) else path
        size = source.size() if isinstance(source, pa.BufferReader) else path.stat().st_size
        table = parquet_file.read_parquet(source, path, size, DataError, row_bytes=ROW_BYTES)
    except PrunusError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: this is not a readable Parquet file: {arrow_text(error)}; it may be damaged or cut off"
        ) from error
    # pandas itself doesn't show them as columns either.
    return table.drop_columns([name for name in table.schema.names if name.startswith("__index_level_")])


_BUFFER_BYTES = 1 << 16
"""For each column."""


class ParquetRows:
    """A Parquet file by its row groups."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._remote: RangeFile | None = stack.enter_context(path.open("rb")) if is_url(path) else None  # type: ignore[assignment]
        # A group is read as it is decoded, not fetched as a whole first: it may be large, and several are open at once. From a URL,
        # the columns that are wanted of a group are.
        file = pq.ParquetFile(
            path if self._remote is None else self._remote,
            page_checksum_verification=True,
            pre_buffer=False,
            buffer_size=_BUFFER_BYTES if self._remote is None else 0,
        )
        self._file = stack.enter_context(file)
        metadata = self._file.metadata
        self.schema = self._file.schema_arrow
        self.groups = tuple(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))

    def batches(self, columns: Sequence[str] | None, n_rows: int, group: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a group, or of all."""
        wanted = None if columns is None else list(columns)
        groups = None if group is None else [group]
        if self._remote is not None:
            numbers = range(len(self.groups)) if group is None else [group]
            self._remote.plan([self._spans(number, wanted) for number in numbers])
        found: Iterator[pa.RecordBatch] = self._file.iter_batches(
            batch_size=n_rows, row_groups=groups, columns=wanted, use_threads=False
        )
        return found

    def _spans(self, group: int, columns: Sequence[str] | None) -> list[tuple[int, int]]:
        """Return where the bytes of a group's columns lie."""
        rows = self._file.metadata.row_group(group)
        found = []
        for number in range(rows.num_columns):
            column = rows.column(number)
            if (
                columns is None
                or column.path_in_schema in columns
                or column.path_in_schema.partition(".")[0] in columns
            ):
                starts = [
                    column.data_page_offset,
                    column.dictionary_page_offset if column.has_dictionary_page else None,
                ]
                start = min(place for place in starts if place)
                found.append((start, start + column.total_compressed_size))
        return found


add_table_reader(".parquet", read_parquet, holds="a table")
add_row_reader(".parquet", ParquetRows)
