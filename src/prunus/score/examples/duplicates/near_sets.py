"""Which sets of pieces are nearly alike, among more than can be compared with each other?

Sets that may be near meet in the tables of their least hashes, and what met is compared by its pieces: no pair is reported wrongly,
and the share of pairs at the threshold that is missed is known, since the chance to meet is a function of the similarity alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.core.runtime import derive_seed
from prunus.core.types import Floats, Ints
from prunus.score.examples.duplicates.minhash import SKETCH, agreeing, hashers, least_hashes, sketches_of, tables_of
from prunus.score.examples.duplicates.shingles import SequenceShingles, TextShingles, blocks, scrambled

__all__ = ["NearSets", "similarities_of"]

_FEW = 1000
"""So many rows are all compared with each other, by their sketches first."""
_SAMPLED_PAIRS = 1 << 19
_DEEPEST = 32
_AT_ONCE = 16
"""So many tables are held; where there are more, the pieces are hashed again."""
_CROWD = 256
"""In a bucket of more rows than this, its first row is compared with the others before all are with each other."""
_MANY = 1 << 20
_ROUNDING = 1e-12

# What a step costs, in nanoseconds on one core: it only decides how deep the tables are.
_HASH, _ROW, _PAIR = 0.6, 200.0, 150.0


class NearSets:
    """The sets of some rows, ready to be searched.

    ``same_as`` is the number of the first row with the same pieces, each as often, for each row.

    Args:
        shingles: the pieces of each row.
        jaccard: from which similarity on two sets are near, in (0, 1].
        recall: the share of pairs at that similarity to find, in (0, 1).
        seed: of the hashes.
    """

    def __init__(self, shingles: TextShingles | SequenceShingles, jaccard: float, recall: float, seed: int) -> None:
        self.shingles, self.jaccard, self.seed = shingles, jaccard, seed
        self.few = len(shingles) <= _FEW
        # A twentieth of what may be missed is left to the sketches.
        missed = 1e-9 if self.few else (1 - recall) / 20
        self._agree = _least_agreeing(jaccard, missed)
        depth, n_tables = (1, 0) if self.few else self._plan(recall / (1 - missed))
        self.depth, self.n_tables = depth, n_tables
        met = 1.0 if self.few else 1 - (1 - jaccard**depth) ** n_tables
        self.recall = met * (1 - missed)
        self._held = 0
        self._codes = self._first_pass()

    def near_pairs(self, alive: Ints) -> tuple[Ints, Floats, float, bool]:
        """Return the near pairs ``(pairs, 2)`` among some rows, their similarities, the recall, and whether there may be more."""
        crowded = False
        found = [np.zeros(0, np.int64)]
        if self.few:
            one, other = np.triu_indices(len(alive), 1)
            found += self._near(iter([self._alike(np.stack([alive[one], alive[other]], axis=1))]))
        for table in range(self.n_tables):
            codes = self._table(table)[alive]
            order = np.argsort(codes, kind="stable")
            codes, members = codes[order], alive[order]
            stars = self._near(iter([self._alike(_with_the_first(codes, members))]))
            found += stars
            if sum(map(len, stars)) > len(alive) // 20:
                crowded = True  # most of a crowd goes now, and the rest is looked through again
                break
            found += self._near(self._new(pairs, table) for pairs in _in_buckets(codes, members))
            crowded = sum(map(len, found)) > 4 * len(alive)
            if crowded:
                break
        pairs = self._pairs(_distinct(np.concatenate(found))[0])
        return pairs, self.similarities(pairs), self.recall, crowded

    def similarities(self, pairs: Ints) -> Floats:
        """Return the Jaccard similarity of each pair of rows, ``(pairs,)``."""
        return similarities_of(self.shingles, pairs)

    def _near(self, parts: Iterator[Ints]) -> list[Ints]:
        """Return the near ones of some pairs, each as one number, in parts."""
        found, waiting, n_waiting = [], [np.zeros((0, 2), np.int64)], 0
        for part in itertools.chain(parts, [None]):
            if part is not None:
                waiting.append(part)
                n_waiting += len(part)
            if n_waiting > _MANY // 4 or (part is None and n_waiting):
                code = np.sort(self._code(np.concatenate(waiting)))  # so that pairs of one row are compared together
                found.append(code[self.similarities(self._pairs(code)) >= self.jaccard - _ROUNDING])
                waiting, n_waiting = [], 0
        return found

    def _code(self, pairs: Ints) -> Ints:
        """Return each pair as one number, the lower row first."""
        return np.asarray(pairs.min(axis=1) * len(self.shingles) + pairs.max(axis=1))

    def _pairs(self, code: Ints) -> Ints:
        return np.stack(np.divmod(code, len(self.shingles)), axis=1)

    def _alike(self, pairs: Ints) -> Ints:
        """Return the pairs whose sketches agree as those of near rows do."""
        return pairs[agreeing(self.sketches, pairs) >= self._agree]

    def _new(self, pairs: Ints, table: int) -> Ints:
        """Return the alike pairs that no earlier table of those that are held has together."""
        pairs = self._alike(pairs)
        for codes in self._codes[: table % _AT_ONCE]:
            pairs = pairs[codes[pairs[:, 0]] != codes[pairs[:, 1]]]
        return pairs

    def _plan(self, recall: float) -> tuple[int, int]:
        """Return how many hashes make a table and how many tables there are, at the least cost for the asked recall."""
        n = len(self.shingles)
        random = np.random.default_rng(derive_seed(self.seed, "near_sets", "plan"))
        rows = np.sort(random.choice(n, min(n, 2048), replace=False))
        sample = sketches_of(least_hashes(self.shingles(rows), hashers(SKETCH, self.seed, 0)))
        pairs = random.integers(0, len(rows), (_SAMPLED_PAIRS, 2))
        alike = agreeing(sample, pairs[pairs[:, 0] != pairs[:, 1]]) / SKETCH
        size = float(self.shingles.sizes.mean())

        def cost(depth: int) -> float:
            n_met = float((alike**depth).mean()) * n * n / 2
            return self._n_tables(depth, recall) * (n * (depth * size * _HASH + _ROW) + n_met * _PAIR)

        depth = min(range(1, _DEEPEST + 1), key=cost)
        return depth, self._n_tables(depth, recall)

    def _n_tables(self, depth: int, recall: float) -> int:
        same = max(self.jaccard**depth, 1e-300)
        return 1 if same == 1 else max(math.ceil(math.log(1 - recall) / math.log1p(-same)), 1)

    def _first_pass(self) -> npt.NDArray[np.uint32]:
        """Sketch every row, see which are the same, and return the first tables."""
        n = len(self.shingles)
        self.sketches = np.empty((n, SKETCH // 8), np.uint64)
        codes = np.empty((min(self.n_tables, _AT_ONCE), n), np.uint32)
        factors = hashers(max(SKETCH, len(codes) * self.depth), self.seed, 0)
        whole = np.empty(n, np.uint64)
        for rows in blocks(self.shingles, np.arange(n)):
            shingles = self.shingles(rows)
            least = least_hashes(shingles, factors)
            self.sketches[rows] = sketches_of(least)
            codes[:, rows] = tables_of(least[:, : len(codes) * self.depth], self.depth)
            whole[rows] = np.add.reduceat(scrambled(shingles.pieces), shingles.starts[:-1])
        _, first, number = np.unique(whole, return_index=True, return_inverse=True)
        self.same_as: Ints = first[number]
        return codes

    def _table(self, number: int) -> npt.NDArray[np.uint32]:
        """Return the bucket of each row in a table."""
        group = number // _AT_ONCE
        if group != self._held:
            n_here = min(self.n_tables - group * _AT_ONCE, _AT_ONCE)
            factors = hashers(n_here * self.depth, self.seed, group)
            for rows in blocks(self.shingles, np.arange(len(self.shingles))):
                self._codes[:n_here, rows] = tables_of(least_hashes(self.shingles(rows), factors), self.depth)
            self._held = group
        return np.asarray(self._codes[number % _AT_ONCE])


def _distinct(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Ints]:
    """Return the distinct values in order, and the place of each value among them.

    ``np.unique`` would do the same; it took ten times as long where there are many.
    """
    order = np.argsort(values)
    ordered = values[order]
    new = np.concatenate([np.ones(min(len(values), 1), np.bool_), ordered[1:] != ordered[:-1]])
    place = np.empty(len(values), np.int64)
    place[order] = np.cumsum(new) - 1
    return ordered[new], place


def _least_agreeing(jaccard: float, missed: float) -> int:
    """Return the most bytes of sketches that sets at that similarity agree in but for a share ``missed`` of them."""
    below = 0.0
    for n in range(SKETCH):
        below += math.comb(SKETCH, n) * jaccard**n * (1 - jaccard) ** (SKETCH - n)
        if below > missed:
            return n
    return SKETCH


def _with_the_first(codes: npt.NDArray[np.uint32], members: Ints) -> Ints:
    """Return the pairs of each crowded bucket's first row with the others of it."""
    first = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    sizes = np.diff(first, append=len(codes))
    crowds = sizes > _CROWD
    where = np.repeat(crowds, sizes)
    pairs = np.stack([np.repeat(members[first], sizes)[where], members[where]], axis=1)
    return np.asarray(pairs[pairs[:, 0] != pairs[:, 1]])


def _in_buckets(codes: npt.NDArray[np.uint32], members: Ints) -> Iterator[Ints]:
    """Yield the pairs of rows that share a bucket."""
    at = np.arange(len(codes))
    for step in range(1, len(codes)):
        at = at[at < len(codes) - step]
        at = at[codes[at] == codes[at + step]]
        if not len(at):
            return
        yield np.stack([members[at], members[at + step]], axis=1)


def similarities_of(shingles: TextShingles | SequenceShingles, pairs: Ints) -> Floats:
    """Return the Jaccard similarity of each pair of rows, ``(pairs,)``."""
    found = np.empty(len(pairs), np.float64)
    until = np.cumsum(shingles.sizes[pairs].sum(axis=1))
    start = 0
    while start < len(pairs):
        before = until[start - 1] if start else 0
        stop = max(int(np.searchsorted(until, before + _MANY)), start + 1)
        found[start:stop] = _compared(shingles, pairs[start:stop])
        start = stop
    return found


def _compared(every: TextShingles | SequenceShingles, pairs: Ints) -> Floats:
    rows, place = _distinct(pairs.reshape(-1))
    shingles = every(rows)
    pieces, number = _distinct(shingles.pieces)
    bits = len(pieces).bit_length()
    owned = np.sort((np.repeat(np.arange(len(rows)), np.diff(shingles.starts)) << bits) | number)
    owned = owned[np.concatenate([[True], owned[1:] != owned[:-1]])]
    sizes = np.bincount(owned >> bits, minlength=len(rows))
    owned &= (1 << bits) - 1
    length = sizes[place]
    before = np.cumsum(length) - length
    at = np.repeat((np.cumsum(sizes) - sizes)[place] - before, length) + np.arange(length.sum())
    both = np.sort((np.repeat(np.arange(len(place)) >> 1, length) << bits) | owned[at])
    shared = np.bincount(both[1:][both[1:] == both[:-1]] >> bits, minlength=len(pairs))
    return np.asarray(shared / (length.reshape(-1, 2).sum(axis=1) - shared))
