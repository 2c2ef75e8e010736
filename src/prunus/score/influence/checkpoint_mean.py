"""What do several checkpoints say of each example, and how far apart are they?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from prunus.core.errors import RecipeError, ShapeError
from prunus.core.types import Floats

__all__ = ["CheckpointScores", "over_checkpoints"]


@dataclass(frozen=True, eq=False)
class CheckpointScores:
    """One score for each example: the mean over checkpoints, and its standard error.

    ``error`` is the checkpoints' standard deviation over the root of their number, as if they were independent; those of one
    training are alike, so it is a lower bound of how far another training would be off. NaN where there is one checkpoint.

    Shapes:
        ``value`` and ``error`` are ``(n,)``.
    """

    value: Floats
    error: Floats
    n_checkpoints: int


def over_checkpoints(
    checkpoints: nn.Module | Iterable[nn.Module],
    score: Callable[[nn.Module], Floats],
    weights: Sequence[float] | None = None,
) -> CheckpointScores:
    """Return the mean of ``score`` over models, each times its weight.

    Args:
        checkpoints: one model, or several; each is used before the next is asked for, so one model may be loaded anew each time.

    Raises:
        RecipeError: there is none, or not one weight for each.
        ShapeError: they score other numbers of examples.
    """
    models = [checkpoints] if isinstance(checkpoints, nn.Module) else checkpoints
    mean, squares, n = np.zeros(0), np.zeros(0), 0
    for model in models:
        if weights is not None and n >= len(weights):
            raise RecipeError(
                f"expected one weight for each checkpoint: got {len(weights)} weights and more checkpoints"
            )
        found = score(model) * (1.0 if weights is None else weights[n])
        if n and found.shape != mean.shape:
            raise ShapeError(f"checkpoint {n + 1} scores {len(found)} examples, those before it {len(mean)}")
        n += 1
        if n == 1:
            mean, squares = found.astype(np.float64), np.zeros_like(found, np.float64)
            continue
        step = found - mean
        mean += step / n
        squares += step * (found - mean)
    if not n:
        raise RecipeError("expected at least one checkpoint: got none")
    if weights is not None and n != len(weights):
        raise RecipeError(f"expected one weight for each checkpoint: got {len(weights)} weights and {n} checkpoints")
    error = np.sqrt(squares / (n - 1) / n) if n > 1 else np.full_like(mean, np.nan)
    return CheckpointScores(mean, error, n)
