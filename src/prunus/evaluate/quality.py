"""How good is a model on a set of examples, in all and per class, and how sure is that?

Shares of counted examples (accuracy; a class's recall, precision and F1) have Wilson intervals. Averages over classes
and errors have bootstrap percentiles; in a bootstrap of classes four imagined examples take part, two found and two
missed, for the same reason that Wilson's interval of 100 % has a width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from prunus.core.errors import DataError
from prunus.core.types import Floats, Measurement
from prunus.evaluate.resample import in_blocks, interval, plain_totals, resample
from prunus.tasks import (
    Metric,
    Observed,
    Tally,
    Task,
    check_metrics,
    class_parts,
    columns_read,
    default_metrics,
    measured,
    n_observed,
    pooling,
)
from prunus.tasks import metrics as registry

__all__ = ["ClassQuality", "Quality", "gap", "measure_quality", "wilson"]


_PARTS = ("precision", "recall", "f1")


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
    observed: Observed,
    task: Task,
    *,
    metrics: Sequence[str] = (),
    confidence: float = 0.95,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Quality:
    """Return the quality of a model's answers, of which ``observed`` is what ``task`` saw.

    Raises:
        RecipeError: an unknown metric, or one of another task.
        DataError: no examples.
    """
    names = tuple(metrics) or default_metrics(task.name)
    check_metrics(names, task.name)
    n = n_observed(observed)
    if n == 0:
        raise DataError("quality needs at least one example: got an empty set")
    classes = _Classes.of(observed, task)

    # Shares of counted examples have Wilson's intervals, so that nothing is resampled for them.
    resampled = classes is not None and not task.exclusive

    def everything(seen: Observed, weights: Floats) -> Floats:
        found = measured(task, names, seen, weights)
        return np.concatenate([found, _parts(task.totals(seen, weights))], axis=1) if resampled else found

    made = task.imagine(observed)
    values = resample(
        [observed],
        everything,
        reads=(*columns_read(task, names), *task.reads) if resampled else columns_read(task, names),
        imagined=None if made is None else ([(True,), (False,)], made, 2 * made.shares),
        pool=None if resampled else pooling(task, names),
        resamples=bootstrap,
        seed=seed,
    )[0]
    # Imagined examples move the middle of a bootstrap on purpose: there is no bias to take back.
    found = _measurements(
        [registry[name] for name in names], values[:, : len(names)], confidence, corrected=made is None
    )
    if "right" in observed:
        low, high = wilson(float(observed["right"].sum()), n, confidence)
        found = tuple(replace(item, low=low, high=high) if registry[item.name].exact_test else item for item in found)
    if classes is None:
        return Quality(found, (), None, n)
    if resampled:
        return Quality(found, classes.resampled(values[:, len(names) :], confidence), None, n)
    return Quality(found, classes.counted(confidence), _confusion(observed, len(classes.names)), n)


@dataclass(frozen=True)
class _Classes:
    """What is said of each class."""

    names: tuple[str, ...]
    total: Tally

    @classmethod
    def of(cls, observed: Observed, task: Task) -> _Classes | None:
        """Return the classes that a task counts, where it does."""
        total = plain_totals(task, observed)
        if not isinstance(total, Tally):
            return None
        n_classes = total.right.shape[1]
        rest = (str(number) for number in range(len(task.counted_names), n_classes))
        return cls((*task.counted_names, *rest), total)

    def counted(self, confidence: float) -> tuple[ClassQuality, ...]:
        """Return every class where what is counted are examples, with Wilson's intervals."""
        right, support, predicted = (count for (count,) in self.total)
        trials = {"precision": predicted, "recall": support, "f1": support + predicted - right}
        values = dict(zip(trials, (part[0] for part in class_parts(self.total)), strict=True))

        def one(part: str, i: int) -> Measurement:
            low, high = wilson(right[i], trials[part][i], confidence)
            if part == "f1":  # TP / (TP + FP + FN) is a share of counted examples, and F1 rises with it
                low, high = 2 * low / (1 + low), 2 * high / (1 + high)
            return Measurement(part, float(values[part][i]), low, high, "", True)

        return self._all(one)

    def resampled(self, values: Floats, confidence: float) -> tuple[ClassQuality, ...]:
        """Return every class where an example holds several things that are counted, with percentiles of ``values``."""

        def one(part: str, i: int) -> Measurement:
            column = values[:, _PARTS.index(part) * len(self.names) + i]
            low, high = interval(column[np.isfinite(column)], confidence)
            value = float(column[0])
            return Measurement(part, value, min(low, value), max(high, value), "", True)

        return self._all(one)

    def _all(self, one: Callable[[str, int], Measurement]) -> tuple[ClassQuality, ...]:
        support, nothing = self.total.support[0], (float("nan"),) * 3
        return tuple(
            ClassQuality(
                name,
                int(support[i]),
                **{part: one(part, i) if support[i] else Measurement(part, *nothing, "", True) for part in _PARTS},
            )
            for i, name in enumerate(self.names)
        )


def _parts(total: Tally) -> Floats:
    """Return precision, recall and F1 of each class, in one row each, NaN where it isn't there."""
    return np.concatenate([np.where(total.support > 0, part, np.nan) for part in class_parts(total)], axis=1)


def _confusion(observed: Observed, n_classes: int) -> tuple[tuple[int, ...], ...]:
    """Return how often class i was taken for class j."""
    counts = np.zeros(n_classes**2, np.int64)
    for part in in_blocks(n_observed(observed)):
        counts += np.bincount(observed["true"][part] * n_classes + observed["predicted"][part], minlength=n_classes**2)
    return tuple(tuple(row) for row in counts.reshape(n_classes, n_classes).tolist())


def _measurements(
    chosen: Sequence[Metric], values: Floats, confidence: float, *, corrected: bool
) -> tuple[Measurement, ...]:
    """Make measurements of plain values (the first row) and resampled ones; an interval holds its value."""
    found = []
    for metric, column in zip(chosen, values.T, strict=True):
        value = float(column[0])
        low, high = interval(column[1:], confidence, value=value if corrected else None)
        found.append(
            Measurement(metric.name, value, min(low, value), max(high, value), metric.unit, metric.higher_is_better)
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
