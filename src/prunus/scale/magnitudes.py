"""Which numbers of a tensor are the smallest, when there is no room to sort them?

The bits of a float without its sign, read as a whole number, order like its absolute value. So the exact threshold is found by
counting: a sample brackets it, a pass counts what lies below the bracket and inside it, and the bracket narrows to one number.
Everything works on pieces of a tensor and needs no more memory than one piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FLOATS", "PIECE", "Cut", "Pieces", "find_cut", "prune_n_m", "prune_piece"]

Bits = npt.NDArray[Any]
"""Unsigned whole numbers: the bits of floats."""

Pieces = Callable[[], Iterable[Bits]]
"""Gives the bits of a tensor, piece by piece, each time it is called."""

FLOATS: dict[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "BF16": (np.uint16, 0x7F80),
    "F16": (np.uint16, 0x7C00),
    "F32": (np.uint32, 0x7F800000),
}
"""By the format's name in safetensors: the whole number of its size, and the bits of infinity (above it is NaN)."""

_BINS = 1 << 16
PIECE = 1 << 18
"""Numbers that are worked on at once: they fit the processor's cache, and so do a few copies."""


@dataclass
class Cut:
    """What goes: everything below ``threshold``, and of what equals it all but the first ``ties`` that are met."""

    threshold: int
    ties: int


def absolute_value(bits: Bits) -> Bits:
    """Return the bits without the sign."""
    mask = bits.dtype.type((1 << (8 * bits.dtype.itemsize - 1)) - 1)
    result: Bits = bits & mask
    return result


def find_cut(pieces: Pieces, sample: Bits, n_units: int, n_removed: int, infinity: int) -> tuple[Cut, bool]:
    """Return the cut that removes exactly ``n_removed`` numbers, and whether all of them are finite.

    Args:
        pieces: the tensor's numbers.
        sample: some of them, drawn evenly; it only saves passes, the result doesn't depend on it.
        n_units: how many there are.
        n_removed: how many of them go; at least 1.
        infinity: the bits of infinity.

    >>> numbers = np.array([3.0, -1.0, 2.0, 1.0], np.float32).view(np.uint32)
    >>> find_cut(lambda: [numbers], numbers, 4, 2, 0x7F800000)
    (Cut(threshold=1065353216, ties=0), True)
    """
    kind = sample.dtype.type
    top = (1 << (8 * sample.dtype.itemsize - 1)) - 1
    finite = True
    low, high = _bracket(absolute_value(sample), n_removed / n_units, top)
    below_low: int | None = None
    while True:
        shift = max(0, (high - low + 1).bit_length() - 16)
        bins = np.zeros(((high - low) >> shift) + 1, np.int64)
        below = 0
        for piece in _small(pieces()):
            values = absolute_value(piece)
            if below_low is None:
                below += int(np.count_nonzero(values < kind(low)))
                finite = finite and int(values.max(initial=0)) < infinity
            values -= kind(low)  # what is below wraps around to the top
            inside = values[values <= kind(high - low)]
            bins += np.bincount(inside >> kind(shift), minlength=len(bins))
        if below_low is not None:
            below = below_low
        counts = np.cumsum(bins)
        if below >= n_removed:
            low, high, below_low = 0, low - 1, 0
        elif below + counts[-1] < n_removed:
            low, high, below_low = high + 1, top, below + int(counts[-1])
        else:
            place = int(np.searchsorted(counts, n_removed - below))
            below_low = below + (int(counts[place - 1]) if place else 0)
            low, high = low + (place << shift), min(high, low + ((place + 1) << shift) - 1)
            if shift == 0:
                return Cut(low, below_low + int(bins[place]) - n_removed), finite


def _bracket(sample: Bits, share: float, top: int) -> tuple[int, int]:
    """Return bounds between which the threshold lies, but for one time in some ten thousand."""
    size = len(sample)
    slack = 4 * (share * (1 - share) / size) ** 0.5 + 2 / size
    first, last = math.floor((share - slack) * size), int((share + slack) * size)
    ordered = np.partition(sample, sorted({max(first, 0), min(last, size - 1)}))
    return int(ordered[first]) if first >= 0 else 0, int(ordered[last]) if last < size else top


def prune_piece(bits: Bits, cut: Cut) -> int:
    """Set what ``cut`` removes to zero in place, and return how many stay; ``cut.ties`` counts down."""
    kept = 0
    kind = bits.dtype.type
    for piece in _small([bits]):
        values = absolute_value(piece)
        keep = values > kind(cut.threshold)
        if cut.ties:
            equal = np.flatnonzero(values == kind(cut.threshold))[: cut.ties]
            keep[equal] = True
            cut.ties -= len(equal)
        kept += int(np.count_nonzero(keep))
        np.multiply(piece, keep.view(np.uint8), out=piece)
    return kept


def prune_n_m(bits: Bits, n: int, m: int, infinity: int) -> bool:
    """Set all but the ``n`` largest of every ``m`` neighbours to zero in place; return whether all are finite. Ties keep the first.

    >>> numbers = np.array([3.0, -1.0, 2.0, 4.0], np.float32)
    >>> prune_n_m(numbers.view(np.uint32), 1, 2, 0x7F800000), numbers.tolist()
    (True, [3.0, 0.0, 0.0, 4.0])
    """
    finite = True
    count = np.uint8 if m < 256 else np.uint32
    for piece in _small([bits], multiple=m):
        values = absolute_value(piece)
        finite = finite and int(values.max(initial=0)) < infinity
        lanes = np.ascontiguousarray(values.reshape(-1, m).T)
        # Of two neighbours one is ahead of the other, so every pair is compared once.
        ahead = np.zeros(lanes.shape, count)
        for i in range(m):
            ahead[i] += count(m - 1 - i)
            for j in range(i + 1, m):
                first = (lanes[i] >= lanes[j]).view(np.uint8)
                ahead[j] += first
                ahead[i] -= first
        keep = np.empty((lanes.shape[1], m), bool)
        for i in range(m):
            np.less(ahead[i], n, out=keep[:, i])
        np.multiply(piece, keep.reshape(-1).view(np.uint8), out=piece)
    return finite


def _small(pieces: Iterable[Bits], multiple: int = 1) -> Iterable[Bits]:
    step = max(multiple, PIECE // multiple * multiple)
    for piece in pieces:
        for start in range(0, len(piece), step):
            yield piece[start : start + step]
