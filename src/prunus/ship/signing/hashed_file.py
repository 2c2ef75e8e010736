"""How is a large file hashed while it is looked at, and read only once?

A second thread hashes what was read; whoever reads it may do something with the same bytes meanwhile. So what was hashed is what
was looked at, and on two cores the look costs next to nothing.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from prunus.core.errors import BundleError

__all__ = ["HashedFile"]

_PIECE = 2**20
"""What is read at once: it is still in the processor's cache when it is looked at."""

_AHEAD = 8
"""How many pieces the reader may be ahead: a hash that has to wait for bytes is what makes the whole thing slow."""

_SMALL = 2**16
"""What is hashed at once where nothing waits: to hand it to the other thread would take longer."""


@dataclass
class _Whole:
    """Memory for what is read in one piece, and what is done when the last of it is hashed."""

    memory: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    last: Future[None] | None = None


class HashedFile:
    """A file that is read once from its beginning, ``size_bytes`` of it, and hashed on the way."""

    def __init__(self, file: BinaryIO, size_bytes: int, path: Path) -> None:
        self._file, self._left, self._path = file, size_bytes, path
        self._hash = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()
        self._buffers = [bytearray(min(_PIECE, size_bytes)) for _ in range(_AHEAD)]
        self._turn = 0
        self._wholes = [_Whole(), _Whole()]

    def pieces(self, n_bytes: int) -> Iterator[memoryview]:
        """Yield the next ``n_bytes``, in views that hold until the next one is asked for."""
        while n_bytes:
            self._wait(_AHEAD - 1)  # the place that comes next was the first to be handed over
            piece = memoryview(self._buffers[self._turn])[: min(n_bytes, _PIECE)]
            self._turn = (self._turn + 1) % _AHEAD
            self._read_into(piece)
            yield piece
            n_bytes -= len(piece)

    def read(self, n_bytes: int) -> NDArray[np.uint8]:
        """Return the next ``n_bytes`` in one piece of memory, which holds until the next but one is asked for."""
        self._check_left(n_bytes)
        whole = self._wholes[0]
        self._wholes.reverse()
        if whole.last is not None:
            whole.last.result()
        if len(whole.memory) < n_bytes:
            whole.memory = np.empty(n_bytes, np.uint8)  # kept: pages that are new cost as much as the reading
        found = whole.memory[:n_bytes]
        view = found.data
        for start in range(0, n_bytes, _PIECE):
            self._read_into(view[start : start + _PIECE])
        whole.last = self._pending[-1] if self._pending else None
        return found

    def sha256(self) -> str:
        """Read what is left, and return the hash of all."""
        for _ in self.pieces(self._left):
            pass
        self._wait(0)
        return self._hash.hexdigest()

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown()

    def _read_into(self, piece: memoryview) -> None:
        self._check_left(len(piece))
        if self._file.readinto(piece) != len(piece):  # type: ignore[attr-defined]
            raise self._cut_off()
        self._left -= len(piece)
        if len(piece) < _SMALL and not self._pending:
            self._hash.update(piece)
        else:
            self._pending.append(self._pool.submit(self._hash.update, piece))

    def _wait(self, n_left: int) -> None:
        """Wait until no more than ``n_left`` pieces are to be hashed."""
        while len(self._pending) > n_left:
            self._pending.popleft().result()

    def _check_left(self, n_bytes: int) -> None:
        if n_bytes > self._left:
            raise self._cut_off()

    def _cut_off(self) -> BundleError:
        return BundleError(f"{self._path}: it was cut off while it was read; fetch or make the bundle anew")
