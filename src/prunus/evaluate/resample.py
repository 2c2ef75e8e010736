"""What would the numbers be on other examples of the same kind? The bootstrap, for many models on the same resamples.

Examples that no model tells apart (same class, same answers) are drawn together: a resample says how often each such
*pattern* occurs, so its cost follows the number of patterns, which is small when the models are good. Resamples come
in blocks of bounded memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from prunus.core.runtime import derive_seed
from prunus.core.types import Floats, Ints
from prunus.evaluate.metrics import Moments, Tally

__all__ = ["confusion", "interval", "predicted_of", "resample", "tally"]

_BLOCK = 4_000_000
"""Numbers in one block of resamples (32 MB)."""

Statistic = Callable[[Any], Floats]


def predicted_of(outputs: Tensor, task: Literal["classification", "regression"]) -> npt.NDArray[Any]:
    """Return the predicted class numbers, or the predicted values."""
    if task == "classification":
        return outputs.argmax(dim=1).cpu().numpy()
    return outputs.reshape(-1).double().cpu().numpy()


def confusion(targets: Ints, predicted: Ints, n_classes: int) -> Ints:
    """Return confusion counts, ``(true, predicted)``.

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(targets * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def tally(targets: Ints, predicted: Ints, n_classes: int, weights: Floats | Ints) -> Tally:
    """Return what the metrics need of the confusion counts, under each row of ``weights`` ``(resamples, examples)``."""
    right = np.where(targets == predicted, weights, 0)
    return Tally(
        _sum_by(targets, right, n_classes), _sum_by(targets, weights, n_classes), _sum_by(predicted, weights, n_classes)
    )


def _sum_by(number: Ints, weights: Floats | Ints, n: int) -> Floats:
    """Return the sums of the columns of ``weights`` that share a number, ``(rows, n)``."""
    order = np.argsort(number, kind="stable")
    numbers, starts = np.unique(number[order], return_index=True)
    sums = np.zeros((len(weights), n))
    sums[:, numbers] = np.add.reduceat(weights[:, order].astype(np.float64), starts, axis=1)
    return sums


def resample(
    predictions: Sequence[npt.NDArray[Any]],
    targets: npt.NDArray[Any],
    statistic: Statistic,
    *,
    n_classes: int | None,
    imagined: tuple[Sequence[Sequence[bool]], Floats] = ((), np.zeros(0)),
    resamples: int,
    seed: int,
) -> Floats:
    """Return a statistic of each model's predictions: plain first, then on each resample of the examples, the same for all models.

    Args:
        statistic: takes a :class:`Tally` (classification) or :class:`Moments` (regression) and returns ``(rows, values)``.
        n_classes: None means regression.
        imagined: examples that take part in the drawing though nobody saw them: for each kind, which models are right on it;
            and how many there are of every kind in each class. Without them a bootstrap of models that never err, or
            never differ, has no width.

    Shapes:
        Each of ``predictions`` and ``targets`` are ``(n,)``; the result is ``(models, 1 + resamples, values)``.
    """
    if n_classes is None:
        moments = [_moments(targets, values) for values in predictions]
        return _collect(
            len(predictions),
            lambda model, weights: statistic(Moments(*(weights @ moments[model] / len(targets)).T)),
            np.ones(len(targets)),
            0,
            resamples,
            seed,
        )
    rows, counts = np.unique(np.stack([targets, *predictions], axis=1), axis=0, return_counts=True)
    kinds, per_class = imagined
    classes = np.flatnonzero(per_class)
    # A wrong answer names the next class: it must cost precision, too, and no class more than another.
    wrong = (classes + 1) % n_classes
    made = [np.stack([classes, *(classes if ok else wrong for ok in kind)], axis=1) for kind in kinds]
    patterns = np.concatenate([rows, *made])
    shares = np.concatenate([counts, *(per_class[classes] for _ in kinds)])
    return _collect(
        len(predictions),
        lambda model, weights: statistic(tally(patterns[:, 0], patterns[:, 1 + model], n_classes, weights)),
        shares,
        len(patterns) - len(rows),
        resamples,
        seed,
    )


def _collect(
    n_models: int, measure: Callable[[int, Floats], Floats], shares: Floats, n_imagined: int, resamples: int, seed: int
) -> Floats:
    """Measure every model on the examples as they are, and on each block of resamples."""
    plain = np.where(np.arange(len(shares)) < len(shares) - n_imagined, shares, 0.0)[None]
    found: list[list[Floats]] = [[] for _ in range(n_models)]
    for weights in itertools.chain([plain], _blocks(shares, resamples, seed)):
        for model in range(n_models):
            found[model].append(measure(model, weights.astype(np.float64)))
    return np.stack([np.concatenate(parts) for parts in found])


def _blocks(shares: Floats, resamples: int, seed: int) -> Iterator[Ints]:
    """Yield how often each pattern is drawn, ``(resamples of the block, patterns)``."""
    rng = np.random.default_rng(derive_seed(seed, "bootstrap"))
    n, size = round(float(shares.sum())), max(1, _BLOCK // len(shares))
    for start in range(0, resamples, size):
        yield rng.multinomial(n, shares / shares.sum(), size=min(size, resamples - start))


def _moments(targets: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> Floats:
    """Return what the metrics average, per example: |error|, error², target and target², the targets counted from their mean."""
    error, centred = predicted - targets, targets - targets.mean()
    return np.stack([np.abs(error), np.square(error), centred, np.square(centred)], axis=1)


def interval(values: Sequence[float] | Floats, confidence: float) -> tuple[float, float]:
    """Return the percentile interval of resampled values."""
    low, high = np.quantile(np.asarray(values), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
