"""Which rows are nearly alike, among more than can be compared with each other?

Rows that may be near meet in the buckets of random cuts (locality-sensitive hashing), and what met is compared exactly: no pair is
reported wrongly, and the share of those that are missed is measured. Tables of buckets are drawn until the asked share of
*simulated* pairs has met, which lie exactly at the threshold around rows of the data themselves; nearer pairs meet more often.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunus.core.errors import DataError
from prunus.core.runtime import generator
from prunus.core.types import Bools, Ints
from prunus.score.examples.duplicates.random_cuts import N_SIMULATED, Cuts, Sketch, codes_of, draw_tables, sketches_of

__all__ = [
    "CROWD",
    "FEW",
    "all_pairs",
    "cosines",
    "cosines_between",
    "inverse_norms",
    "is_crowd",
    "near_pairs",
    "sample_of",
]

_BLOCK = 65536
FEW = 1000
"""So many rows are all compared with each other."""
CROWD = 256
"""In a bucket of more rows than this, its first row is compared with the others before all are with each other."""


def near_pairs(
    table: Tensor, scale: Tensor, alive: Ints, cosine: float, recall: float, seed: tuple[int, int]
) -> tuple[Ints, npt.NDArray[np.float32], float, bool]:
    """Return the near pairs ``(pairs, 2)``, their cosines, the share of simulated pairs that met, and whether there may be more.

    Shapes:
        ``table`` is ``(n, features)``, ``scale`` ``(n,)``: one over each row's norm; ``alive`` numbers the rows to compare.
    """
    if len(alive) <= FEW:
        pairs = alive[all_pairs(len(alive))]
        near = cosines(table, scale, pairs)
        return pairs[near >= cosine], near[near >= cosine], 1.0, False
    sample, random = sample_of(alive, seed)
    here = table[torch.from_numpy(sample)].float() * scale[torch.from_numpy(sample), None]
    drawn, tables = draw_tables(here, cosine, recall, len(alive), random)
    sketch = _Sketches(table, scale, alive, drawn)
    found: list[Ints] = []
    crowded, met = False, 0.0
    for cuts, met in tables:
        codes = _codes(table, scale, alive, cuts)
        order = np.argsort(codes, kind="stable")
        codes, members = codes[order], alive[order]
        stars = _near_the_first(table, scale, codes, members, cosine)
        if is_crowd(n_stars=len(stars), n_rows=len(alive)):
            found, crowded = [*found, stars], True
            break  # a crowd: most of it goes now, and the rest is looked through again
        found += [stars, *_near_in_buckets(table, scale, codes, members, sketch, cosine)]
        if met >= recall:
            break
        crowded = is_crowd(n_found=sum(map(len, found)), n_rows=len(alive))
        if crowded:
            break
    code = np.unique(np.concatenate(found) @ np.array([len(table), 1]))
    pairs = np.stack([code // len(table), code % len(table)], axis=1)
    return pairs, cosines(table, scale, pairs), met, crowded


def all_pairs(n: int) -> Ints:
    """Return each pair of different places up to ``n``, the lower one first, ``(pairs, 2)``."""
    return np.stack(np.triu_indices(n, 1), axis=1)


def sample_of(alive: Ints, seed: tuple[int, int]) -> tuple[Ints, torch.Generator]:
    """Return some of the rows that are alive, and what all else of a round is drawn from."""
    random = generator(seed[0], "near_duplicates", str(seed[1]))
    return alive[torch.randint(len(alive), (N_SIMULATED,), generator=random).numpy()], random


def is_crowd(*, n_rows: int, n_stars: int = 0, n_found: int = 0) -> bool:
    """Return whether so many pairs say that rows crowd, of which most go before more are looked for.

    Args:
        n_rows: so many rows are compared.
        n_stars: so many are near the first row of their bucket in one table.
        n_found: so many pairs were found in all tables so far, those that met again counted again.
    """
    return n_stars > n_rows // 20 or n_found > 4 * n_rows


class _Sketches:
    """A sketch of each row in eight bytes: most pairs that aren't near are told apart without reading their rows."""

    def __init__(self, table: Tensor, scale: Tensor, alive: Ints, sketch: Sketch) -> None:
        self.most = sketch.most
        self.bits = np.zeros(len(table), np.uint64)
        for rows, factor, block in _alive_rows(table, scale, alive):
            self.bits[alive[block]] = sketches_of(rows, factor, sketch)

    def may_be_near(self, pairs: Ints) -> Bools:
        """Return which pairs differ in no more cuts than simulated pairs at the threshold do."""
        return np.asarray(np.bitwise_count(self.bits[pairs[:, 0]] ^ self.bits[pairs[:, 1]]) <= self.most)


def _codes(table: Tensor, scale: Tensor, alive: Ints, cuts: Cuts) -> npt.NDArray[np.int32]:
    """Return the bucket of each row that is alive."""
    codes = np.empty(len(alive), np.int32)
    for rows, factor, block in _alive_rows(table, scale, alive):
        codes[block] = codes_of(rows, factor, cuts)
    return codes


def _alive_rows(table: Tensor, scale: Tensor, alive: Ints) -> Iterator[tuple[Tensor, Tensor, slice]]:
    """Yield rows that are alive, one over their norms, and which of them they are."""
    everything = len(alive) == len(table)
    for block in _blocks(len(alive)):
        which: Any = block if everything else torch.from_numpy(alive[block])
        yield table[which].float(), scale[which], block


def _near_the_first(table: Tensor, scale: Tensor, codes: npt.NDArray[np.int32], members: Ints, cosine: float) -> Ints:
    """Return the near pairs of each crowded bucket's first row with the others of it."""
    first = np.flatnonzero(np.diff(codes, prepend=-1))
    sizes = np.diff(first, append=len(codes))
    crowds = sizes > CROWD
    if not crowds.any():
        return np.zeros((0, 2), np.int64)
    where = np.repeat(crowds, sizes)
    pairs = np.stack([np.repeat(members[first], sizes)[where], members[where]], axis=1)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return np.sort(pairs[cosines(table, scale, pairs) >= cosine], axis=1)


def _near_in_buckets(
    table: Tensor, scale: Tensor, codes: npt.NDArray[np.int32], members: Ints, sketch: _Sketches, cosine: float
) -> list[Ints]:
    """Return the near pairs among the rows of each bucket."""
    at = np.arange(len(codes))
    found = []
    for step in range(1, len(codes)):
        at = at[at < len(codes) - step]
        at = at[codes[at] == codes[at + step]]
        if not len(at):
            break
        pairs = np.stack([members[at], members[at + step]], axis=1)
        pairs = pairs[sketch.may_be_near(pairs)]
        found.append(np.sort(pairs[cosines(table, scale, pairs) >= cosine], axis=1))
    return found


def cosines(table: Tensor, scale: Tensor, pairs: Ints) -> npt.NDArray[np.float32]:
    """Return the cosine of each pair of rows, ``(pairs,)``."""
    return cosines_between((table, scale), pairs[:, 0], (table, scale), pairs[:, 1])


def cosines_between(
    left: tuple[Tensor, Tensor], left_rows: Ints, right: tuple[Tensor, Tensor], right_rows: Ints
) -> npt.NDArray[np.float32]:
    """Return the cosines of rows of one table with rows of another, pair by pair; each comes with one over its rows' norms."""
    near = np.empty(len(left_rows), np.float32)
    for block in _blocks(len(near)):
        one, other = torch.from_numpy(left_rows[block].copy()), torch.from_numpy(right_rows[block].copy())
        dots = torch.linalg.vecdot(left[0][one].float(), right[0][other].float())
        near[block] = (dots * left[1][one] * right[1][other]).numpy()
    return near


def inverse_norms(table: Tensor) -> Tensor:
    """Return one over each row's norm, ``(n,)``, 0 for a row of zeros."""
    scale = torch.empty(len(table))
    for block in _blocks(len(table)):
        norms = table[block].double().norm(dim=1)
        bad = torch.nonzero(~torch.isfinite(norms)).flatten()
        if len(bad):
            raise DataError(f"near-duplicates need finite rows: row {block.start + int(bad[0])} has NaN or infinity")
        scale[block] = torch.where(norms > 0, 1 / norms, 0.0).float()
    return scale


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK))
