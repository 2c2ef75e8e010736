"""Which measures of quality may a recipe name, and what are they of many resamples at once?

A classification metric is a function of confusion counts, a regression metric of errors: so one formula serves the value and a
thousand bootstrap resamples of it. The tests hold every formula against torchmetrics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from prunus.core.errors import RecipeError
from prunus.core.registry import Registry
from prunus.core.types import Floats

__all__ = ["Metric", "check_metrics", "default_metrics", "metrics"]

Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class Metric:
    """A measure of quality.

    ``function`` takes, for classification, confusion counts ``(resamples, true, predicted)``; for regression, targets and
    predictions, both ``(resamples, n)``. It returns ``(resamples,)``.
    """

    name: str
    task: Task
    function: Callable[..., Floats]
    higher_is_better: bool
    unit: str = ""


metrics: Registry[Metric] = Registry("metric")


def default_metrics(task: Task) -> tuple[str, ...]:
    """Return every metric of a task, the leading one first.

    >>> default_metrics("regression")
    ('r2', 'mae', 'rmse')
    """
    lead = {"classification": "accuracy", "regression": "r2"}[task]
    names = [name for name in metrics if metrics[name].task == task]
    return (lead, *(name for name in names if name != lead))


def check_metrics(names: Sequence[str], task: Task) -> None:
    """Refuse a metric that is unknown or that measures another task.

    Raises:
        RecipeError: it says which, and what fits.
    """
    for name in names:
        if metrics[name].task != task:
            fitting = ", ".join(default_metrics(task))
            raise RecipeError(
                f"evaluation.metrics: {name!r} measures {metrics[name].task}, the data ask for {task}: choose among {fitting}"
            )


def _ratio(above: Floats, below: Floats) -> Floats:
    """Divide; 0 / 0 is 0, as is usual for precision without predictions."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def class_parts(counts: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return precision, recall, F1 and support per class, each ``(resamples, classes)``."""
    right = np.diagonal(counts, axis1=1, axis2=2).astype(np.float64)
    support, predicted = counts.sum(axis=2).astype(np.float64), counts.sum(axis=1).astype(np.float64)
    return _ratio(right, predicted), _ratio(right, support), _ratio(2 * right, support + predicted), support


def _macro(values: Floats, support: Floats) -> Floats:
    """Average over the classes that occur."""
    present = support > 0
    return _ratio((values * present).sum(axis=1), present.sum(axis=1).astype(np.float64))


def _weighted(values: Floats, support: Floats) -> Floats:
    return _ratio((values * support).sum(axis=1), support.sum(axis=1))


def _of_parts(part: int, average: Callable[[Floats, Floats], Floats]) -> Callable[[Floats], Floats]:
    def function(counts: Floats) -> Floats:
        parts = class_parts(counts)
        return average(parts[part], parts[3])

    return function


def _accuracy(counts: Floats) -> Floats:
    return _ratio(np.trace(counts, axis1=1, axis2=2).astype(np.float64), counts.sum(axis=(1, 2)).astype(np.float64))


def _mae(targets: Floats, predictions: Floats) -> Floats:
    value: Floats = np.abs(targets - predictions).mean(axis=1)
    return value


def _rmse(targets: Floats, predictions: Floats) -> Floats:
    value: Floats = np.sqrt(np.square(targets - predictions).mean(axis=1))
    return value


def _r2(targets: Floats, predictions: Floats) -> Floats:
    left = np.square(targets - predictions).sum(axis=1)
    spread = np.square(targets - targets.mean(axis=1, keepdims=True)).sum(axis=1)
    return np.where(spread > 0, 1 - _ratio(left, spread), 0.0)


metrics.add("accuracy", Metric("accuracy", "classification", _accuracy, True))
for _part, _name in enumerate(("precision", "recall", "f1")):
    for _average, _how in ((_macro, "macro"), (_weighted, "weighted")):
        metrics.add(f"{_name}_{_how}", Metric(f"{_name}_{_how}", "classification", _of_parts(_part, _average), True))
metrics.add("mae", Metric("mae", "regression", _mae, False, "target units"))
metrics.add("rmse", Metric("rmse", "regression", _rmse, False, "target units"))
metrics.add("r2", Metric("r2", "regression", _r2, True))
