"""What is a score of all examples, if it was computed for a sample of them, and how far off may it be?

A score that changes smoothly over the embedding is the mean of the nearest sampled ones. How far that misses is known where the
score is: each sampled example is foretold from the others, and what is missed nearby is the error here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prunus.core.errors import DataError, ShapeError
from prunus.core.types import Bools, Floats

__all__ = ["Extrapolated", "extrapolate"]

_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Extrapolated:
    """One score for each example, computed or foretold.

    ``error`` is the root mean square of what neighbours miss, 0 where the score was computed; ``explained`` is the share of the
    score's variance in the sample that neighbours foretell: near 0, or below, the score can't be extrapolated.

    Shapes:
        ``value``, ``error`` and ``sampled`` are ``(n,)``.
    """

    value: Floats
    error: Floats
    sampled: Bools
    explained: float


def extrapolate(values: Floats, rows: Tensor, embedding: Tensor, *, n_neighbours: int = 10) -> Extrapolated:
    """Return the scores of all examples by k-nearest-neighbour regression on those of a sample; exact, in bounded memory.

    Args:
        values: the scores of the sample.
        rows: which examples the sample is, as places in ``embedding``.
        embedding: where each example lies; distances are Euclidean.

    Shapes:
        ``values`` and ``rows`` ``(m,)``, ``embedding`` ``(n, features)``.
    Raises:
        ShapeError: not one value per row of the sample, or a row that isn't there.
        DataError: fewer sampled examples than two more than the neighbours, one that is there twice, or a number that isn't finite.

    >>> found = extrapolate(np.array([0.0, 0.0, 6.0, 6.0]), torch.tensor([0, 1, 3, 4]), Tensor([[0], [1], [2], [8], [9]]),
    ...                     n_neighbours=2)
    >>> found.value.tolist()
    [0.0, 0.0, 0.0, 6.0, 6.0]
    """
    n, m = len(embedding), len(rows)
    if values.shape != (m,) or embedding.ndim != 2 or (m and not 0 <= int(rows.min()) <= int(rows.max()) < n):
        raise ShapeError(
            f"expected a value for each of {m} rows, and rows of an embedding ({n}, features): got values {values.shape} and an "
            f"embedding {tuple(embedding.shape)}"
        )
    if m < n_neighbours + 2 or n_neighbours < 1:
        raise DataError(f"{n_neighbours} neighbours need a sample of at least {n_neighbours + 2} examples: got {m}")
    sampled = torch.zeros(n, dtype=torch.bool)
    sampled[rows] = True
    if int(sampled.sum()) != m:
        raise DataError("an example stands in the sample twice: give each one score")
    known = torch.from_numpy(np.asarray(values, np.float64))
    places = embedding.detach().float().cpu()
    if not bool(known.isfinite().all()) or not bool(places.isfinite().all()):
        raise DataError("scores and embeddings must be finite: got NaN or infinity")
    # Distances don't change when all rows move; near the origin their squares lose fewer digits.
    own = places[rows]
    middle = own.mean(dim=0)
    own = own - middle
    offset = own.square().sum(dim=1) / 2

    def nearest(block: Tensor, itself: Tensor | None = None) -> Tensor:
        closeness = block @ own.T - offset
        if itself is not None:
            closeness[torch.arange(len(block)), itself] = float("-inf")
        return closeness.topk(n_neighbours, dim=1).indices

    missed = torch.empty(m, dtype=torch.float64)
    for block in torch.split(torch.arange(m), _BLOCK):
        missed[block] = known[block] - known[nearest(own[block], block)].mean(dim=1)
    squares = missed.square()
    value, error = torch.empty(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for block in torch.split((~sampled).nonzero().flatten(), _BLOCK):
        near = nearest(places[block] - middle)
        value[block] = known[near].mean(dim=1)
        error[block] = squares[near].mean(dim=1).sqrt()
    value[rows] = known
    spread = float((known - known.mean()).square().sum())
    explained = 1 - float(squares.sum()) / spread if spread else 1.0
    return Extrapolated(value.numpy(), error.numpy(), sampled.numpy(), explained)
