"""How is a file read a few rows at a time, whatever it is?

A *row file* tells its columns, and how many rows each *group* has: a piece that can be read without those before it, such as a row
group of Parquet. What opens files of an ending this way is registered beside what reads them whole (``formats.add_reader``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from prunus.core.code.imports import one_line
from prunus.core.errors import DataError, PrunusError, RunError, near

__all__ = ["OpenRows", "RowFile", "check_columns", "count_rows", "cut", "explained", "read_batches"]


class RowFile(Protocol):
    """A file of rows, opened.

    ``groups`` are the numbers of rows of the pieces that can be read by themselves; None: it is read from its beginning only.
    """

    @property
    def schema(self) -> pa.Schema:
        """What its columns are called, and what they hold."""
        ...

    @property
    def groups(self) -> tuple[int, ...] | None:
        """How many rows each piece has."""
        ...

    def batches(self, columns: Sequence[str] | None, n_rows: int, group: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a group, or of the whole file, at most ``n_rows`` at a time; None: all columns."""
        ...


class OpenRows(Protocol):
    """How a file is opened; what has to be closed again goes on the stack."""

    def __call__(self, path: Path, stack: ExitStack, /) -> RowFile:
        """Return the file, of which little is read yet."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say what is wrong with a file that can't be read: that it is damaged, or what the system says.

    Raises:
        DataError: it isn't there, or is damaged.
        RunError: the system can't read it, which may pass.
    """
    try:
        yield
    except PrunusError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        # Arrow raises these for pages that can't be made sense of, too, but without a number of the system's.
        if isinstance(error, OSError) and error.errno is not None:
            raise RunError(f"{path}: it can't be read ({one_line(error)[:200]})") from error
        kind = path.suffix.lower()
        raise DataError(f"{path}: it is damaged, or no {kind} file ({one_line(error)[:200]}): fetch it anew") from error


def read_batches(
    path: Path, file: RowFile, columns: Sequence[str] | None, n_rows: int, group: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a group, or of all, and say which file it is that can't be read.

    Raises:
        DataError: the file is damaged, or lacks a column.
        RunError: the system can't read it, which may pass.
    """
    check_columns(path, file.schema.names, columns or ())
    with explained(path):
        batches = iter(file.batches(columns, n_rows, group))
    while True:
        with explained(path):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def check_columns(path: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse a column that isn't there.

    Raises:
        DataError: it names the file and the near columns.
    """
    for name in wanted:
        if name not in names:
            raise DataError(f"{path}: there is no column {name!r}; {near(name, names)}")


def count_rows(path: Path, file: RowFile) -> int:
    """Return how many rows a file has; one without groups is read for it."""
    if file.groups is not None:
        return sum(file.groups)
    return sum(batch.num_rows for batch in read_batches(path, file, file.schema.names[:1], 1 << 16))


def cut(batches: Iterator[pa.RecordBatch], columns: Sequence[str] | None, n_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield batches in pieces of at most so many rows, and of these columns only."""
    for batch in batches:
        chosen = batch if columns is None else batch.select(list(columns))
        for start in range(0, batch.num_rows, n_rows):
            yield chosen.slice(start, n_rows)
