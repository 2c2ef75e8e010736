"""Which rows are nearly alike, among more than can be compared with each other?

Rows that may be near meet in the buckets of random cuts (locality-sensitive hashing), and what met is compared exactly: no pair is
reported wrongly, and the share of those that are missed is measured. Tables of buckets are drawn until the asked share of
*simulated* pairs has met, which lie exactly at the threshold around rows of the data themselves; nearer pairs meet more often.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunus.core.errors import DataError
from prunus.core.runtime import generator
from prunus.core.types import Bools, Ints

__all__ = ["cosines", "inverse_norms", "near_pairs"]

_BLOCK = 65536
_FEW = 1000
"""So many rows are all compared with each other."""
_SIMULATED = 1024
_CROWD = 256
"""In a bucket of more rows than this, its first row is compared with the others before all are with each other."""
_OFTEN_ENOUGH = 0.2
"""The least share of pairs at the threshold that meets in one table."""
_ROUNDING = 1e-5
"""Projections that differ by less may be on either side of a cut."""
_MOST_TABLES = 512


def near_pairs(
    table: Tensor, scale: Tensor, alive: Ints, cosine: float, recall: float, seed: tuple[int, int]
) -> tuple[Ints, npt.NDArray[np.float32], float, bool]:
    """Return the near pairs ``(pairs, 2)``, their cosines, the share of simulated pairs that met, and whether there may be more.

    Shapes:
        ``table`` is ``(n, features)``, ``scale`` ``(n,)``: one over each row's norm; ``alive`` numbers the rows to compare.
    """
    if len(alive) <= _FEW:
        one, other = np.triu_indices(len(alive), 1)
        pairs = np.stack([alive[one], alive[other]], axis=1)
        near = cosines(table, scale, pairs)
        return pairs[near >= cosine], near[near >= cosine], 1.0, False
    random = generator(seed[0], "near_duplicates", str(seed[1]))
    sample = torch.from_numpy(alive)[torch.randint(len(alive), (_SIMULATED,), generator=random)]
    here = table[sample].float() * scale[sample, None]
    there = _at_cosine(here, cosine, random)
    sketch = _Sketch(table, scale, alive, here, there, random)
    have_met = torch.zeros(_SIMULATED, dtype=torch.bool)
    n_bits = _bits(here, there, len(alive), random)
    found: list[Ints] = []
    crowded = False
    for _ in range(_MOST_TABLES):
        cuts = _cuts(table.shape[1], n_bits, random)
        at = _middle(here @ cuts)
        have_met |= _same_side(here, there, cuts).all(dim=1) & sketch.passes_here
        codes = _codes(table, scale, alive, cuts, at)
        order = np.argsort(codes, kind="stable")
        codes, members = codes[order], alive[order]
        stars = _near_the_first(table, scale, codes, members, cosine)
        if len(stars) > len(alive) // 20:
            found, crowded = [*found, stars], True
            break  # a crowd: most of it goes now, and the rest is looked through again
        found += [stars, *_near_in_buckets(table, scale, codes, members, sketch, cosine)]
        if have_met.double().mean() >= recall:
            break
        crowded = sum(map(len, found)) > 4 * len(alive)
        if crowded:
            break
    met = float(have_met.double().mean())
    code = np.unique(np.concatenate(found) @ np.array([len(table), 1]))
    pairs = np.stack([code // len(table), code % len(table)], axis=1)
    return pairs, cosines(table, scale, pairs), met, crowded


def _bits(here: Tensor, there: Tensor, n_alive: int, random: torch.Generator) -> int:
    """Return how many cuts make a table: for about one row per bucket, but fewer where pairs at the threshold would hardly meet."""
    most = min(max(math.ceil(math.log2(n_alive)), 1), 24)
    least = min(max(math.ceil(math.log2(n_alive / 2048)), 1), most)
    same = torch.stack([_same_side(here, there, _cuts(here.shape[1], most, random)) for _ in range(4)])
    meet = same.cummin(dim=2).values.double().mean(dim=(0, 1))
    return max(int((meet >= _OFTEN_ENOUGH).sum()), least)


def _same_side(here: Tensor, there: Tensor, cuts: Tensor) -> Tensor:
    """Return which pairs each cut leaves together: ``(pairs, cuts)``."""
    at = _middle(here @ cuts)
    return (here @ cuts > at) == (there @ cuts > at)


class _Sketch:
    """64 cuts per row in eight bytes: most pairs that aren't near are told apart without reading their rows."""

    def __init__(
        self, table: Tensor, scale: Tensor, alive: Ints, here: Tensor, there: Tensor, random: torch.Generator
    ) -> None:
        cuts = _cuts(table.shape[1], 64, random)
        at = _middle(here @ cuts)
        differ = (~_same_side(here, there, cuts)).sum(dim=1)
        self.most = int(differ.double().quantile(0.999).ceil())
        self.passes_here = differ <= self.most
        self.bits = np.zeros(len(table), np.uint64)
        for start in range(0, 64, 16):
            part = slice(start, start + 16)
            codes = _codes(table, scale, alive, cuts[:, part], at[part]).astype(np.uint64)
            self.bits[alive] |= codes << np.uint64(start)

    def may_be_near(self, pairs: Ints) -> Bools:
        """Return which pairs differ in no more cuts than simulated pairs at the threshold do."""
        return np.asarray(np.bitwise_count(self.bits[pairs[:, 0]] ^ self.bits[pairs[:, 1]]) <= self.most)


def _cuts(n_features: int, n_cuts: int, random: torch.Generator) -> Tensor:
    """Return directions ``(features, cuts)``, orthogonal as far as there are dimensions: their buckets are more even."""
    drawn = torch.randn(n_features, n_cuts, generator=random)
    parts = [torch.linalg.qr(drawn[:, start : start + n_features]).Q for start in range(0, n_cuts, n_features)]
    return torch.cat(parts, dim=1)


def _middle(projections: Tensor) -> Tensor:
    """Return where each column is cut: beside its median, since equal rows on the cut itself would be parted by rounding."""
    median = projections.median(dim=0).values
    above = torch.where(projections > median + _ROUNDING, projections, math.inf).amin(dim=0)
    below = torch.where(projections < median - _ROUNDING, projections, -math.inf).amax(dim=0)
    beside = torch.where(above.isfinite(), above, below)
    middle: Tensor = torch.where(beside.isfinite(), (median + beside) / 2, median - 1)
    return middle


def _at_cosine(rows: Tensor, cosine: float, random: torch.Generator) -> Tensor:
    """Return a unit vector at that cosine of each unit row, in a random direction."""
    aside = torch.randn(rows.shape, generator=random)
    aside = aside - (aside * rows).sum(dim=1, keepdim=True) * rows
    aside = aside / aside.norm(dim=1, keepdim=True).clamp(min=1e-12)
    there = cosine * rows + math.sqrt(1 - cosine**2) * aside
    return torch.nn.functional.normalize(there, dim=1)


def _codes(table: Tensor, scale: Tensor, alive: Ints, cuts: Tensor, at: Tensor) -> npt.NDArray[np.int32]:
    """Return the bucket of each row that is alive."""
    weights = torch.pow(2.0, torch.arange(cuts.shape[1]))  # sums below 2**24 are exact
    codes = np.empty(len(alive), np.int32)
    everything = len(alive) == len(table)
    for block in _blocks(len(alive)):
        which: Any = block if everything else torch.from_numpy(alive[block])
        side = (table[which].float() @ cuts) * scale[which, None] > at
        codes[block] = (side.float() @ weights).to(torch.int32).numpy()
    return codes


def _near_the_first(table: Tensor, scale: Tensor, codes: npt.NDArray[np.int32], members: Ints, cosine: float) -> Ints:
    """Return the near pairs of each crowded bucket's first row with the others of it."""
    first = np.flatnonzero(np.diff(codes, prepend=-1))
    sizes = np.diff(first, append=len(codes))
    crowds = sizes > _CROWD
    if not crowds.any():
        return np.zeros((0, 2), np.int64)
    where = np.repeat(crowds, sizes)
    pairs = np.stack([np.repeat(members[first], sizes)[where], members[where]], axis=1)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return np.sort(pairs[cosines(table, scale, pairs) >= cosine], axis=1)


def _near_in_buckets(
    table: Tensor, scale: Tensor, codes: npt.NDArray[np.int32], members: Ints, sketch: _Sketch, cosine: float
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
    near = np.empty(len(pairs), np.float32)
    for block in _blocks(len(pairs)):
        one, other = torch.from_numpy(pairs[block].T.copy())
        dots = torch.linalg.vecdot(table[one].float(), table[other].float())
        near[block] = (dots * scale[one] * scale[other]).numpy()
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
