"""How are all rows of a data set gone through once, a few at a time?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pyarrow as pa

from prunus.core.errors import DataError
from prunus.data.rows.row_set import RowSet, open_row_file
from prunus.data.sources.row_files import read_batches

__all__ = ["READ_ROWS", "read_group", "walk"]

READ_ROWS = 8192
"""So many rows are decoded at once: as many as the processor's cache holds of a usual table."""


def walk(rows: RowSet, columns: Sequence[str] | None, n_rows: int = 1 << 16) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield all rows with the number of the first, the columns as they are asked for.

    Raises:
        DataError: a file is damaged, lacks a column, or was changed since it was opened.
        RunError: the system can't read one.
    """
    for path, (start, end) in zip(rows.files, rows.file_rows(), strict=True):
        place = start
        with ExitStack() as stack:
            file = open_row_file(path, stack)
            for batch in read_batches(path, file, columns, n_rows):
                if batch.num_rows:
                    yield place, batch if columns is None else batch.select(list(columns))
                place += batch.num_rows
        if place != end:
            raise DataError(
                f"{path}: expected {end - start} rows, got {place - start}: it was changed since it was opened"
            )


def read_group(
    rows: RowSet, group: int, columns: Sequence[str], n_rows: int = READ_ROWS
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the rows of one group with the number of the first.

    Raises:
        DataError: the file is damaged, or was changed since it was opened.
        RunError: the system can't read it.
    """
    path, number = rows.files[rows.file_of[group]], int(rows.group_of[group])
    place, end = int(rows.starts[group]), int(rows.ends[group])
    expected = end - place
    with ExitStack() as stack:
        file = open_row_file(path, stack)
        if number >= 0 and (file.groups is None or number >= len(file.groups) or file.groups[number] != expected):
            raise DataError(f"{path}: it was changed since it was opened: read it anew")
        for batch in read_batches(path, file, columns, n_rows, None if number < 0 else number):
            if batch.num_rows:
                yield place, batch.select(list(columns))
            place += batch.num_rows
    if place != end:
        raise DataError(
            f"{path}: expected {expected} rows, got {expected - end + place}: it was changed since it was opened"
        )
