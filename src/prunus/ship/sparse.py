"""How is a tensor with many zeros stored in few bytes, bit for bit?

Parts, one after the other: the mask (one bit per element in order, the first in the highest bit of the first byte, set where the
element's bits aren't all zero, so that -0.0 stays what it is), and then the elements of the set bits in order, split by byte: first
the lowest byte of every element, last the highest, which holds sign and exponent. Apart, the bytes that repeat compress; those of
the mantissa don't. A part is compressed by zstd where that makes it shorter, and else as it is: a part that is as long as it
has to be isn't compressed. How long that is follows from the shape and the mask, so nothing is allocated on a sender's word.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from prunus.core.errors import BundleError

__all__ = ["highest_bytes", "pack_sparse", "unpack_sparse"]

_Bytes = npt.NDArray[np.uint8]
# Of every byte; the second way is that of NumPy 1.26.
_N_BITS = getattr(np, "bitwise_count", np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1).take)
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Level 1: these bytes hold no repetitions for higher levels to find, only frequencies.
_ZSTD = pa.Codec("zstd", compression_level=1)
# What an entry in the manifest costs more, about.
_ENTRY_BYTES = 60


def pack_sparse(tensor: Tensor) -> tuple[Tensor, tuple[int, ...]] | None:
    """Return the bytes of a contiguous tensor on the CPU, and how long each part of them is; None where that isn't smaller.

    >>> packed, parts = pack_sparse(torch.eye(64))
    >>> packed.shape == (sum(parts),), len(parts), sum(parts) < 600
    (True, 5, True)
    """
    flat = tensor.flatten()
    kept = flat.view(_BITS[flat.element_size()]) != 0
    if int(kept.sum()) == len(flat):
        return None
    values = _bytes(flat[kept])
    mask = np.packbits(kept.numpy())
    parts = [_shorter(mask), *(_shorter(np.ascontiguousarray(values[:, place])) for place in range(values.shape[1]))]
    lengths = tuple(len(part) for part in parts)
    if sum(lengths) + _ENTRY_BYTES >= flat.numel() * flat.element_size():
        return None
    return torch.from_numpy(np.concatenate(parts)), lengths


def unpack_sparse(packed: Tensor, parts: Sequence[int], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return the tensor that :func:`pack_sparse` took apart.

    Raises:
        BundleError: another number of parts or bytes than the type and the shape need, or a part that doesn't decompress to that.
    """
    n, n_bytes = math.prod(shape), dtype.itemsize
    packed_mask, *planes = _pieces(packed.numpy(), parts, dtype)
    mask = np.unpackbits(_whole(packed_mask, (n + 7) // 8, "mask"), count=n).astype(bool)
    n_kept = int(np.count_nonzero(mask))
    values = np.empty((n_kept, n_bytes), np.uint8)
    for place, piece in enumerate(planes):
        values[:, place] = _whole(piece, n_kept, f"byte {place} of the values")
    flat = torch.zeros(n, dtype=dtype)
    flat[torch.from_numpy(mask)] = torch.from_numpy(_native(values).reshape(-1)).view(dtype)
    return flat.view(shape)


def highest_bytes(packed: _Bytes, parts: Sequence[int], n_elements: int, dtype: torch.dtype) -> _Bytes:
    """Return the byte of every element that isn't zero which holds its sign and the most of its exponent.

    The tensor isn't put together, but every part is decompressed that is compressed: what passes here, unpacks.

    Raises:
        BundleError: as :func:`unpack_sparse`.
    """
    packed_mask, *planes = _pieces(packed, parts, dtype)
    mask = _whole(packed_mask, (n_elements + 7) // 8, "mask")
    n_kept = int(_N_BITS(mask).sum(dtype=np.int64))
    if odd := n_elements % 8:
        n_kept -= (int(mask[-1]) & (0xFF >> odd)).bit_count()  # what fills the last byte up is no element
    *_, highest = [_whole(piece, n_kept, f"byte {place} of the values") for place, piece in enumerate(planes)]
    return highest


def _pieces(packed: _Bytes, parts: Sequence[int], dtype: torch.dtype) -> list[_Bytes]:
    """Return the parts: the mask, and the bytes of the values from the lowest to the highest."""
    if len(parts) != 1 + dtype.itemsize or sum(parts) != len(packed):
        raise BundleError(
            f"a {str(dtype).removeprefix('torch.')} has {1 + dtype.itemsize} parts of {len(packed)} bytes in all: got {list(parts)}"
        )
    starts = np.cumsum([0, *parts])
    return [packed[start:end] for start, end in pairwise(starts.tolist())]


def _bytes(values: Tensor) -> _Bytes:
    """Return the bytes of every element, the lowest first: ``(elements, bytes)``."""
    return _native(values.view(torch.uint8).numpy().reshape(len(values), values.element_size()))


def _native(values: _Bytes) -> _Bytes:
    """Turn the bytes of every element round where the machine keeps the highest first."""
    return np.ascontiguousarray(values if sys.byteorder == "little" else values[:, ::-1])


def _shorter(part: _Bytes) -> _Bytes:
    compressed = np.frombuffer(_ZSTD.compress(part.tobytes(), asbytes=True), np.uint8)
    return compressed if len(compressed) < len(part) else part


def _whole(piece: _Bytes, length: int, what: str) -> _Bytes:
    """Return a part as it was: ``length`` bytes, however it is stored."""
    if len(piece) == length:
        return piece
    try:
        whole = _ZSTD.decompress(pa.py_buffer(piece), decompressed_size=length)
    except (OSError, pa.ArrowException) as error:
        raise BundleError(f"its {what} must decompress to {length} bytes: got {error}") from error
    if len(whole) != length:
        raise BundleError(f"its {what} must decompress to {length} bytes: got {len(whole)}")
    return np.frombuffer(whole, np.uint8)
