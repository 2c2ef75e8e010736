"""Is an example answered more surely than by models that weren't trained on it? Some are easy for all: a loss can't say.

References:
    Carlini et al., S&P 2022, arXiv:2112.03570: the offline likelihood ratio. Of few shadow models one deviation is taken for all
    examples, as they advise; each example's mean is its own.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from prunus.core.batch import Batched
from prunus.core.calls import call
from prunus.core.errors import DataError
from prunus.core.types import Bools, Floats
from prunus.evaluate.predict import evaluated
from prunus.tasks import Task

__all__ = ["likelihood_ratio", "sureness"]

_FEW = 32
"""Of fewer shadow models that didn't see an example, one deviation is taken for all examples."""


def sureness(model: nn.Module, examples: Batched, task: Task) -> Floats | None:
    """Return the logarithm of the odds of the right class, ``(n,)``, the mean of an example's choices; None without choices."""
    sums: list[Floats] = []
    with evaluated(model, examples) as batches:
        for batch in batches:
            found = task.choices(call(model, batch.inputs), batch)
            if found is None:
                return None
            scores, right, example = (part.detach().cpu() for part in found)
            scores = scores.double()
            own = scores.gather(1, right[:, None])[:, 0]
            odds = own - scores.scatter(1, right[:, None], -torch.inf).logsumexp(dim=1)
            total = torch.zeros(len(batch.index), dtype=torch.float64).index_add_(0, example, odds)
            count = torch.zeros(len(batch.index), dtype=torch.float64).index_add_(0, example, torch.ones_like(odds))
            sums.append((total / count.clamp(min=1)).numpy())
    return np.concatenate(sums)


def likelihood_ratio(target: Floats, shadows: Floats, saw: Bools) -> Floats:
    """Return how many deviations each example's sureness lies above that of the shadow models that weren't trained on it.

    Shapes:
        ``target`` is ``(n,)``; ``shadows`` and ``saw``, which shadow model was trained on which example, ``(shadows, n)``.
    Raises:
        DataError: an example was seen by every shadow model.
    """
    out = ~saw
    n = out.sum(axis=0)
    if not (n > 0).all():
        raise DataError(
            f"{int((n == 0).sum())} examples were trained on by every shadow model: expected some that weren't; train more"
        )
    mean = np.where(out, shadows, 0.0).sum(axis=0) / n
    squares = np.where(out, shadows - mean, 0.0) ** 2
    if n.min() >= _FEW:
        deviation: Floats = np.sqrt(squares.sum(axis=0) / (n - 1))
    else:
        # Each example's mean took one of its own degrees of freedom.
        free = max(float((n - 1).sum()), 1.0)
        deviation = np.full(len(target), np.sqrt(squares.sum() / free))
    found: Floats = (target - mean) / np.maximum(deviation, 1e-12)
    return found
