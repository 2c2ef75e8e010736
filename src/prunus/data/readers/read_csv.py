"""How is a CSV file read?

UTF-8, with a header; a row may be as long as 16 MiB.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from csv import reader
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from prunus.core.errors import DataError, PrunusError
from prunus.core.files.urls.url_path import is_url
from prunus.data.sources.formats import add_row_reader
from prunus.data.sources.row_files import cut
from prunus.data.sources.tables import add_table_reader, arrow_text

__all__ = ["read_csv", "read_csv_rows"]

_BLOCK_BYTES = 16 << 20  # one row may be as long as this
_MOST_WRONG = 100_000


def read_csv(path: Path, arguments: Mapping[str, Any]) -> pa.Table:
    """Return the table in a CSV file; ``delimiter`` is its one argument.

    Raises:
        DataError: the file is damaged or empty, or the delimiter isn't one character.
    """
    return _read(path, arguments, (), None)


def read_csv_rows(
    path: Path, arguments: Mapping[str, Any], text: Collection[str] = (), wanted: Collection[str] = ()
) -> tuple[pa.Table, dict[int, str]]:
    """Return the rows of a CSV file that have as many fields as its header, and what is wrong with the others by their number.

    Args:
        text: columns that stay text, whatever they look like: ``007`` is no 7.
        wanted: names that the table must have: the delimiter is one with which the header has them.

    Raises:
        DataError: the file is damaged or empty, or the delimiter isn't one character.
    """
    wrong: dict[int, str] = {}

    def skip(row: pa.csv.InvalidRow) -> str:
        if len(wrong) >= _MOST_WRONG:
            return "error"
        # Rows are counted from 1, the header too.
        wrong[row.number - 2] = f"{row.actual_columns} fields instead of {row.expected_columns}"
        return "skip"

    given = dict(arguments)
    if wanted and "delimiter" not in given:
        given["delimiter"] = _delimiter(path, wanted)
    return _read(path, given, text, skip), wrong


def _read(path: Path, arguments: Mapping[str, Any], text: Collection[str], skip: Any) -> pa.Table:
    delimiter = arguments.get("delimiter", ",")
    if not isinstance(delimiter, str) or len(delimiter) != 1:
        raise DataError(f"{path}: data.args.delimiter must be one character, got {delimiter!r}")
    try:
        return pa.csv.read_csv(
            path.open("rb") if is_url(path) else path,
            read_options=pa.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(text, pa.string())),
        )
    except PrunusError:
        raise
    except pa.ArrowInvalid as error:
        if "Empty CSV file" in str(error):
            raise DataError(f"{path}: expected a header and rows, got an empty set") from error
        raise DataError(f"{path}: this is not a readable CSV file in UTF-8: {arrow_text(error)}") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: can't be read as CSV: {arrow_text(error)}") from error


def _delimiter(path: Path, wanted: Collection[str]) -> str:
    """Return the first usual delimiter with which the header has all names, else the comma."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [file.readline(_BLOCK_BYTES)]
        headers = {mark: set(next(reader(lines, delimiter=mark), [])) for mark in ",;\t|"}
    except (OSError, ValueError, LookupError):  # reading it says what is wrong
        return ","
    return next((mark for mark, names in headers.items() if names >= set(wanted)), ",")


class CsvRows:
    """A CSV file from its beginning; what its columns hold is read off its first block."""

    groups: tuple[int, ...] | None = None

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path, self._stack = path, stack
        self._next: Any = self._opened()
        self.schema = self._next.schema

    def _opened(self) -> Any:
        options = pa.csv.ReadOptions(use_threads=False)
        source = self._stack.enter_context(self._path.open("rb")) if is_url(self._path) else self._path
        return self._stack.enter_context(pa.csv.open_csv(source, read_options=options))

    def batches(self, columns: Sequence[str] | None, n_rows: int, group: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield all rows; a second time, the file is opened anew."""
        file, self._next = self._next or self._opened(), None
        return cut(file, columns, n_rows)


add_table_reader(
    ".csv",
    read_csv,
    holds="a table in UTF-8 with a header",
    arguments=("delimiter",),
    read_some=read_csv_rows,
)
add_row_reader(".csv", CsvRows)
