"""How do a batch norm's running statistics follow a cut?

Not by being measured anew: those of a trained model needn't be what one set of examples shows (a slow momentum, small batches,
other data), and a model that lost nothing would change. What counts is the *difference* that the cut makes on the same examples.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["Spread", "follow"]

_CONSTANT = 1e-6
"""Below this share of its variance a channel counts as constant: nothing tells how it should be scaled."""


class Spread:
    """Running mean and variance of each channel, over all batches."""

    def __init__(self) -> None:
        self._count = 0
        self._mean: Tensor = torch.zeros(())
        self._squares: Tensor = torch.zeros(())

    def add(self, values: Tensor) -> None:
        """Take in values with the channels along dimension 1."""
        rows = values.detach().double().transpose(0, 1).flatten(1)
        count, mean = rows.shape[1], rows.mean(dim=1)
        squares = (rows - mean.unsqueeze(1)).square().sum(dim=1)
        if self._count == 0:
            self._count, self._mean, self._squares = count, mean, squares
            return
        total, step = self._count + count, mean - self._mean
        self._squares = self._squares + squares + step.square() * (self._count * count / total)
        self._mean = self._mean + step * (count / total)
        self._count = total

    @property
    def mean(self) -> Tensor:
        """The mean of each channel, in double precision."""
        return self._mean

    @property
    def variance(self) -> Tensor:
        """The variance of each channel, in double precision."""
        return self._squares / max(self._count, 1)


@torch.no_grad()
def follow(norm: Any, now: Spread, before: Spread) -> None:
    """Move the statistics so that every channel comes out with the mean and the spread that it had before the cut.

    Let ``m, s²`` be a channel's moments now, ``m₀, s₀²`` before, and ``r, v`` the running statistics. The outputs have the moments
    that they had if ``(m - r') / sqrt(v' + eps) = (m₀ - r) / sqrt(v + eps)`` and the same holds for the spreads. So, with
    ``q = s / s₀``, ``v' + eps = q² (v + eps)`` and ``r' = r + (m - m₀) + (1 - q) (m₀ - r)``. Where nothing changed, q is 1 and both
    stay bit for bit; where the running statistics were those of these examples, this is measuring them anew. A channel that is or
    was constant keeps its scale, and follows in its mean.
    """
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    least = _CONSTANT * (variance + norm.eps)
    known = (now.variance > least) & (before.variance > least)
    square = torch.where(known, now.variance / before.variance.clamp_min(1e-300), 1.0)
    moved = mean + (now.mean - before.mean) + (1 - square.sqrt()) * (before.mean - mean)
    scaled = (variance * square + norm.eps * (square - 1)).clamp_min(0)
    norm.running_mean.copy_(moved)
    norm.running_var.copy_(scaled)
