"""Which examples, as rows of numbers, are nearly another one's, and which one of them stays?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunus.core.errors import DataError, RecipeError
from prunus.score.examples.duplicates.keepers import Duplicates, keep_typical
from prunus.score.examples.duplicates.near_pairs import cosines, inverse_norms, near_pairs

__all__ = ["ROUNDING", "check_amounts", "near_duplicates"]

ROUNDING = 1e-6
"""Cosines are computed in single precision: a row's with itself may be so much below 1."""


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
    check_amounts(cosine, recall)
    least = cosine - ROUNDING
    table = rows.detach().cpu() if isinstance(rows, Tensor) else torch.from_numpy(np.asarray(rows))
    if table.dim() != 2:
        raise DataError(f"near-duplicates are looked for among rows (n, features): got shape {tuple(table.shape)}")
    scale = inverse_norms(table)
    return keep_typical(
        scale.numpy() > 0,
        lambda alive, number: near_pairs(table, scale, alive, least, recall, (seed, number)),
        lambda pairs: cosines(table, scale, pairs),
        least,
    )


def check_amounts(cosine: float, recall: float) -> None:
    """Refuse a threshold or a share out of its range.

    Raises:
        RecipeError: it is.
    """
    if not 0 < cosine <= 1:
        raise RecipeError(f"the least cosine of duplicates must be in (0, 1]: got {cosine!r}")
    if not 0 < recall < 1:
        raise RecipeError(f"the recall of near-duplicates must be in (0, 1): got {recall!r}")
