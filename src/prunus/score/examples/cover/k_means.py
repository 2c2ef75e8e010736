"""Which rows lie together, and around which centres?

k-means: each row belongs to the centre that is nearest, and each centre is the mean of its rows. One pass over the rows is one
matrix product with the centres, in blocks, so memory doesn't grow with the number of rows times the number of centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunus.core.errors import DataError, RecipeError, ShapeError
from prunus.core.runtime import generator
from prunus.core.types import Ints

__all__ = [
    "SETTLED",
    "KMeans",
    "as_finite_table",
    "beginning_rows",
    "beginnings",
    "cluster_sums",
    "k_means",
    "means_of",
    "nearest_centre",
]

_BLOCK = 8192
_SEEDS_PER_CENTRE = 20
"""Centres begin among so many times as many rows, drawn at random."""
SETTLED = 1e-3
"""When no larger share of the rows changes its centre, the centres stay."""


@dataclass(frozen=True, eq=False)
class KMeans:
    """The centres, and to which of them each row belongs.

    Shapes:
        ``centres`` is ``(clusters, features)``, ``cluster`` and ``distance`` (Euclidean, to the own centre) are ``(n,)``.
    """

    centres: Tensor
    cluster: Ints
    distance: npt.NDArray[np.float32]
    n_passes: int


def k_means(rows: Any, n_clusters: int, *, seed: int = 0, noise: Tensor | None = None, max_passes: int = 25) -> KMeans:
    """Return the clusters of rows; the same seed gives the same ones.

    Args:
        rows: ``(n, features)``, an array, a memory map or a tensor.
        n_clusters: from 1 to n; of rows that are equal fewer may come out with any row of their own.
        noise: one random number per row instead of a seed: what begins where hangs on their order alone, so that the same rows in
            another order give the same clusters.
        max_passes: so many times rows are given to centres at most.

    Raises:
        DataError: rows that are no matrix, or aren't finite.
        RecipeError: more clusters than rows, or fewer than one.
        ShapeError: not one random number per row.

    References:
        Lloyd, IEEE Transactions on Information Theory 28(2), 1982; begun as in greedy k-means++ (Arthur and Vassilvitskii, SODA
        2007) among 20 rows per centre.

    >>> found = k_means(np.array([[0.0], [1.0], [9.0], [10.0]]), 2)
    >>> (found.cluster == found.cluster[0]).tolist(), sorted(found.centres.flatten().tolist())
    ([True, True, False, False], [0.5, 9.5])
    """
    table = as_finite_table(rows)
    n = len(table)
    if not 1 <= n_clusters <= n:
        raise RecipeError(f"{n} rows make 1 to {n} clusters: got {n_clusters}")
    if noise is None:
        noise = _noise(n, seed)
    if tuple(noise.shape) != (n,):
        raise ShapeError(f"k-means needs one random number per row, ({n},): got {tuple(noise.shape)}")
    centres = beginnings(table[_first_by(noise, n_clusters)].float(), n_clusters)
    cluster = np.full(n, -1, np.int64)
    for number in range(1, max_passes + 1):
        found, _ = nearest_centre(table, centres)
        n_changed = int(np.count_nonzero(found != cluster))
        cluster = found
        if n_changed <= SETTLED * n and number > 1:
            break
        centres = means_of(*cluster_sums(table, cluster, n_clusters), centres)
    cluster, distance = nearest_centre(table, centres)
    return KMeans(centres, cluster, distance, number)


def nearest_centre(table: Tensor, centres: Tensor) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Return the number of the centre that is nearest to each row, and how far that is (Euclidean).

    Shapes:
        ``table`` is ``(n, features)``, ``centres`` ``(clusters, features)``; the results are ``(n,)``.

    >>> nearest_centre(torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0], [3.0]]))[0].tolist()
    [0, 1]
    """
    # Distances don't change when all move; near the origin their squares lose fewer digits.
    middle = centres.mean(dim=0)
    moved = centres - middle
    half = moved.square().sum(dim=1) / 2
    cluster = torch.empty(len(table), dtype=torch.int64)
    distance = torch.empty(len(table))
    for start in range(0, len(table), _BLOCK):
        block = slice(start, start + _BLOCK)
        rows = table[block].float() - middle
        cluster[block] = torch.addmm(half, rows, moved.T, alpha=-1).min(dim=1).indices
        distance[block] = (rows - moved[cluster[block]]).norm(dim=1)
    return cluster.numpy(), distance.numpy()


def as_finite_table(rows: Any) -> Tensor:
    """Return rows as a matrix on the CPU, without a copy where they are one.

    Raises:
        DataError: they are none, or aren't finite; the first row at fault is named.
    """
    table = rows.detach().cpu() if isinstance(rows, Tensor) else torch.from_numpy(np.asarray(rows))
    if table.dim() != 2:
        raise DataError(f"coverage is judged of rows (n, features): got shape {tuple(table.shape)}")
    for start in range(0, len(table), _BLOCK):
        bad = torch.nonzero(~torch.isfinite(table[start : start + _BLOCK]).all(dim=1)).flatten()
        if len(bad):
            raise DataError(f"coverage needs finite rows: row {start + int(bad[0])} has NaN or infinity")
    return table


def beginning_rows(n: int, n_clusters: int, seed: int) -> Ints:
    """Return the numbers of the rows among which ``k_means`` of so many rows begins."""
    return _first_by(_noise(n, seed), n_clusters).numpy()


def _noise(n: int, seed: int) -> Tensor:
    return torch.rand(n, generator=generator(seed, "k-means"))


def _first_by(noise: Tensor, n_clusters: int) -> Tensor:
    """Return which rows come first by their random numbers, so that their order in the table doesn't matter."""
    return noise.argsort(descending=True, stable=True)[: _SEEDS_PER_CENTRE * n_clusters]


def beginnings(some: Tensor, n_clusters: int) -> Tensor:
    """Return rows that lie apart: each is drawn by its squared distance to those before it, the best of a few draws."""
    draw = generator(0, "k-means", "beginnings")
    picks = [0]
    squared = (some - some[0]).square().sum(dim=1)
    for _ in range(n_clusters - 1):
        chance = squared.double()
        if not bool(chance.sum() > 0):  # all others are equal to a pick
            chance = torch.ones_like(chance)
        tried = torch.multinomial(chance, 2 + int(math.log(n_clusters)), replacement=True, generator=draw)
        left = torch.minimum(
            squared, torch.cdist(some[tried], some, compute_mode="donot_use_mm_for_euclid_dist").square()
        )
        best = int(left.double().sum(dim=1).argmin())
        picks.append(int(tried[best]))
        squared = left[best]
    return some[picks]


def cluster_sums(table: Tensor, cluster: Ints, n_clusters: int) -> tuple[Tensor, Tensor]:
    """Return the sum of each cluster's rows, ``(clusters, features)`` in double precision, and how many they are."""
    total = torch.zeros(n_clusters, table.shape[1], dtype=torch.float64)
    numbers = torch.from_numpy(cluster)
    for start in range(0, len(table), _BLOCK):
        block = slice(start, start + _BLOCK)
        total.index_add_(0, numbers[block], table[block].double())
    return total, torch.bincount(numbers, minlength=n_clusters)


def means_of(total: Tensor, count: Tensor, before: Tensor) -> Tensor:
    """Return the mean of each cluster's rows; a cluster without rows keeps its centre."""
    return torch.where(count[:, None] > 0, (total / count.clamp(min=1)[:, None]).float(), before)
