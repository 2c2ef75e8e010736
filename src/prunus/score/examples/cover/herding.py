"""Which examples, picked one by one, have the mean of all at every step?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from prunus.core.errors import RecipeError
from prunus.core.types import Ints
from prunus.score.examples.cover.k_means import as_finite_table

__all__ = ["herding"]


def herding(rows: Any, n_picks: int) -> Ints:
    """Return the rows in the order in which herding picks them: each brings the mean of the picks as near to that of all as it can.

    Every pick looks at all rows that are left, so the cost grows with rows times picks.

    Args:
        rows: ``(n, features)``, an array or a tensor.
        n_picks: how many, from 1 to n.

    Raises:
        DataError: rows that are no matrix, or aren't finite.
        RecipeError: more picks than rows, or fewer than one.

    References:
        Welling, ICML 2009; without taking a row twice, and by the distance of the means, as in iCaRL (Rebuffi et al., CVPR 2017,
        arXiv:1611.07725).

    >>> herding(np.array([[0.0], [1.0], [5.0]]), 3).tolist()  # their mean is 2
    [1, 2, 0]
    """
    table = as_finite_table(rows)
    n = len(table)
    if not 1 <= n_picks <= n:
        raise RecipeError(f"of {n} rows 1 to {n} can be picked: got {n_picks}")
    left = (table - table.double().mean(dim=0)).float()
    half, at = left.square().sum(dim=1) / 2, torch.arange(n)
    open_ = torch.ones(n, dtype=torch.bool)
    # With the mean of all at the origin, the picks' sum is what the next pick should undo.
    total = torch.zeros(left.shape[1], dtype=torch.float64)
    order = np.empty(n_picks, np.int64)
    for number in range(n_picks):
        closeness = torch.addmv(half, left, total.float(), alpha=1)  # half of |row + total|^2, but for what all share
        closeness[~open_] = torch.inf
        pick = int(closeness.argmin())
        order[number] = at[pick]
        total += left[pick].double()
        open_[pick] = False
        if number % 64 == 63 and int(open_.sum()) < len(open_) * 3 // 4:
            left, half, at = left[open_], half[open_], at[open_]
            open_ = torch.ones(len(left), dtype=torch.bool)
    return order
