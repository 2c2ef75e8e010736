"""Are the weights in a file what the manifest says, and finite, without holding them in memory?

The file is read once, in pieces. Each is hashed in a second thread while its numbers are looked at, so what was hashed is what was
checked, and the look costs next to nothing. A mistake is kept until all is hashed: that a file was changed is said first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from prunus.core.errors import BundleError, WeightsError
from prunus.models.safetensors_file import MAX_HEADER_BYTES, parse_header
from prunus.ship.manifest import TensorEntry
from prunus.ship.pack import DTYPES, check_header
from prunus.ship.sparse import unpack_sparse

__all__ = ["HashedFile", "Scanned", "scan_weights"]

_PIECE = 2**20
_SMALL = 2**16
"""What is hashed at once: to hand it to the other thread would take longer."""

_FLOATS = {
    "float64": ("<u8", 2**63 - 1, 0x7FF0_0000_0000_0000),
    "float32": ("<u4", 2**31 - 1, 0x7F80_0000),
    "float16": ("<u2", 2**15 - 1, 0x7C00),
    "bfloat16": ("<u2", 2**15 - 1, 0x7F80),
}
"""Of each type: its bits as whole numbers, the mask of the modulus, and infinity; what is larger is NaN."""


@dataclass(frozen=True)
class Scanned:
    """What was found in a file of weights.

    ``infinite`` names tensors that hold an infinity, which a buffer may and a parameter may not; ``problem`` is the first mistake.
    """

    sha256: str
    infinite: frozenset[str]
    problem: BundleError | None


class HashedFile:
    """A file that is read once from its beginning, ``size_bytes`` of it, and hashed on the way."""

    def __init__(self, file: BinaryIO, size_bytes: int, path: Path) -> None:
        self._file, self._left, self._path = file, size_bytes, path
        self._hash = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1)
        self._buffers = (bytearray(_PIECE), bytearray(_PIECE))
        self._pending: list[Future[None] | None] = [None, None]
        self._turn = 0

    def pieces(self, n_bytes: int) -> Any:
        """Yield the next ``n_bytes``, in views that hold until the next one but one is asked for."""
        while n_bytes:
            piece = self._next(min(n_bytes, _PIECE))
            n_bytes -= len(piece)
            yield piece

    def read(self, n_bytes: int) -> bytes:
        """Return the next ``n_bytes``."""
        content = bytearray()
        for piece in self.pieces(n_bytes):
            content += piece  # at once: its place is taken by the next one but one
        return bytes(content)

    def sha256(self) -> str:
        """Read what is left, and return the hash of all."""
        for _ in self.pieces(self._left):
            pass
        self._wait()
        return self._hash.hexdigest()

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown()

    def _next(self, n_bytes: int) -> memoryview:
        slot, self._turn = self._turn, 1 - self._turn
        if (earlier := self._pending[slot]) is not None:
            earlier.result()
        piece = memoryview(self._buffers[slot])[:n_bytes]
        if n_bytes > self._left or self._file.readinto(piece) != n_bytes:  # type: ignore[attr-defined]
            raise BundleError(f"{self._path}: it was cut off while it was read; fetch or make the bundle anew")
        self._left -= n_bytes
        if n_bytes < _SMALL:
            self._wait()
            self._hash.update(piece)
        else:
            self._pending[slot] = self._pool.submit(self._hash.update, piece)
        return piece

    def _wait(self) -> None:
        for slot, earlier in enumerate(self._pending):
            if earlier is not None:
                earlier.result()
            self._pending[slot] = None


def scan_weights(file: BinaryIO, size_bytes: int, entries: Mapping[str, TensorEntry], path: Path) -> Scanned:
    """Return what lies in an opened safetensors file of this size; a mistake in it is returned, too, not raised.

    Raises:
        BundleError: the file became shorter while it was read.
    """
    hashed = HashedFile(file, size_bytes, path)
    infinite: set[str] = set()
    try:
        try:
            _scan(hashed, size_bytes, entries, path, infinite)
            problem = None
        except BundleError as error:
            problem = error
        return Scanned(hashed.sha256(), frozenset(infinite), problem)
    finally:
        hashed.close()


def _scan(hashed: HashedFile, size: int, entries: Mapping[str, TensorEntry], path: Path, infinite: set[str]) -> None:
    prefix = hashed.read(min(8, size))
    length = min(int.from_bytes(prefix, "little"), MAX_HEADER_BYTES, size - len(prefix))
    try:
        header, _ = parse_header(prefix + hashed.read(length), path, size)
    except WeightsError as error:
        raise BundleError(f"{path}: expected a safetensors file: {error}; fetch or make the bundle anew") from error
    check_header(path, size, header, entries)
    tensors = {name: found["data_offsets"] for name, found in header.items() if name != "__metadata__"}
    for name, (begin, end) in sorted(tensors.items(), key=lambda item: item[1]):
        try:
            if _look(hashed, end - begin, entries[name]):
                infinite.add(name)
        except BundleError as error:
            raise BundleError(f"{path}: {name!r}: {error}; fetch or make the bundle anew") from error


def _look(hashed: HashedFile, n_bytes: int, entry: TensorEntry) -> bool:
    """Return whether a tensor, which comes next in the file, holds an infinity.

    Raises:
        BundleError: it holds what is no number, or no truth value, or doesn't decompress to its size.
    """
    if entry.stored == "bitmask":
        packed = torch.frombuffer(bytearray(hashed.read(n_bytes)) or bytearray(1), dtype=torch.uint8)[:n_bytes]
        whole = unpack_sparse(packed, entry.parts, entry.shape, DTYPES[entry.dtype])
        return _infinite(whole.reshape(-1).view(torch.uint8).numpy(), entry.dtype)
    found = [_infinite(np.frombuffer(piece, np.uint8), entry.dtype) for piece in hashed.pieces(n_bytes)]
    return any(found)


def _infinite(raw: NDArray[np.uint8], dtype: str) -> bool:
    """Return whether one of the numbers is infinite."""
    if not len(raw):
        return False
    if dtype == "bool" and raw.max() > 1:
        raise BundleError("a truth value must be 0 or 1")
    if dtype not in _FLOATS:
        return False
    words, modulus, infinity = _FLOATS[dtype]
    bits = raw.view(words)
    largest = int((bits & bits.dtype.type(modulus)).max())
    if largest > infinity:
        raise BundleError("it holds values that are NaN: it is broken")
    return largest == infinity
