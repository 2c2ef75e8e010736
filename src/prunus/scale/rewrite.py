"""How does one shard become a smaller one, piece by piece?

The new file's layout is known before its numbers are: so each tensor is read, pruned and written to its place on its own, in
any order.
"""

from __future__ import annotations

import functools
import json
import operator
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.core.errors import RunError, WeightsError
from prunus.core.files.plain_files import atomic_path
from prunus.scale.magnitudes import FLOATS, PIECE, find_cut, prune_n_m, prune_piece
from prunus.scale.resume import fold
from prunus.scale.shard_files import Shard, Stored

__all__ = ["Settings", "write_shard"]

_SAMPLE = 1 << 16


@dataclass(frozen=True)
class Settings:
    """What a run does, but for where; ``piece_bytes`` doesn't change the result."""

    keep_fraction: float | None
    n_m: tuple[int, int] | None
    drop_layers: tuple[int, ...]
    layers: str | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    piece_bytes: int = field(compare=False)

    def n_kept(self, tensor: Stored) -> int:
        """Return how many numbers of a pruned tensor stay."""
        if self.n_m is not None:
            return tensor.n_units // self.n_m[1] * self.n_m[0]
        return round((1.0 if self.keep_fraction is None else self.keep_fraction) * tensor.n_units)


def write_shard(
    shard: Shard,
    tensors: Sequence[Stored],
    target: Path,
    settings: Settings,
    names: dict[str, str],
    chosen: set[str],
    pool: ThreadPoolExecutor,
) -> int:
    """Write one shard in one step: the tensors that stay, under their new names, pruned if they are ``chosen``.

    Returns the fold of the file (``scale.resume``).
    """
    header, starts = _header(shard, tensors, names)
    with atomic_path(target) as temporary, shard.path.open("rb") as source, temporary.open("r+b") as sink:
        sink.write(header)
        sink.flush()
        os.ftruncate(sink.fileno(), starts[-1] + tensors[-1].size_bytes)

        def work(tensor: Stored, start: int) -> int:
            files = source.fileno(), sink.fileno()
            _announce(source.fileno(), tensor)
            if tensor.name in chosen:
                return _prune(*files, tensor, start, settings)
            return _copy(*files, tensor, start, settings.piece_bytes)

        total = functools.reduce(operator.xor, pool.map(work, tensors, starts), fold(header, 0))
        shard.check_unchanged()
        return total


def _header(shard: Shard, tensors: Sequence[Stored], names: dict[str, str]) -> tuple[bytes, list[int]]:
    """Return the new file's header, and where each tensor starts in it."""
    entries: dict[str, Any] = {"__metadata__": dict(shard.metadata)} if shard.metadata else {}
    place = 0
    for tensor in tensors:
        offsets = [place, place + tensor.size_bytes]
        entries[names[tensor.name]] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        place += tensor.size_bytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    first = 8 + len(text)
    starts = [first]
    for tensor in tensors[:-1]:
        starts.append(starts[-1] + tensor.size_bytes)
    return len(text).to_bytes(8, "little") + text, starts


def _prune(source: int, sink: int, tensor: Stored, start: int, settings: Settings) -> int:
    """Prune one tensor from one file into the other; return the fold of what was written."""
    kind, infinity = FLOATS[tensor.dtype]
    size = np.dtype(kind).itemsize
    m = 1 if settings.n_m is None else settings.n_m[1]
    step = max(min(settings.piece_bytes // size, PIECE) // m * m, m)
    room = np.empty(min(step, tensor.n_units), kind)

    def pieces() -> Iterator[Any]:
        # Read twice rather than held: the second time it comes from the system's cache, straight into the processor's.
        for first in range(0, tensor.n_units, step):
            yield _read(source, tensor, first, room[: tensor.n_units - first])

    n_removed = tensor.n_units - settings.n_kept(tensor)
    cut, finite = None, True
    if settings.n_m is None and n_removed:
        cut, finite = find_cut(pieces, _sample(source, tensor, kind), tensor.n_units, n_removed, infinity)
    place, n_kept, total = start, 0, 0
    for piece in pieces():
        if settings.n_m is not None:
            finite = prune_n_m(piece, settings.n_m[0], m, infinity) and finite
        elif cut is not None:
            n_kept += prune_piece(piece, cut)
        _write(sink, piece, place)
        total, place = total ^ fold(piece, place), place + piece.nbytes
    if not finite:
        raise WeightsError(
            f"{tensor.name}: every number must be finite: got NaN or infinity; repair the checkpoint or exclude it"
        )
    assert cut is None or n_kept == tensor.n_units - n_removed, f"{n_kept} of {tensor.name} stay"
    return total


def _sample(source: int, tensor: Stored, kind: Any) -> Any:
    """Return numbers from all over a tensor."""
    n_runs = 256
    runs = np.empty((n_runs, min(_SAMPLE // n_runs, tensor.n_units)), kind)
    firsts = np.linspace(0, tensor.n_units - runs.shape[1], n_runs).astype(np.int64).tolist()
    for run, first in zip(runs, firsts, strict=True):
        _read(source, tensor, first, run)
    return runs.reshape(-1)


def _announce(source: int, tensor: Stored) -> None:
    """Let the system fetch a tensor from the disk in one go, before some of it is read here and there."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(source, tensor.start, tensor.size_bytes, os.POSIX_FADV_WILLNEED)


def _read(source: int, tensor: Stored, first: int, bits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Fill ``bits`` with a tensor's numbers from the ``first`` on, and return it."""
    view = bits.data.cast("B") if len(bits) else memoryview(b"")
    place = tensor.start + first * bits.itemsize
    while len(view):
        count = os.preadv(source, [view], place)
        if count == 0:
            raise RunError(f"{tensor.name}: the shard became shorter while it was read; get it anew")
        view, place = view[count:], place + count
    return bits


def _write(sink: int, bits: npt.NDArray[Any], place: int) -> None:
    """Write some numbers, and let the disk begin with them while the next are worked on."""
    view, start = bits.data.cast("B") if len(bits) else memoryview(b""), place
    while len(view):
        count = os.pwrite(sink, view, place)
        view, place = view[count:], place + count
    if hasattr(os, "posix_fadvise"):  # on Linux, what needn't stay in memory is written out at once
        os.posix_fadvise(sink, start, place - start, os.POSIX_FADV_DONTNEED)


def _copy(source: int, sink: int, tensor: Stored, start: int, piece_bytes: int) -> int:
    """Copy a tensor's bytes as they are; return their fold."""
    total = 0
    room = np.empty(min(piece_bytes, PIECE, tensor.size_bytes), np.uint8)
    for first in range(0, tensor.size_bytes, max(len(room), 1)):
        piece = _read(source, tensor, first, room[: tensor.size_bytes - first])
        _write(sink, piece, start + first)
        total ^= fold(piece, start + first)
    return total
