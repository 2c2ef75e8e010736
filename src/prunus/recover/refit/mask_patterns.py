"""Which weights of one matrix stay: a share of them all, a share of each row, or N of every M neighbours?

N:M means N *kept* of M, along the input dimension, as the hardware's 2:4 has it. Counts are exact, and ties keep the lower index.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from prunus.core.errors import RecipeError
from prunus.select import check_keep_fraction

__all__ = ["check_amount", "check_pattern", "keep_top", "largest"]

Within = Literal["row", "matrix"]

_NARROW = 8
"""Up to this many neighbours are compared pair by pair."""


def check_amount(keep_fraction: float | None, n_m: tuple[int, int] | None) -> None:
    """Refuse anything but one amount: a keep fraction in (0, 1], or N:M with 1 <= N <= M.

    Raises:
        RecipeError: none, both, or one out of range.
    """
    if (keep_fraction is None) == (n_m is None):
        raise RecipeError(f"give exactly one of keep_fraction and n_m: got {keep_fraction=} and {n_m=}")
    if keep_fraction is not None:
        check_keep_fraction(keep_fraction)
    if n_m is not None and not 1 <= n_m[0] <= n_m[1]:
        raise RecipeError(f"n_m must be N kept of M, 1 <= N <= M, like (2, 4): got {n_m}")


def check_pattern(fan_in: int, n_m: tuple[int, int], where: str = "the weight") -> None:
    """Refuse a number of inputs that M doesn't divide.

    Raises:
        RecipeError: it says what divides.
    """
    if fan_in % n_m[1]:
        raise RecipeError(
            f"{n_m[0]}:{n_m[1]} needs a number of inputs that {n_m[1]} divides: {where} has {fan_in}; "
            "exclude it or choose another M"
        )


def keep_top(
    saliency: Tensor, *, keep_fraction: float | None = None, n_m: tuple[int, int] | None = None, within: Within = "row"
) -> Tensor:
    """Return which weights have the highest saliency, among their row, their matrix, or their M neighbours.

    Shapes:
        ``saliency`` is ``(units, fan_in)``, and so is the result.

    Raises:
        RecipeError: not exactly one amount, or M doesn't divide the fan-in.

    >>> keep_top(torch.tensor([[1.0, 4.0, 3.0, 2.0]]), n_m=(1, 2))
    tensor([[False,  True,  True, False]])
    >>> keep_top(torch.tensor([[1.0, 4.0], [5.0, 6.0]]), keep_fraction=0.5, within="matrix")
    tensor([[False, False],
            [ True,  True]])
    """
    check_amount(keep_fraction, n_m)
    if n_m is not None:
        check_pattern(saliency.shape[1], n_m)
        return _top(saliency.reshape(-1, n_m[1]), n_m[0]).view_as(saliency)
    assert keep_fraction is not None
    rows = saliency if within == "row" else saliency.reshape(1, -1)
    return _top(rows, round(keep_fraction * rows.shape[1])).view_as(saliency)


def _top(rows: Tensor, count: int) -> Tensor:
    """Return a mask of the ``count`` highest of each row; ties keep the lower index."""
    size = rows.shape[1]
    if not 0 < count < size:
        return torch.full_like(rows, count > 0, dtype=torch.bool)
    if size <= _NARROW:
        return _top_of_few(rows, count)
    threshold = largest(rows, count)
    keep = ~(rows <= threshold)
    ties = rows == threshold
    room = count - keep.sum(dim=1, keepdim=True)
    if not torch.equal(ties.sum(dim=1, keepdim=True), room):
        ties &= ties.cumsum(dim=1) <= room
    return keep.logical_or_(ties)


def largest(rows: Tensor, count: int) -> Tensor:
    """Return the ``count``-th largest of each row, ``(rows, 1)``."""
    place = rows.shape[1] - count
    if rows.device.type != "cpu":
        if len(rows) == 1:  # selecting from one row keeps a few of the device's processors busy, sorting it all of them
            return rows.sort(dim=1).values[:, place : place + 1]
        return rows.kthvalue(place + 1, dim=1, keepdim=True).values
    # NumPy partitions ten times as fast as torch does; single precision orders like half does.
    values = rows.detach().to(torch.promote_types(rows.dtype, torch.float32)).numpy()
    return torch.from_numpy(np.partition(values, place, axis=1)[:, place : place + 1]).to(rows.dtype)


def _top_of_few(rows: Tensor, count: int) -> Tensor:
    """Return the mask by counting what is ahead of each: of two, one is, so that every pair is compared once."""
    places = rows.t().contiguous()
    ahead = torch.zeros(places.shape, dtype=torch.uint8, device=rows.device)
    for i, left in enumerate(places):
        for j in range(i + 1, len(places)):
            first = left >= places[j]
            ahead[j] += first
            ahead[i] += ~first
    return (ahead < count).t().contiguous()
