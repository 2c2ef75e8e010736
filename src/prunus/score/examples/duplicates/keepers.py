"""Of rows that are alike, which one stays and stands for the others?

The most typical stays: the one that has most others near it. What goes is near a row that stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.core.types import Bools, Ints

__all__ = ["Duplicates", "Singles", "keep_typical"]

Singles = npt.NDArray[np.float32]
Similarities = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Duplicates:
    """Which rows go, and for which kept row.

    Shapes:
        All ``(n,)``. ``keeper`` is the number of the kept row that stands for a row (a kept row stands for itself), ``similarity``
        that of both: their cosine or their Jaccard similarity (1 for a kept row).
    """

    keeper: Ints
    similarity: Singles
    recall: float
    """The share of pairs at the threshold that is found: measured on simulated ones, or computed."""

    @property
    def kept(self) -> Bools:
        """Which rows stay: ``(n,)``."""
        return np.asarray(self.keeper == np.arange(len(self.keeper)))

    @property
    def cosine(self) -> Singles:
        """The similarity, by its name where rows are vectors."""
        return self.similarity


def keep_typical(
    comparable: Bools,
    near_pairs: Callable[[Ints, int], tuple[Ints, Similarities, float, bool]],
    similarities: Callable[[Ints], Similarities],
    least: float,
    *,
    weight: Ints | None = None,
) -> Duplicates:
    """Return which rows stay, so that no two that stay are near and each that goes is near its keeper.

    Args:
        comparable: which rows are like any other at all, ``(n,)``.
        near_pairs: from the numbers of the rows to compare and the number of the round to the near pairs ``(pairs, 2)``, their
            similarities, the recall, and whether there may be more.
        similarities: of each of some pairs.
        least: the similarity from which on two rows are near.
        weight: how many examples a row stands for already, ``(n,)``; default one each.
    """
    n = len(comparable)
    itself = np.arange(n, dtype=np.int64)
    keeper, similarity = itself.copy(), np.ones(n, np.float32)
    priority: Ints | None = None
    recall, number, unsettled = 1.0, 0, True
    while unsettled:
        pairs, near, recall, unsettled = near_pairs(np.flatnonzero((keeper == itself) & comparable), number)
        if not len(pairs):
            break
        if priority is None:
            priority = _ranks(_n_near(pairs, n, weight))
        gone = _settle(pairs, near, priority, keeper, similarity)
        # Who stood for others and goes now leaves them to its own keeper, if that is near enough; else they are judged again.
        left = np.flatnonzero(gone[keeper] & ~gone)
        heirs = np.stack([left, keeper[keeper[left]]], axis=1)
        near = similarities(heirs)
        orphans = left[near < least]
        keeper[left], similarity[left] = heirs[:, 1], near
        keeper[orphans], similarity[orphans] = orphans, 1.0
        unsettled, number = unsettled or len(orphans) > 0, number + 1
    return Duplicates(keeper, similarity, recall)


def _n_near(pairs: Ints, n: int, weight: Ints | None) -> Ints:
    """Return how many other examples are near each row."""
    if weight is None:
        return np.bincount(pairs.reshape(-1), minlength=n)
    others = np.bincount(pairs.reshape(-1), weights=weight[pairs[:, ::-1]].reshape(-1), minlength=n)
    return np.asarray(others.astype(np.int64) + weight - 1)


def _ranks(n_near: Ints) -> Ints:
    """Return a priority per row, all different: more near ones first, then the lower row number."""
    order = np.lexsort((np.arange(len(n_near)), -n_near))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))[::-1]
    return ranks


def _settle(pairs: Ints, near: Similarities, priority: Ints, keeper: Ints, similarity: Singles) -> Bools:
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
