"""What would the numbers be on other examples of the same kind? The bootstrap, for many models on the same resamples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from prunus.core.runtime import derive_seed
from prunus.core.types import Floats, Ints

__all__ = ["confusion", "draws", "interval", "predicted_of"]


def draws(n: int, resamples: int, seed: int, *names: object) -> Ints:
    """Return how often each example is drawn in each resample, ``(resamples, n)``."""
    rng = np.random.default_rng(derive_seed(seed, "bootstrap", *names))
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples)


def predicted_of(outputs: Tensor, task: str) -> np.ndarray:
    """Return the predicted class numbers, or the predicted values."""
    return outputs.argmax(dim=1).numpy() if task == "classification" else outputs.reshape(-1).double().numpy()


def confusion(targets: Ints, predicted: Ints, n_classes: int, weights: Floats | Ints) -> Floats:
    """Return confusion counts under each row of ``weights``: ``(rows, true, predicted)``."""
    cell = targets * n_classes + predicted
    order = np.argsort(cell, kind="stable")
    cells, starts = np.unique(cell[order], return_index=True)
    counts = np.zeros((len(weights), n_classes * n_classes))
    # One sum per cell that occurs, not one per possible cell: correct predictions dominate.
    counts[:, cells] = np.add.reduceat(weights[:, order].astype(np.float64), starts, axis=1)
    return counts.reshape(len(weights), n_classes, n_classes)


def interval(values: Sequence[float] | Floats, confidence: float) -> tuple[float, float]:
    """Return the percentile interval of resampled values."""
    low, high = np.quantile(np.asarray(values), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
