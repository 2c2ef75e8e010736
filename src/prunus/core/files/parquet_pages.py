"""What do the pages of a Parquet file say that they become, before one of them is read?

What a reader allocates comes from the header before each page, whatever the footer says. Headers are walked as the reader walks
them (Thrift's compact protocol, parquet.thrift), and nothing is decompressed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pyarrow.parquet as pq

from prunus.core.errors import PrunusError

__all__ = ["Readable", "check_pages"]

_LARGEST_HEADER = 16 * 2**20
_FIRST_READ = 512
_DEEPEST = 8
_DATA = (0, 3)
_ENTRY_BYTES = 16
"""What the reader takes for each entry of a dictionary, beside the page."""
_PREFIXED = 7
"""``DELTA_BYTE_ARRAY``: a text says how much of the one before it repeats, so a few bytes may stand for any number."""


class Readable(Protocol):
    """A file, or bytes that can be read like one."""

    def seek(self, place: int, /) -> Any:
        """Go to a place."""

    def read(self, n_bytes: int, /) -> bytes:
        """Return the bytes that come next."""


class _CutOffError(Exception):
    """The bytes end within a header."""


def check_pages(file: Readable, metadata: pq.FileMetaData, where: object, error: type[PrunusError]) -> int:
    """Return how many bytes the pages declare together.

    Raises:
        PrunusError: a header can't be read, is negative, or a page is of a kind whose size can't be told; of the class ``error``.
    """
    total = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group)
        for number in range(rows.num_columns):
            column = rows.column(number)
            name = f"{where}: column {column.path_in_schema!r}"
            for size, encoding in _pages(file, column, name, error):
                if encoding == _PREFIXED:
                    raise error(
                        f"{name}: each of its texts is stored as what it shares with the one before (DELTA_BYTE_ARRAY), and what "
                        "they become can't be told; write it anew as a dictionary or plain"
                    )
                total += size
    return total


def _pages(
    file: Readable, column: pq.ColumnChunkMetaData, name: str, error: type[PrunusError]
) -> Iterator[tuple[int, int | None]]:
    """Yield how large each page becomes, and how its values are encoded."""
    place = int(column.data_page_offset)
    if column.has_dictionary_page and 0 < int(column.dictionary_page_offset or 0) < place:
        place = int(column.dictionary_page_offset)
    end, left = place + int(column.total_compressed_size), int(column.num_values)
    while left > 0 and place < end:
        header, length = _header(file, place, name, error)
        size, held = (header.get(key, -1) for key in (2, 3))
        part: dict[int, Any] = next((header[key] for key in (5, 8, 7) if isinstance(header.get(key), dict)), {})
        n_values = part.get(1, 0)
        if not all(type(number) is int and number >= 0 for number in (size, held, n_values)):
            raise error(
                f"{name}: expected a page with sizes, got {size}, {held}, {n_values}; it may be damaged or cut off"
            )
        if header.get(1) in _DATA:
            if n_values > left:
                raise error(f"{name}: expected {left} more values, got a page of {n_values}; it may be damaged")
            left -= n_values
            yield size, part.get(4 if 8 in header else 2)
        else:
            yield size + _ENTRY_BYTES * n_values, None
        place += length + held


def _header(file: Readable, place: int, name: str, error: type[PrunusError]) -> tuple[dict[int, Any], int]:
    """Return the fields of a page's header by their numbers, and how many bytes it has."""
    n_bytes = _FIRST_READ
    while True:
        file.seek(place)
        content = file.read(n_bytes)
        try:
            reader = _Compact(content)
            return reader.struct(0), reader.place
        except _CutOffError:
            if len(content) < n_bytes or n_bytes >= _LARGEST_HEADER:
                raise error(f"{name}: the header of a page can't be read; it may be damaged or cut off") from None
            n_bytes *= 8


class _Compact:
    """Reads structs of Thrift's compact protocol; texts and lists are passed over."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def struct(self, depth: int) -> dict[int, Any]:
        """Return the whole numbers and structs in a struct, by number."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            kind = head & 15
            number = number + (head >> 4) if head >> 4 else self._whole()
            fields[number] = self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _DEEPEST:
            raise _CutOffError
        if kind in (1, 2):
            return kind == 1
        if kind in (4, 5, 6):
            return self._whole()
        if kind == 12:
            return self.struct(depth + 1)
        if kind in (3, 7):
            self._skip(1 if kind == 3 else 8)
        elif kind == 8:
            self._skip(self._varint())
        elif kind in (9, 10):
            head = self._byte()
            for _ in range(head >> 4 if head >> 4 < 15 else self._varint()):
                self._byte() if head & 15 in (1, 2) else self._value(head & 15, depth + 1)
        else:
            raise _CutOffError
        return None

    def _byte(self) -> int:
        if self.place >= len(self.content):
            raise _CutOffError
        self.place += 1
        return self.content[self.place - 1]

    def _skip(self, n_bytes: int) -> None:
        self.place += n_bytes
        if self.place > len(self.content):
            raise _CutOffError

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise _CutOffError

    def _whole(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
