"""Which examples say nearly the same as another one, and which one of them stays?

Of rows that are near each other the most typical stays: the one that has most others near it. What goes is near a row that stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunus.core.errors import DataError, RecipeError
from prunus.core.types import Bools, Ints
from prunus.score.examples.near_pairs import cosines, inverse_norms, near_pairs

__all__ = ["Duplicates", "near_duplicates"]

_ROUNDING = 1e-6
"""Cosines are computed in single precision: a row's with itself may be so much below 1."""


@dataclass(frozen=True)
class Duplicates:
    """Which rows go, and for which kept row.

    Shapes:
        All ``(n,)``. ``keeper`` is the number of the kept row that stands for a row (a kept row stands for itself), ``cosine`` the
        similarity of both (1 for a kept row).
    """

    keeper: Ints
    cosine: npt.NDArray[np.float32]
    recall: float
    """The share of simulated pairs at the threshold that met."""

    @property
    def kept(self) -> Bools:
        """Which rows stay: ``(n,)``."""
        return np.asarray(self.keeper == np.arange(len(self.keeper)))


def near_duplicates(rows: Any, *, cosine: float = 0.99, recall: float = 0.99, seed: int = 0) -> Duplicates:
    """Return which rows are near-duplicates of a row that stays.

    No row that goes is further from its keeper than the threshold, and no two rows that stay are nearer, but for pairs missed.

    Args:
        rows: ``(n, features)``, an array, a memory map or a tensor; a row of zeros is a duplicate of nothing.
        cosine: the least similarity of duplicates, in (0, 1].
        recall: the share of pairs at the threshold to find, in (0, 1).
        seed: of the random cuts.

    Raises:
        DataError: rows that are no matrix, or aren't finite.
        RecipeError: a threshold or share out of its range.

    References:
        Charikar, STOC 2002: random hyperplanes. Here a cut goes through the median of the projections instead of through zero, so
        that embeddings that all point the same way are parted, too; the loss in recall is measured, not derived.

    >>> near_duplicates(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.01]])).keeper.tolist()
    [0, 1, 0]
    """
    if not 0 < cosine <= 1:
        raise RecipeError(f"the least cosine of duplicates must be in (0, 1]: got {cosine!r}")
    if not 0 < recall < 1:
        raise RecipeError(f"the recall of near-duplicates must be in (0, 1): got {recall!r}")
    least = cosine - _ROUNDING
    table = rows.detach().cpu() if isinstance(rows, Tensor) else torch.from_numpy(np.asarray(rows))
    if table.dim() != 2:
        raise DataError(f"near-duplicates are looked for among rows (n, features): got shape {tuple(table.shape)}")
    scale = inverse_norms(table)
    n = len(table)
    itself = np.arange(n, dtype=np.int64)
    keeper, similarity = itself.copy(), np.ones(n, np.float32)
    priority: Ints | None = None
    met, number, unsettled = 1.0, 0, True
    while unsettled:
        alive = np.flatnonzero((keeper == itself) & (scale.numpy() > 0))
        pairs, near, met, crowded = near_pairs(table, scale, alive, least, recall, (seed, number))
        if not len(pairs):
            break
        if priority is None:
            priority = _ranks(np.bincount(pairs.reshape(-1), minlength=n))
        gone = _settle(pairs, near, priority, keeper, similarity)
        # Who stood for others and goes now leaves them to its own keeper, if that is near enough; else they are judged again.
        left = np.flatnonzero(gone[keeper] & ~gone)
        heirs = np.stack([left, keeper[keeper[left]]], axis=1)
        near = cosines(table, scale, heirs)
        orphans = left[near < least]
        keeper[left], similarity[left] = heirs[:, 1], near
        keeper[orphans], similarity[orphans] = orphans, 1.0
        unsettled, number = crowded or len(orphans) > 0, number + 1
    return Duplicates(keeper, similarity, met)


def _ranks(n_duplicates: Ints) -> Ints:
    """Return a priority per row, all different: more duplicates first, then the lower row number."""
    order = np.lexsort((np.arange(len(n_duplicates)), -n_duplicates))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))[::-1]
    return ranks


def _settle(
    pairs: Ints, near: npt.NDArray[np.float32], priority: Ints, keeper: Ints, similarity: npt.NDArray[np.float32]
) -> Bools:
    """Decide every row of the pairs by priority, write who stands for whom, and return who goes: ``(n,)``.

    A row stays when no row of higher priority that stays is near it: what a loop in the order of priority would decide.
    """
    n = len(keeper)
    one, other = np.concatenate([pairs, pairs[:, ::-1]]).T
    near = np.concatenate([near, near])
    undecided, gone = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    undecided[one] = True
    while undecided.any():
        rival = np.full(n, -1, np.int64)
        open_ = undecided[one] & undecided[other]
        np.maximum.at(rival, one[open_], priority[other[open_]])
        stays = undecided & (priority > rival)
        undecided &= ~stays
        falls = stays[other] & undecided[one]
        # The last write wins: with the nearest pair last, a row goes for the nearest of those that stay.
        by_near = np.flatnonzero(falls)[np.argsort(near[falls], kind="stable")]
        keeper[one[by_near]], similarity[one[by_near]] = other[by_near], near[by_near]
        gone[one[by_near]] = True
        undecided &= ~gone
    return gone
