"""Which labels do the model and the neighbours both contradict?

A new label is suggested only where the model is confident in it *and* enough of the nearest neighbours carry it. A model
remembers the labels that it trained on, wrong ones too: give probabilities of models that did not see the example (out of
fold) where there is time for it, or those averaged over a short training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prunus.core.errors import DataError, RecipeError, ShapeError
from prunus.core.types import Decision, Step

if TYPE_CHECKING:
    from prunus.core.recipes.recipe import Relabel
    from prunus.data import Examples

__all__ = ["nearest_neighbours", "suggest_labels"]

_BLOCK = 256
_CELLS = 1 << 25
"""So many numbers are held at a time, or one row's."""
_MEMBERS, _LANES = 16, 128
"""Columns are looked at in tiles of so many groups (lanes) of so many members."""


def suggest_labels(
    probability: Tensor,
    embedding: Tensor,
    examples: Examples,
    config: Relabel,
    *,
    metric: Literal["cosine", "euclidean"] = "cosine",
) -> Step:
    """Return a step that relabels the examples whose label is contradicted.

    In its one decision every example is a unit. The saliency is the probability of the given label minus that of the best
    other one; ``keep`` is False where the label is replaced, and there ``before`` and ``after`` hold the class numbers.

    Shapes:
        ``probability`` is ``(n, classes)``, ``embedding`` ``(n, features)``.

    Raises:
        DataError: the examples have no classes.
        ShapeError: the evidence is of another number of examples.
    """
    if not examples.task.exclusive:
        raise DataError("relabel needs classes: got a regression target; leave out examples.relabel")
    n = len(examples)
    if probability.ndim != 2 or len(probability) != n or len(embedding) != n:
        raise ShapeError(
            f"relabel needs probabilities ({n}, classes) and {n} embeddings: "
            f"got {tuple(probability.shape)} and {tuple(embedding.shape)}"
        )
    probability, given = probability.detach().double().cpu(), examples.targets.cpu()
    confidence, best = probability.max(dim=1)
    neighbours = nearest_neighbours(embedding, config.neighbours, metric=metric)
    agreement = (given[neighbours] == best[:, None]).double().mean(dim=1)
    # Counting votes is exact, the share may be off by a rounding error: 7 of 10 must reach 0.7.
    agreed = agreement >= config.agreement - 1e-9
    change = ((best != given) & (confidence >= config.confidence) & agreed).numpy()

    own = probability.gather(1, given[:, None])[:, 0]
    rival = probability.scatter(1, given[:, None], -1.0).amax(dim=1)
    reason = np.full(n, "kept", object)
    for i in np.flatnonzero(change).tolist():
        reason[i] = (
            f"model {confidence[i]:.2f} and {agreement[i]:.0%} of {neighbours.shape[1]} neighbours say otherwise"
        )
    decision = Decision(
        "all",
        np.arange(n, dtype=np.int64),
        (own - rival).numpy(),
        ~change,
        reason,
        label=np.array(examples.ids, object),
        before=np.where(change, given.double().numpy(), np.nan),
        after=np.where(change, best.double().numpy(), np.nan),
    )
    return Step("relabel", "example", "neighbours", (decision,), config.model_dump() | {"metric": metric})


def nearest_neighbours(embedding: Tensor, n_neighbours: int, *, metric: Literal["cosine", "euclidean"]) -> Tensor:
    """Return the positions of the nearest other rows, nearest first; exact, in blocks of bounded memory.

    Shapes:
        ``embedding`` is ``(n, features)``; the result is ``(n, min(n_neighbours, n - 1))``.

    Raises:
        RecipeError: fewer than one neighbour is asked for, or an unknown metric.
        DataError: there is no other row, or an embedding isn't finite.

    >>> nearest_neighbours(torch.tensor([[0.0], [1.0], [5.0]]), 1, metric="euclidean").flatten().tolist()
    [1, 0, 1]
    """
    if n_neighbours < 1 or metric not in ("cosine", "euclidean"):
        raise RecipeError(f"neighbours must be >= 1 by cosine or euclidean distance: got {n_neighbours} by {metric!r}")
    n = len(embedding)
    if n < 2:
        raise DataError(f"neighbours need at least two examples: got {n}")
    rows = embedding.detach().float().reshape(n, -1)
    bad = torch.nonzero(~torch.isfinite(rows).all(dim=1)).flatten()
    if len(bad):
        raise DataError(f"neighbours need finite embeddings: example {int(bad[0])} has NaN or infinity")
    if metric == "cosine":
        rows, offset = functional.normalize(rows, dim=1), torch.zeros(n, device=rows.device)
    else:
        # Distances don't change when all rows move; near the origin their squares lose fewer digits.
        rows = rows - rows.mean(dim=0)
        offset = rows.square().sum(dim=1) / 2
    n_tiles = -(-n // (_MEMBERS * _LANES))
    size = min(_BLOCK, n, max(_CELLS // n, 1))
    # One block's closeness to all rows, in tiles; what is behind the last row is never near.
    room = torch.full((size, n_tiles, _MEMBERS, _LANES), float("-inf"), device=rows.device)
    blocks = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    return torch.cat(
        [_nearest(rows, offset, block, min(n_neighbours, n - 1), room[: n - block.start]) for block in blocks]
    )


def _nearest(rows: Tensor, offset: Tensor, block: slice, k: int, closeness: Tensor) -> Tensor:
    """Return the k nearest other rows of each in a block, nearest first.

    The nearest rows lie in those k groups of columns whose nearest member is nearest, so most columns are never ranked.
    """
    n, (_, n_tiles, members, lanes) = len(rows), closeness.shape
    flat, best = closeness.flatten(1), torch.empty(len(closeness), n_tiles, lanes, device=rows.device)
    for tile in range(n_tiles):
        columns = slice(tile * members * lanes, min((tile + 1) * members * lanes, n))
        flat[:, columns] = rows[block] @ rows[columns].T - offset[columns]
        first, last = max(block.start, columns.start), min(block.stop, columns.stop)
        if first < last:
            flat[first - block.start : last - block.start, first:last].fill_diagonal_(float("-inf"))
        best[:, tile] = closeness[:, tile].amax(dim=1)
    if n_tiles * lanes <= 2 * k:
        return flat.topk(k, dim=1).indices.cpu()
    group = best.flatten(1).topk(k, dim=1, sorted=False).indices[:, :, None]
    # Group g of lane l holds the columns l, l + lanes, ... of its tile.
    member = torch.arange(members, device=rows.device) * lanes
    column = (group // lanes * (members * lanes) + group % lanes + member).flatten(1)
    place = flat.gather(1, column).topk(k, dim=1).indices
    return column.gather(1, place).cpu()
