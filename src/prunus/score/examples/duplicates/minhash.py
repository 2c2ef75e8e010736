"""In which buckets does a set of pieces lie, so that sets that share much meet?

The least of a set's hashed pieces is the same for two sets with a chance of their Jaccard similarity, whatever they hold. A table
puts sets together that agree in ``depth`` such numbers; a sketch of a byte from each of 64 tells most others apart.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prunus.core.runtime import derive_seed
from prunus.core.types import Ints
from prunus.score.examples.duplicates.shingles import Shingles, Words

__all__ = ["SKETCH", "agreeing", "hashers", "least_hashes", "sketches_of", "tables_of"]

SKETCH = 64
"""So many bytes tell sets apart before their pieces are compared."""
_TILE = 1 << 17
"""So many hashes are worked on at once: they stay in the processor's cache."""

_Hashes = npt.NDArray[np.uint32]


def hashers(n: int, seed: int, *names: object) -> _Hashes:
    """Return ``n`` odd factors: each permutes 32-bit hashes."""
    random = np.random.default_rng(derive_seed(seed, "minhash", *names))
    return random.integers(0, 2**31, n, dtype=np.uint32) * np.uint32(2) + np.uint32(1)


def least_hashes(shingles: Shingles, factors: _Hashes) -> _Hashes:
    """Return the least hash of each row under each factor, ``(rows, factors)``; every row has a piece.

    References:
        Broder, Compression and Complexity of Sequences, 1997. The pieces are scrambled already, so that a permutation of their
        upper halves is a product.
    """
    sizes = np.diff(shingles.starts)
    order = np.argsort(sizes, kind="stable")
    upper = (shingles.pieces >> np.uint64(32)).astype(np.uint32)
    least = np.empty((len(sizes), len(factors)), np.uint32)
    start = 0
    while start < len(order):
        # Rows of about one size, the longest last, make a rectangle of (pieces, rows); a shorter one says its last piece again.
        stop = min(start + max(_TILE // max(int(sizes[order[start]]), 1), 1), len(order))
        while stop - start > 1 and sizes[order[stop - 1]] * (stop - start) > 2 * _TILE:
            stop = start + (stop - start + 1) // 2
        rows = order[start:stop]
        place = np.arange(int(sizes[rows[-1]]))[:, None]
        tile = upper[shingles.starts[rows] + np.minimum(place, sizes[rows] - 1)]
        product = np.empty_like(tile)
        for number, factor in enumerate(factors):
            np.multiply(tile, factor, out=product)
            least[rows, number] = product.min(axis=0)
        start = stop
    return least


def tables_of(least: _Hashes, depth: int) -> _Hashes:
    """Return the bucket of each row in each table, ``(tables, rows)``: ``depth`` numbers each make one."""
    codes = np.zeros((least.shape[1] // depth, len(least)), np.uint32)
    for number, code in enumerate(codes):
        for place in range(depth):
            code ^= least[:, number * depth + place]
            code *= np.uint32(0x9E3779B1)
            code ^= code >> np.uint32(15)
    return codes


def sketches_of(least: _Hashes) -> Words:
    """Return a byte of each row's first hashes, ``(rows, SKETCH / 8)``."""
    first = least[:, :SKETCH]
    return (
        ((first ^ (first >> np.uint32(15))) * np.uint32(0x9E3779B1) >> np.uint32(24)).astype(np.uint8).view(np.uint64)
    )


def agreeing(sketches: Words, pairs: Ints) -> Ints:
    """Return in how many bytes of their sketches the rows of each pair agree; ``sketches`` is ``(n, SKETCH / 8)``."""
    found = np.empty(len(pairs), np.int64)
    for start in range(0, len(pairs), 65536):
        one, other = pairs[start : start + 65536].T
        same = (sketches[one] ^ sketches[other]).view(np.uint8) == 0
        found[start : start + len(one)] = np.bitwise_count(same.view(np.uint64)).sum(axis=1)
    return found
