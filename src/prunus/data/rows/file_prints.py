"""Are these files the ones that something was made for? Told without reading them whole.

A *print* is a SHA-256 over a file's size, its beginning and its end, and pieces spread evenly between. The end of a Parquet file
says where every column's bytes lie and how large and small its values are, so next to any change of a value shows; in a plain array
a changed value shows only where a piece lies on it. It is no proof against somebody who means to deceive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from prunus.core.files.plain_files import open_plain
from prunus.core.files.urls.store import read_spans
from prunus.core.files.urls.url_path import is_url
from prunus.data.sources.row_files import explained

__all__ = ["file_print", "joined_print"]

_PIECES = 64
_PIECE_BYTES = 4096
_LONGEST_FOOTER = 64 << 20
_SMALL_BYTES = 1 << 20
"""An object that is no larger comes whole sooner than in pieces."""


def file_print(path: Path) -> str:
    """Return the print of a file, in hexadecimal; its name and place don't count.

    Raises:
        DataError: there is no such file.
        RunError: the system can't read it.
    """
    with explained(path), open_plain(_linked(path)) as file:
        size = file.seek(0, 2)
        total = hashlib.sha256(size.to_bytes(8, "little"))
        tail = _PIECE_BYTES
        if path.suffix.lower() == ".parquet" and size >= 12:
            file.seek(size - 8)
            tail = max(tail, min(int.from_bytes(file.read(4), "little") + 8, _LONGEST_FOOTER))
        step = max(size // _PIECES, _PIECE_BYTES)
        if is_url(path) and size > _SMALL_BYTES:  # all at once: each is a way to the store and back
            for piece in read_spans(
                str(path), [(start, min(start + _PIECE_BYTES, size)) for start in range(0, size, step)]
            ):
                total.update(piece)
        else:
            if is_url(path):
                file.seek(0)
                file = BytesIO(file.read())
            for start in range(0, size, step):
                file.seek(start)
                total.update(file.read(_PIECE_BYTES))
        file.seek(max(size - tail, 0))
        total.update(file.read(tail))
    return total.hexdigest()


def _linked(path: Path) -> Path:
    """Return where the file lies: data may be linked, as caches of data sets do."""
    return path if is_url(path) else path.resolve()


def joined_print(prints: Sequence[str]) -> str:
    """Return the print of several files, in their order."""
    return hashlib.sha256("\n".join(prints).encode()).hexdigest()
