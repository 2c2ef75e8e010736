"""How good is a model on a set of examples, in all and per class, and how sure is that?

Shares of counted examples (accuracy; a class's recall, precision and F1) have Wilson intervals. Averages over classes
and errors have bootstrap percentiles; in a bootstrap of classes four imagined examples take part, two found and two
missed, for the same reason that Wilson's interval of 100 % has a width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from torch import Tensor

from prunus.core.errors import DataError
from prunus.core.types import Floats, Measurement
from prunus.evaluate.metrics import Metric, Moments, Tally, check_metrics, class_parts, default_metrics
from prunus.evaluate.metrics import metrics as registry
from prunus.evaluate.resample import confusion, interval, predicted_of, resample, tally

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
    predicted, chosen = predicted_of(outputs, task), [registry[name] for name in names]

    def all_metrics(parts: Tally | Moments) -> Floats:
        return np.stack([metric.function(parts) for metric in chosen], axis=1)

    if task == "regression":
        values = resample(
            [predicted], targets.double().cpu().numpy(), all_metrics, n_classes=None, resamples=bootstrap, seed=seed
        )
        return Quality(_measurements(chosen, values[0], confidence), (), None, n)
    true, n_classes = targets.cpu().numpy(), max(len(class_names), outputs.shape[1])
    counts = confusion(true, predicted, n_classes)
    imagined = ([(True,), (False,)], 2 * counts.sum(axis=1) / n)
    values = resample(
        [predicted], true, all_metrics, n_classes=n_classes, imagined=imagined, resamples=bootstrap, seed=seed
    )
    low, high = wilson(np.trace(counts), n, confidence)
    found = [
        replace(item, low=low, high=high) if registry[item.name].exact_test else item
        for item in _measurements(chosen, values[0], confidence)
    ]
    labels = [*class_names, *(str(number) for number in range(len(class_names), n_classes))]
    of_classes = _per_class(labels, tally(true, predicted, n_classes, np.ones((1, n))), confidence)
    return Quality(tuple(found), of_classes, tuple(tuple(row) for row in counts.tolist()), n)


def _measurements(chosen: Sequence[Metric], values: Floats, confidence: float) -> tuple[Measurement, ...]:
    """Make measurements of plain values (the first row) and resampled ones; an interval holds its value."""
    found = []
    for metric, column in zip(chosen, values.T, strict=True):
        low, high = interval(column[1:], confidence)
        value = float(column[0])
        found.append(
            Measurement(metric.name, value, min(low, value), max(high, value), metric.unit, metric.higher_is_better)
        )
    return tuple(found)


def _per_class(names: Sequence[str], counts: Tally, confidence: float) -> tuple[ClassQuality, ...]:
    precision, recall, f1 = (value for (value,) in class_parts(counts))
    parts = {"precision": precision, "recall": recall, "f1": f1}
    right, support, predicted = (count for (count,) in counts)
    trials = {"precision": predicted, "recall": support, "f1": support + predicted - right}
    found = []
    for i, name in enumerate(names):
        of_class = {}
        for part, value in parts.items():
            low, high = wilson(right[i], trials[part][i], confidence)
            if part == "f1":  # TP / (TP + FP + FN) is a share of counted examples, and F1 rises with it
                low, high = 2 * low / (1 + low), 2 * high / (1 + high)
            numbers = (float(value[i]), low, high) if support[i] else (float("nan"),) * 3
            of_class[part] = Measurement(part, *numbers, "", True)
        found.append(ClassQuality(name, int(support[i]), **of_class))
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
    # Rounding must not push the share itself, 0 or 1 above all, out of its interval.
    return max(0.0, min(share, float((centre - half) / scale))), min(1.0, max(share, float((centre + half) / scale)))


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
