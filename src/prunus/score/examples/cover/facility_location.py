"""Which examples should stay, so that each one has a near one among them?

Facility location: a pick is worth what it brings all rows nearer to the picks. Greedy picks reach at least 1 - 1/e of the best that
so many can. It is lazy: what a row would bring only falls, so what it was long ago is a bound, and a row is looked at again only
when that bound is the highest one. Distances are whole numbers of small steps, so sums are exact and ties are ties in any order.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunus.core.errors import RecipeError
from prunus.core.types import Floats, Ints
from prunus.score.examples.cover.k_means import as_finite_table
from prunus.score.examples.neighbours import nearest_neighbours

__all__ = ["FacilityLocation", "facility_location"]

_NEIGHBOURS = 64
_BLOCK = 4096
_STEPS = 1 << 24
"""The largest distance has so many steps."""


@dataclass(frozen=True, eq=False)
class FacilityLocation:
    """The picks in their order, and what each of them brought.

    Shapes:
        ``order`` and ``gain`` are ``(picks,)``; gains fall.
    Units:
        ``covered`` is the sum of the gains as a share of what all rows together would bring, in [0, 1].
    """

    order: Ints
    gain: Floats
    covered: float


def facility_location(rows: Any, n_picks: int, *, n_neighbours: int = _NEIGHBOURS) -> FacilityLocation:
    """Return the rows that greedy facility location picks.

    A row is served by a pick among its nearest neighbours, the better the nearer it is; farther ones than those count as none.
    With as many neighbours as there are other rows this is the sum of distances to the nearest pick, as in k-medoids. On a tie the
    row that is nearer to the mean comes first.

    Args:
        rows: ``(n, features)``, an array or a tensor.
        n_picks: how many, from 1 to n.
        n_neighbours: to each side of how many a row's sight ends: fewer cost less memory; take several times n / picks.

    Raises:
        DataError: rows that are no matrix, or aren't finite.
        RecipeError: more picks than rows, or fewer than one, or no neighbours.

    References:
        Nemhauser, Wolsey and Fisher, Mathematical Programming 14, 1978 (the bound); Minoux, 1978 (lazy); as a coreset: Wei, Iyer
        and Bilmes, ICML 2015, and CRAIG (Mirzasoleiman et al., ICML 2020, arXiv:1906.01827), who compare all pairs.

    >>> facility_location(np.array([[0.0], [1.0], [2.0], [9.0]]), 2).order.tolist()
    [2, 3]
    """
    table = as_finite_table(rows)
    n = len(table)
    if not 1 <= n_picks <= n:
        raise RecipeError(f"of {n} rows 1 to {n} can be picked: got {n_picks}")
    if n == 1:
        return FacilityLocation(np.zeros(1, np.int64), np.zeros(1), 1.0)
    served = _Served.of(table, nearest_neighbours(table, n_neighbours, metric="euclidean"))
    to_mean = (table - table.double().mean(dim=0)).norm(dim=1)
    order, gain = served.greedy(n_picks, to_mean.argsort(stable=True).argsort().tolist())
    total = int(served.most.sum(dtype=np.int64))
    return FacilityLocation(order, gain.astype(np.float64) * served.step, int(gain.sum()) / total if total else 1.0)


@dataclass(frozen=True, eq=False)
class _Served:
    """Which rows a pick would serve, and how well: those of row j stand from ``start[j]`` to ``start[j + 1]``."""

    row: npt.NDArray[np.int32]
    worth: npt.NDArray[np.int32]
    start: Ints
    most: npt.NDArray[np.int32]
    step: float

    @classmethod
    def of(cls, table: Tensor, near: Tensor) -> _Served:
        n, k = near.shape
        distance = torch.empty(n, k)
        for first in range(0, n, _BLOCK):
            block = slice(first, first + _BLOCK)
            for column in range(k):
                distance[block, column] = (table[block].float() - table[near[block, column]].float()).norm(dim=1)
        step = max(float(distance.max()), 1e-30) / _STEPS
        steps = (distance / step).round_().to(torch.int32)
        sight = steps.amax(dim=1)
        # A row serves itself, as well as can be.
        pick = torch.cat([torch.arange(n)[:, None], near], dim=1).to(torch.int32).flatten().numpy()
        worth = torch.cat([sight[:, None], sight[:, None] - steps], dim=1).flatten()
        order = torch.from_numpy(np.argsort(pick, kind="stable"))
        start = np.concatenate([[0], np.cumsum(np.bincount(pick, minlength=n))]).astype(np.int64)
        return cls((order // (k + 1)).to(torch.int32).numpy(), worth[order].numpy(), start, sight.numpy(), step)

    def greedy(self, n_picks: int, rank: list[int]) -> tuple[Ints, Ints]:
        """Return the picks and what each brought, in steps; on a tie the row of the lower rank."""
        best = np.zeros(len(self.most), np.int32)
        sums = np.add.reduceat(self.worth, self.start[:-1], dtype=np.int64)
        heap = [(-value, rank[j], j) for j, value in enumerate(sums.tolist())]
        heapq.heapify(heap)
        order, gain = np.empty(n_picks, np.int64), np.empty(n_picks, np.int64)
        for number in range(n_picks):
            while True:
                _, _, j = heap[0]
                part = slice(self.start[j], self.start[j + 1])
                more = self.worth[part] - best[self.row[part]]
                value = int(np.maximum(more, 0, out=more).sum(dtype=np.int64))
                if len(heap) == 1 or (-value, rank[j], j) <= min(heap[1:3]):
                    break
                heapq.heapreplace(heap, (-value, rank[j], j))
            heapq.heappop(heap)
            order[number], gain[number] = j, value
            best[self.row[part]] = np.maximum(best[self.row[part]], self.worth[part])
        return order, gain
