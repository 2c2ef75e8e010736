"""Criteria that compare a unit with the others of its tensor: how much of the whole is it, and could the others stand in for it?

Both read nothing but the weights, and judge all units of a tensor together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.data.sources.source import row_chunks
from prunus.score.criteria.criterion import WIDTHS, criterion

__all__ = ["fpgm", "lamp"]

_PAIRS_AT_ONCE = 2**22
"""How many distances are held at a time: 16 MiB in single precision."""


@criterion(
    "lamp", needs=("weight",), granularities=("weight", *WIDTHS), reference="Lee et al., ICLR 2021, arXiv:2010.07611"
)
def lamp(weight: Tensor) -> Tensor:
    """Return each unit's squared norm as a share of all in its tensor that are as large or larger.

    Units:
        In [0, 1]; the largest of a tensor has 1, so that one ranking over all layers (``allocation: global``, ``normalize: none``)
        never empties a layer.
    References:
        Lee et al., ICLR 2021, arXiv:2010.07611. Equal weights get equal scores here, where the paper orders them by index.

    >>> lamp(torch.tensor([[1.0], [-2.0], [2.0]]))
    tensor([0.1111, 0.5000, 0.5000])
    """
    squares = weight.reshape(weight.shape[0], -1).double().square().sum(dim=1)
    falling = squares.sort(descending=True).values
    no_smaller = falling.cumsum(0)[torch.searchsorted(-falling, -squares, right=True) - 1]
    return torch.where(no_smaller > 0, squares / no_smaller, 0).to(weight.dtype)


@criterion(
    "fpgm", needs=("weight",), granularities=("weight", *WIDTHS), reference="He et al., CVPR 2019, arXiv:1811.00250"
)
def fpgm(weight: Tensor) -> Tensor:
    """Return the sum of each unit's distances to all others of its tensor: near the geometric median, others can stand in.

    Units:
        Those of the weights. A unit of zeros isn't the least by itself: only what lies amid the others is.
    References:
        He et al., CVPR 2019, arXiv:1811.00250.

    >>> fpgm(torch.tensor([[0.0], [1.0], [5.0]]))
    tensor([6., 5., 9.])
    """
    rows = weight.reshape(weight.shape[0], -1)
    if rows.shape[1] == 1:
        return _distances_on_a_line(rows.flatten())
    step = max(1, _PAIRS_AT_ONCE // len(rows))
    # The direct distances: by way of inner products near neighbours would drown in rounding.
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cat([torch.cdist(part, rows, compute_mode=exact).sum(dim=1) for part in row_chunks(rows, step)])


def _distances_on_a_line(values: Tensor) -> Tensor:
    """Sum |x - y| over all y for every x, by sorting: n log n, where pairs would be n squared."""
    n = len(values)
    ordered, order = values.double().sort()
    before = torch.arange(n, device=values.device)
    below = ordered.cumsum(0) - ordered
    above = ordered.sum() - below - ordered
    sums = torch.empty_like(ordered)
    sums[order] = (ordered * before - below) + (above - ordered * (n - 1 - before))
    return sums.clamp_min(0).to(values.dtype)
