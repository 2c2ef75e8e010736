"""How are very many short records brought in order that memory doesn't hold?

They are dealt out by their first byte into files without a name, and each file is sorted by itself: equal records are in one file,
and every file is a small part of all.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from prunus.core.files.plain_files import explain_os_error
from prunus.core.types import Digests

__all__ = ["SortedBuckets", "digest_of_rows", "digest_of_texts"]

_BUCKET_ROWS = 1 << 16
_KEY = 16


def digest_of_rows(rows: np.ndarray[Any, Any]) -> Digests:
    """Return the SHA-256 of the bytes of each row, ``(n, 32)``."""
    return digest_of_texts(np.ascontiguousarray(rows))


def digest_of_texts(texts: Iterable[bytes]) -> Digests:
    """Return the SHA-256 of each text, ``(n, 32)``."""
    return np.frombuffer(b"".join(hashlib.sha256(text).digest() for text in texts), np.uint8).reshape(-1, 32)


def _nameless() -> IO[bytes]:
    return tempfile.TemporaryFile()


class SortedBuckets:
    """Records of a key of 16 evenly spread bytes (part of a digest) and whole numbers, sorted by both.

    Args:
        n_rows: about how many will come.
        fields: what the whole numbers are called.
    """

    def __init__(self, n_rows: int, fields: tuple[str, ...]) -> None:
        self._kind = np.dtype([("high", ">u8"), ("low", ">u8"), *((name, np.int64) for name in fields)])
        self._fields = fields
        self._stack = ExitStack()
        n_files = 1 if n_rows <= _BUCKET_ROWS else 1 << min(int(n_rows // _BUCKET_ROWS).bit_length(), 8)
        self._shift = 8 - (n_files.bit_length() - 1)
        self._held: list[np.ndarray[Any, Any]] = []
        self._files: list[IO[bytes]] = []
        if n_files > 1:
            try:
                self._files = [self._stack.enter_context(_nameless()) for _ in range(n_files)]
            except OSError as error:
                raise explain_os_error(error, Path(tempfile.gettempdir())) from error

    def __enter__(self) -> SortedBuckets:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, keys: np.ndarray[Any, Any], **fields: np.ndarray[Any, Any]) -> None:
        """Add records: ``keys`` ``(rows, 16)`` or wider, of bytes.

        Raises:
            OutputError: the disk is full.
        """
        records = np.empty(len(keys), self._kind)
        words = np.ascontiguousarray(keys[:, :_KEY]).view(">u8")
        records["high"], records["low"] = words[:, 0], words[:, 1]
        for name in self._fields:
            records[name] = fields[name]
        if not self._files:
            self._held.append(records)
            return
        bucket = keys[:, 0] >> self._shift
        order = np.argsort(bucket, kind="stable")
        ends = np.cumsum(np.bincount(bucket, minlength=len(self._files)))
        try:
            for file, part in zip(self._files, np.split(records[order], ends[:-1]), strict=True):
                file.write(part.data if len(part) else b"")
        except OSError as error:
            raise explain_os_error(error, Path(tempfile.gettempdir())) from error

    def n_keys(self) -> int:
        """Return how many different keys there are."""
        return sum(int(first.sum()) for _, first in self.groups())

    def groups(self) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Yield sorted records, a bucket at a time, and where among them a new key begins (True)."""
        if self._held or not self._files:
            yield self._sorted(np.concatenate(self._held) if self._held else np.empty(0, self._kind))
            return
        for file in self._files:
            file.seek(0)
            yield self._sorted(np.frombuffer(file.read(), self._kind))

    def _sorted(self, records: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        names = [*reversed(self._fields), "low", "high"]
        ordered = records[np.lexsort([records[name].astype(records[name].dtype.newbyteorder("=")) for name in names])]
        first = np.ones(len(ordered), np.bool_)
        if len(ordered) > 1:
            same = (ordered["high"][1:] == ordered["high"][:-1]) & (ordered["low"][1:] == ordered["low"][:-1])
            first[1:] = ~same
        return ordered, first
