"""What is each row called, where the names of all aren't held in memory?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prunus.core.errors import DataError
from prunus.data.columns.cells import is_text, plain_column
from prunus.data.disk.raw_files import RawFile, RawFolder, mapped_rows
from prunus.data.large.row_names import FiledNames, Names, RowNumbers
from prunus.data.large.sorted_buckets import SortedBuckets, digest_of_texts
from prunus.data.sources.source import check_ids
from prunus.data.sources.table_rows import ID

__all__ = ["IdColumn", "names_in"]

_AT_ONCE = 1 << 16
TEXTS, ENDS, NUMBERS = "ids.bin", "id_ends.bin", "row_numbers.bin"


class IdColumn:
    """The names of the rows on their way into files; without a column ``id``, their numbers, if some rows are left out."""

    def __init__(self, held: pa.DataType | None, name: str, path: Path, folder: RawFolder, n_rows: int) -> None:
        self._held, self._name, self._path, self._folder = held, name, path, folder
        if held is not None:
            plain = held.value_type if pa.types.is_dictionary(held) else held
            if not (pa.types.is_integer(plain) or is_text(plain)):
                raise DataError(f"{path}: the column {ID!r} must hold whole numbers or text, got {held}; rename it")
            self._texts = folder.file(TEXTS, np.uint8)
            self._ends = folder.file(ENDS, np.int64)
            self._seen = folder.stack.enter_context(SortedBuckets(n_rows, ()))
        self._numbers: RawFile | None = None
        self._n = 0

    def add(self, batch: pa.RecordBatch, rows: np.ndarray[Any, Any]) -> None:
        """Keep the names of some more rows, whose numbers in the files are ``rows``."""
        if self._held is None:
            self._add_numbers(rows)
        else:
            self._add_texts(batch, rows)
        self._n += len(rows)

    def _add_texts(self, batch: pa.RecordBatch, rows: np.ndarray[Any, Any]) -> None:
        column = plain_column(pa.chunked_array([batch.column(ID)]))
        if column.null_count:
            row = int(rows[pc.index(column.is_null(), True).as_py()])
            raise DataError(f"{self._path}: the column {ID!r}, row {row} (the first is 0): expected an id, got none")
        texts = [str(value).encode() for value in column.to_pylist()]
        ends = np.cumsum([len(text) for text in texts], dtype=np.int64) + self._texts.n
        self._texts.append(np.frombuffer(b"".join(texts), np.uint8))
        self._ends.append(ends)
        self._seen.add(digest_of_texts(texts))

    def _add_numbers(self, rows: np.ndarray[Any, Any]) -> None:
        """Keep the numbers of some more rows, from the first one on that isn't its place."""
        if self._numbers is None:
            if not len(rows) or rows[-1] == self._n + len(rows) - 1:
                return
            self._numbers = self._folder.file(NUMBERS, np.int64)
            for start in range(0, self._n, _AT_ONCE):
                self._numbers.append(np.arange(start, min(start + _AT_ONCE, self._n)))
        self._numbers.append(rows)

    def finish(self) -> dict[str, Any]:
        """Return what has to be known to read them again.

        Raises:
            DataError: two rows have one name.
        """
        if self._held is not None:
            with self._texts, self._ends, self._seen:
                distinct = self._seen.n_keys()
            told = {TEXTS: self._texts.told(), ENDS: self._ends.told()}
            if distinct < self._n:
                check_ids(tuple(names_in(self._folder.path, told, self._n)), self._name)
            return told
        if self._numbers is None:
            return {}
        with self._numbers:
            return {NUMBERS: self._numbers.told()}


def names_in(folder: Path, told: dict[str, Any], n: int) -> Names:
    """Return the names that lie in a folder."""

    def array(name: str) -> np.ndarray[Any, Any]:
        shape: Sequence[int] = told[name]["shape"]
        return mapped_rows(folder / name, np.dtype(told[name]["dtype"]), tuple(shape))

    if TEXTS in told:
        return FiledNames(array(TEXTS), array(ENDS))
    return RowNumbers(n, array(NUMBERS) if NUMBERS in told else None)
