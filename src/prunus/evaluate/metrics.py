"""Which measures of quality may a recipe name, and what are they of many resamples at once?

A classification metric is a function of a few counts per class, a regression metric of a few means, and both are sums
over the examples: so one formula serves the value and a thousand bootstrap resamples of it. The tests hold every
formula against torchmetrics. A class that no target has doesn't count in a macro average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from prunus.core.errors import RecipeError
from prunus.core.registry import Registry
from prunus.core.types import Floats

__all__ = ["Metric", "Moments", "Tally", "check_metrics", "class_parts", "default_metrics", "metrics"]

Task = Literal["classification", "regression"]


class Tally(NamedTuple):
    """Counts per class, each ``(resamples, classes)``: found rightly, in the targets, in the predictions."""

    right: Floats
    support: Floats
    predicted: Floats


class Moments(NamedTuple):
    """Means over the examples, each ``(resamples,)``; the targets are counted from any fixed point."""

    absolute_error: Floats
    square_error: Floats
    target: Floats
    square_target: Floats


@dataclass(frozen=True)
class Metric:
    """A measure of quality: ``function`` takes a :class:`Tally` or :class:`Moments` and returns ``(resamples,)``."""

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


def class_parts(tally: Tally) -> tuple[Floats, Floats, Floats]:
    """Return precision, recall and F1 per class, each ``(resamples, classes)``; F1 is 2 TP / (2 TP + FP + FN)."""
    right, support, predicted = tally
    return _ratio(right, predicted), _ratio(right, support), _ratio(2 * right, support + predicted)


def _macro(values: Floats, support: Floats) -> Floats:
    present = support > 0
    return _ratio((values * present).sum(axis=1), present.sum(axis=1).astype(np.float64))


def _weighted(values: Floats, support: Floats) -> Floats:
    return _ratio((values * support).sum(axis=1), support.sum(axis=1))


def _of_parts(part: int, average: Callable[[Floats, Floats], Floats]) -> Callable[[Tally], Floats]:
    def function(tally: Tally) -> Floats:
        return average(class_parts(tally)[part], tally.support)

    return function


def _accuracy(tally: Tally) -> Floats:
    return _ratio(tally.right.sum(axis=1), tally.support.sum(axis=1))


def _mae(moments: Moments) -> Floats:
    return moments.absolute_error


def _rmse(moments: Moments) -> Floats:
    value: Floats = np.sqrt(moments.square_error)
    return value


def _r2(moments: Moments) -> Floats:
    """Return the share of the targets' variance that is explained; of constant targets 1 when all are met, else 0."""
    spread = moments.square_target - np.square(moments.target)
    # What rounding leaves of a variance of zero is no variance.
    varied = spread > 1e-12 * moments.square_target
    exact = np.where(moments.square_error == 0, 1.0, 0.0)
    return np.where(varied, 1 - _ratio(moments.square_error, np.where(varied, spread, 0.0)), exact)


metrics.add("accuracy", Metric("accuracy", "classification", _accuracy, True))
for _part, _name in enumerate(("precision", "recall", "f1")):
    for _average, _how in ((_macro, "macro"), (_weighted, "weighted")):
        metrics.add(f"{_name}_{_how}", Metric(f"{_name}_{_how}", "classification", _of_parts(_part, _average), True))
metrics.add("mae", Metric("mae", "regression", _mae, False, "target units"))
metrics.add("rmse", Metric("rmse", "regression", _rmse, False, "target units"))
metrics.add("r2", Metric("r2", "regression", _r2, True))
