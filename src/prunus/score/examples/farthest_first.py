"""Which examples cover all others, so that none is far from one of them?

Greedy k-centre: each pick is the row that is farthest from all picks before it, so the largest distance that is left is at most
twice the best possible one. It is exact and lazy: a row's distance to the picks only falls, so what it was long ago is a bound, and
rows whose bound is below the front aren't looked at again.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunus.core.errors import DataError, RecipeError
from prunus.core.types import Ints

__all__ = ["FarthestFirst", "farthest_first"]

_FRONT = 4096
"""About so many rows compete for the next picks at a time."""
_WIDEST = 32768
_BLOCK = 16384
_CELLS = 1 << 22
"""Distances that are held at a time."""


@dataclass(frozen=True)
class FarthestFirst:
    """The picks in their order, and how far each was from those before it.

    Shapes:
        ``order`` and ``distance`` are ``(picks,)``; the distance of the first pick is infinite, the others fall.
    """

    order: Ints
    distance: npt.NDArray[np.float32]
    radius: float
    """No row is further than this from a pick (Euclidean), up to single precision."""


def farthest_first(rows: Any, n_picks: int, *, first: int | None = None) -> FarthestFirst:
    """Return the rows that greedy k-centre picks.

    Args:
        rows: ``(n, features)``, an array, a memory map or a tensor.
        n_picks: how many, from 1 to n.
        first: the row to begin with; None: the one that is nearest to the mean.

    Raises:
        DataError: rows that are no matrix, or aren't finite.
        RecipeError: more picks than rows, or fewer than one.

    References:
        Gonzalez, Theoretical Computer Science 1985 (at most twice the best radius); Sener and Savarese, ICLR 2018,
        arXiv:1708.00489 (as a coreset).

    >>> farthest_first(np.array([[0.0], [1.0], [9.0], [5.0]]), 3, first=0).order.tolist()
    [0, 2, 3]
    """
    table = (rows.detach().cpu() if isinstance(rows, Tensor) else torch.from_numpy(np.asarray(rows))).float()
    if table.dim() != 2:
        raise DataError(f"coverage is judged of rows (n, features): got shape {tuple(table.shape)}")
    n = len(table)
    if not 1 <= n_picks <= n:
        raise RecipeError(f"of {n} rows 1 to {n} can be picked: got {n_picks}")
    centre = _checked_mean(table)
    front = _Front(table, centre, n_picks)
    front.begin(first)
    while len(front.order) < n_picks:
        front.advance()
    return front.result()


def _checked_mean(table: Tensor) -> Tensor:
    total = torch.zeros(table.shape[1], dtype=torch.float64)
    for start in range(0, len(table), _BLOCK):
        block = table[start : start + _BLOCK]
        bad = torch.nonzero(~torch.isfinite(block).all(dim=1)).flatten()
        if len(bad):
            raise DataError(f"coverage needs finite rows: row {start + int(bad[0])} has NaN or infinity")
        total += block.double().sum(dim=0)
    return (total / len(table)).float()


class _Front:
    """The picks so far, and for every row a bound on its squared distance to the nearest of them."""

    def __init__(self, table: Tensor, centre: Tensor, n_picks: int) -> None:
        # Distances don't change when all rows move; near the origin their squares lose fewer digits.
        self.table, self.centre, self.n_picks = table, centre, n_picks
        self.bound = np.full(len(table), np.inf, np.float32)
        self.applied = np.zeros(len(table), np.int32)
        self.picked = torch.empty(n_picks, table.shape[1])
        self.order: list[int] = []
        self.distance: list[float] = []
        self.size = _FRONT

    def begin(self, first: int | None) -> None:
        """Pick the first row."""
        if first is None:
            to_mean = [
                (self.table[start : start + _BLOCK] - self.centre).square().sum(dim=1)
                for start in range(0, len(self.table), _BLOCK)
            ]
            first = int(torch.cat(to_mean).argmin())
        self._pick(first, float("inf"))
        self.refresh(np.arange(len(self.table)))

    def advance(self) -> None:
        """Pick rows as long as no row outside the front can be farther than the farthest one in it."""
        members, level, size = self._front()
        before = len(self.order)
        if len(members):
            self._pick_among(members, level)
        # A front that falls at once was too small.
        fell = len(self.order) - before < size // 16
        self.size = min(size * 2, _WIDEST) if fell else max(size // 2, _FRONT)

    def refresh(self, members: Ints) -> None:
        """Make the bounds of some rows exact."""
        members = members[np.argsort(self.applied[members], kind="stable")]
        step = min(max(_CELLS // max(len(self.order), 1), 64), _BLOCK)
        for start in range(0, len(members), step):
            block = members[start : start + step]
            since = int(self.applied[block[0]])
            if since == len(self.order):
                break
            rows = self.table[torch.from_numpy(block)] - self.centre
            picks = self.picked[since : len(self.order)]
            nearest = torch.addmm(picks.square().sum(dim=1), rows, picks.T, alpha=-2).amin(dim=1)
            squared = (nearest + rows.square().sum(dim=1)).clamp(min=0).numpy()
            self.bound[block] = np.minimum(self.bound[block], squared)
            self.applied[block] = len(self.order)
        self.bound[self.order] = -1.0  # a pick is never picked again

    def _pick_among(self, members: Ints, level: float) -> None:
        rows = self.table[torch.from_numpy(members)] - self.centre
        norms = rows.square().sum(dim=1)
        left = torch.from_numpy(self.bound[members])
        for number in itertools.count(1):
            best = int(left.argmax())
            if float(left[best]) < level or len(self.order) == self.n_picks:
                return
            self._pick(int(members[best]), float(left[best]))
            left = torch.minimum(left, torch.addmv(norms + norms[best], rows, rows[best], alpha=-2))
            left[best] = -1.0
            if number % 32 == 0:
                open_ = left >= level
                if int(open_.sum()) < len(left) * 3 // 4:
                    members, rows, norms, left = members[open_.numpy()], rows[open_], norms[open_], left[open_]
                    if not len(left):
                        return

    def _pick(self, row: int, squared: float) -> None:
        self.picked[len(self.order)] = self.table[row] - self.centre
        self.order.append(row)
        self.distance.append(max(squared, 0.0) ** 0.5)

    def result(self) -> FarthestFirst:
        """Return the picks, and as the radius how far the next one would be."""
        members, _, _ = self._front()
        while not len(members):
            self.size = min(self.size * 2, len(self.bound))
            members, _, _ = self._front()
        radius = max(float(self.bound[members].max()), 0.0) ** 0.5
        return FarthestFirst(np.array(self.order), np.array(self.distance, np.float32), radius)

    def _front(self) -> tuple[Ints, float, int]:
        """Return the rows that may be farthest, now exact, a level that no other row exceeds, and how many were looked at."""
        size = min(self.size, len(self.bound))
        level = float(np.partition(self.bound, len(self.bound) - size)[len(self.bound) - size])
        members = np.flatnonzero(self.bound >= level)
        self.refresh(members)
        return members[self.bound[members] >= level], level, size
