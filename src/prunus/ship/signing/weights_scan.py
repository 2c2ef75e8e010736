"""Are the weights in a file what the manifest says, and finite, without holding them in memory?

The file is read once, and its bytes are looked at while a second thread hashes them. Of a compressed tensor only the bytes with
signs and exponents are looked at, unless they leave it open. A mistake is kept until all is hashed: that a file was changed is
said first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from prunus.core.errors import BundleError, WeightsError
from prunus.models.safetensors_file import MAX_HEADER_BYTES, parse_header
from prunus.ship.manifest import TensorEntry
from prunus.ship.pack import DTYPES, check_header
from prunus.ship.signing.hashed_file import HashedFile
from prunus.ship.sparse import highest_bytes, unpack_sparse

__all__ = ["Scanned", "scan_weights"]

_INFINITY = {
    "float64": (8, 0x7FF0_0000_0000_0000),
    "float32": (4, 0x7F80_0000),
    "float16": (2, 0x7C00),
    "bfloat16": (2, 0x7F80),
}
"""Of each type: how many bytes, and the bits of infinity; a modulus with larger bits is NaN."""


@dataclass(frozen=True)
class Scanned:
    """What was found in a file of weights.

    ``infinite`` names tensors that hold an infinity, which a buffer may and a parameter may not; ``problem`` is the first mistake.
    """

    sha256: str
    infinite: frozenset[str]
    problem: BundleError | None


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
    prefix = hashed.read(min(8, size)).tobytes()
    length = min(int.from_bytes(prefix, "little"), MAX_HEADER_BYTES, size - len(prefix))
    try:
        header, _ = parse_header(prefix + hashed.read(length).tobytes(), path, size)
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
        return _look_compressed(hashed.read(n_bytes), entry)
    found = [_infinite(np.frombuffer(piece, np.uint8), entry.dtype) for piece in hashed.pieces(n_bytes)]
    return any(found)


def _look_compressed(packed: NDArray[np.uint8], entry: TensorEntry) -> bool:
    dtype = DTYPES[entry.dtype]
    if entry.dtype in _INFINITY:
        n_bytes, infinity = _INFINITY[entry.dtype]
        highest = highest_bytes(packed, entry.parts, math.prod(entry.shape), dtype)
        # A number is finite whose highest byte is less than infinity's; the mantissa needn't be looked at.
        if _largest_modulus(highest, 1) < infinity >> 8 * (n_bytes - 1):
            return False
    whole = unpack_sparse(torch.from_numpy(packed), entry.parts, entry.shape, dtype)
    return _infinite(whole.reshape(-1).view(torch.uint8).numpy(), entry.dtype)


def _infinite(raw: NDArray[np.uint8], dtype: str) -> bool:
    """Return whether one of the numbers is infinite."""
    if dtype == "bool" and raw.any() and raw.max() > 1:
        raise BundleError("a truth value must be 0 or 1")
    if dtype not in _INFINITY:
        return False
    n_bytes, infinity = _INFINITY[dtype]
    largest = _largest_modulus(raw, n_bytes)
    if largest > infinity:
        raise BundleError("it holds values that are NaN: it is broken")
    return largest == infinity


def _largest_modulus(raw: NDArray[np.uint8], n_bytes: int) -> int:
    """Return the bits of the number that is farthest from zero, without its sign; -1 where there is no number.

    Read as signed numbers, those below zero are less than all others; read as unsigned ones, they are more. Two passes that only
    read are faster than one that takes the signs off.
    """
    if not len(raw):
        return -1
    above: int = raw.view(f"<i{n_bytes}").max().item()
    below: int = raw.view(f"<u{n_bytes}").max().item()
    half: int = 2 ** (8 * n_bytes - 1)
    return max(above, below - half)
