"""Is the pruned model worse than the dense one, better, or can't one tell?

Both answer the same examples, and each seed gives a pair, so the comparison is paired twice: a resample draws seeds and
examples, and takes both models' answers to the same ones. What the two have in common cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import stdev, variance
from typing import Any, Literal

import numpy as np

from prunus.core.types import Floats, Measurement
from prunus.evaluate.pairs import Pairs
from prunus.evaluate.resample import interval, plain_totals
from prunus.evaluate.student import student_quantile
from prunus.tasks import (
    Metric,
    Observed,
    Tally,
    check_metrics,
    class_parts,
    columns_read,
    measured,
    pooling,
)
from prunus.tasks import metrics as registry

__all__ = ["Comparison", "class_changes", "compare"]

Verdict = Literal["better", "worse", "no measurable difference"]


@dataclass(frozen=True)
class Comparison:
    """One metric of the dense and the pruned models (means over seeds), and the paired difference, pruned minus dense."""

    metric: str
    dense: float
    pruned: float
    difference: Measurement
    dense_deviation: float | None
    pruned_deviation: float | None
    n_seeds: int
    verdict: Verdict
    method: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        facts = {key: value for key, value in vars(self).items() if key != "difference"}
        return {**facts, "difference": self.difference.to_dict()}


def compare(pairs: Pairs, metrics: Sequence[str]) -> tuple[Comparison, ...]:
    """Return the comparison for every metric.

    Raises:
        RecipeError: an unknown metric, or one of another task.
    """
    task = pairs.task
    check_metrics(metrics, task.name)
    made = task.imagine(pairs.dense[0])
    values = pairs.resampled(
        lambda seen, weights: measured(task, metrics, seen, weights),
        columns_read(task, metrics),
        made,
        None if made is None else made.shares,
        pooling(task, metrics),
    )
    method = "paired bootstrap over examples" + (
        ", Student's t over seeds" if len(pairs.dense) > 1 else "; one seed says nothing about other seeds"
    )
    return tuple(
        _comparison(registry[name], values[0, :, :, column], values[1, :, :, column], pairs.confidence, method)
        for column, name in enumerate(metrics)
    )


def _interval(difference: Floats, confidence: float) -> tuple[float, float, float]:
    """Return the mean difference over seeds and its interval; ``difference`` is ``(seeds, 1 + resamples)``."""
    plain, resampled = difference[:, 0], difference[:, 1:]
    # A resample that holds no example of a class says nothing about it.
    resampled = resampled[:, np.isfinite(resampled).all(axis=0)]
    value, mean = float(plain.mean()), resampled.mean(axis=0)
    low, high = interval(mean, confidence)
    of_seeds = 0.0
    if len(plain) > 1:
        # What one seed's difference would scatter by the choice of examples alone, beside what all seeds share.
        own = (resampled - mean).var(axis=1).mean() * len(plain) / (len(plain) - 1)
        spread = max(0.0, variance(plain.tolist()) - float(own))
        of_seeds = student_quantile(confidence, len(plain) - 1) * sqrt(spread / len(plain))
    # Independent chances: the distances from the value add up as the sides of a right angle do.
    return (
        value,
        value - float(np.hypot(max(0.0, value - low), of_seeds)),
        value + float(np.hypot(max(0.0, high - value), of_seeds)),
    )


def _comparison(metric: Metric, dense: Floats, pruned: Floats, confidence: float, method: str) -> Comparison:
    value, low, high = _interval(pruned - dense, confidence)
    verdict: Verdict = "no measurable difference"
    if low > 0 or high < 0:
        verdict = "better" if (value > 0) == metric.higher_is_better else "worse"
    return Comparison(
        metric.name,
        float(dense[:, 0].mean()),
        float(pruned[:, 0].mean()),
        Measurement(metric.name, value, low, high, metric.unit, metric.higher_is_better),
        stdev(dense[:, 0].tolist()) if len(dense) > 1 else None,
        stdev(pruned[:, 0].tolist()) if len(pruned) > 1 else None,
        len(dense),
        verdict,
        method,
    )


def class_changes(pairs: Pairs) -> tuple[Measurement, ...]:
    """Return the change of each class's recall, pruned minus dense, mean over seeds, with its paired interval.

    A class without examples is left out; of a task that counts no classes there is nothing to say.
    """
    task, first = pairs.task, pairs.dense[0]
    total = plain_totals(task, first)
    if not isinstance(total, Tally):
        return ()
    present = total.support[0] > 0

    def recalls(seen: Observed, weights: Floats) -> Floats:
        parts = task.totals(seen, weights)
        return np.where(parts.support > 0, class_parts(parts)[1], np.nan)[:, : len(present)]

    # Every class has its own two imagined examples: it is judged by itself.
    made = task.imagine(first)
    each = None if made is None else np.ones(len(made.shares))
    values = pairs.resampled(recalls, task.reads, made, each)
    difference = values[1] - values[0]
    return tuple(
        Measurement(name, *_interval(difference[:, :, i], pairs.confidence), "", True)
        for i, name in enumerate(task.counted_names)
        if present[i]
    )
