"""How good is a model on a set of examples, in all and per class, and how sure is that?

Shares of counted examples (accuracy, a class's recall and precision) have Wilson intervals; everything else percentile bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from torch import Tensor

from prunus.core.errors import DataError
from prunus.core.types import Floats, Measurement
from prunus.evaluate.metrics import Metric, check_metrics, class_parts, default_metrics, metrics
from prunus.evaluate.resample import confusion, draws, interval, predicted_of

__all__ = ["ClassQuality", "Quality", "gap", "measure_quality", "wilson"]


@dataclass(frozen=True)
class ClassQuality:
    """One class: how many examples it has, and how well they are found. A class without examples has no recall (NaN)."""

    name: str
    support: int
    precision: Measurement
    recall: Measurement
    f1: Measurement

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        parts = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {"name": self.name, "support": self.support} | {key: value.to_dict() for key, value in parts.items()}


@dataclass(frozen=True)
class Quality:
    """Every metric on one set of examples. ``confusion[i][j]`` counts class i taken for class j."""

    metrics: tuple[Measurement, ...]
    per_class: tuple[ClassQuality, ...]
    confusion: tuple[tuple[int, ...], ...] | None
    n: int

    def __str__(self) -> str:
        return f"{self.n} examples: " + ", ".join(map(str, self.metrics))

    def value(self, name: str) -> float:
        """Return a metric's value."""
        return next(item.value for item in self.metrics if item.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "metrics": [item.to_dict() for item in self.metrics],
            "per_class": [item.to_dict() for item in self.per_class],
            "confusion": None if self.confusion is None else [list(row) for row in self.confusion],
        }


def measure_quality(
    outputs: Tensor,
    targets: Tensor,
    *,
    task: Literal["classification", "regression"],
    class_names: Sequence[str] = (),
    metrics: Sequence[str] = (),
    confidence: float = 0.95,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Quality:
    """Return the quality of ``outputs`` as answers to ``targets``.

    Shapes:
        ``outputs`` is ``(n, classes)`` logits; for regression ``(n,)`` or ``(n, 1)``.
    Raises:
        RecipeError: an unknown metric, or one of another task.
        DataError: no examples.
    """
    names = tuple(metrics) or default_metrics(task)
    check_metrics(names, task)
    n = len(targets)
    if n == 0:
        raise DataError("quality needs at least one example: got an empty set")
    predicted, weights = predicted_of(outputs, task), draws(n, bootstrap, seed)
    if task == "regression":
        return Quality(_regression(names, targets.double().numpy(), predicted, weights, confidence), (), None, n)
    true, n_classes = targets.numpy(), max(len(class_names), outputs.shape[1])
    counts = confusion(true, predicted, n_classes, np.ones((1, n)))
    resampled = confusion(true, predicted, n_classes, weights)
    found = []
    for name in names:
        metric = _metric(name)
        value = float(metric.function(counts)[0])
        share = name == "accuracy"
        low, high = wilson(value * n, n, confidence) if share else interval(metric.function(resampled), confidence)
        found.append(Measurement(name, value, low, high, metric.unit, metric.higher_is_better))
    labels = list(class_names) or [str(number) for number in range(n_classes)]
    return Quality(
        tuple(found),
        _per_class(labels, counts, resampled, confidence),
        tuple(tuple(int(c) for c in row) for row in counts[0]),
        n,
    )


def _metric(name: str) -> Metric:
    return metrics[name]


def _regression(
    names: Sequence[str], targets: Floats, predicted: Floats, weights: Any, confidence: float
) -> tuple[Measurement, ...]:
    # Resampled rows, in blocks: a thousand resamples of a million examples don't fit into memory at once.
    values: dict[str, list[Floats]] = {name: [] for name in names}
    for start in range(0, len(weights), 50):
        rows = np.stack([np.repeat(np.arange(len(targets)), w) for w in weights[start : start + 50]])
        for name in names:
            values[name].append(_metric(name).function(targets[rows], predicted[rows]))
    found = []
    for name in names:
        metric = _metric(name)
        low, high = interval(np.concatenate(values[name]), confidence)
        value = float(metric.function(targets[None], predicted[None])[0])
        found.append(Measurement(name, value, low, high, metric.unit, metric.higher_is_better))
    return tuple(found)


def _per_class(names: Sequence[str], counts: Floats, resampled: Floats, confidence: float) -> tuple[ClassQuality, ...]:
    precision, recall, f1, support = (part[0] for part in class_parts(counts))
    resampled_f1 = class_parts(resampled)[2]
    right, predicted = np.diagonal(counts[0]), counts[0].sum(axis=0)
    nothing = float("nan")
    found = []
    for i, name in enumerate(names):
        if support[i] == 0:
            empty = {
                part: Measurement(part, nothing, nothing, nothing, "", True) for part in ("precision", "recall", "f1")
            }
            found.append(ClassQuality(name, 0, **empty))
            continue
        found.append(
            ClassQuality(
                name,
                int(support[i]),
                Measurement("precision", float(precision[i]), *wilson(right[i], predicted[i], confidence), "", True),
                Measurement("recall", float(recall[i]), *wilson(right[i], support[i], confidence), "", True),
                Measurement("f1", float(f1[i]), *interval(resampled_f1[:, i], confidence), "", True),
            )
        )
    return tuple(found)


def wilson(successes: float, n: float, confidence: float) -> tuple[float, float]:
    """Return the Wilson score interval of a share; without trials it is all of [0, 1].

    References:
        Wilson, JASA 22(158), 1927.

    >>> low, high = wilson(8, 10, 0.95)
    >>> round(low, 3), round(high, 3)
    (0.49, 0.943)
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, float((centre - half) / scale)), min(1.0, float((centre + half) / scale))


def gap(train: Quality, test: Quality) -> tuple[Measurement, ...]:
    """Return train minus test for every metric: the generalisation gap. The two sets are independent, so variances add."""
    found = []
    for one in train.metrics:
        other = next(item for item in test.metrics if item.name == one.name)
        value = one.value - other.value
        down = float(np.hypot(one.value - one.low, other.high - other.value))
        up = float(np.hypot(one.high - one.value, other.value - other.low))
        found.append(Measurement(one.name, value, value - down, value + up, one.unit))
    return tuple(found)
