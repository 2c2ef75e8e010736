"""Which measures of quality may a recipe name, and what are they of many resamples at once?

All that holds of one metric stands where it is registered: its formula, its name and unit in a report, the test that it allows,
and whether a report shows it unasked. A classification metric is a function of a few counts per class, a regression metric of a
few means, and both are sums over the examples: so one formula serves the value and a thousand bootstrap resamples of it. The tests
hold every formula against torchmetrics. A class that no target has doesn't count in a macro average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from prunus.core.code.registry import METRICS, Registry
from prunus.core.errors import RecipeError
from prunus.core.types import Floats

__all__ = [
    "Metric",
    "Moments",
    "Tally",
    "check_metrics",
    "class_parts",
    "default_metrics",
    "metric",
    "metrics",
    "metrics_of",
    "metrics_table",
]

Task = Literal["classification", "regression"]
Unit = Literal["share", "target units", ""]
Formula = Callable[..., Floats]


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
    """A measure of quality: ``function`` takes a :class:`Tally` or :class:`Moments` and returns ``(resamples,)``.

    ``label`` is what a report calls it, and ``unit`` how it is said: a ``share`` in percent, its differences in points. With
    ``exact_test`` it is the share of examples whose answer is the target: its interval is Wilson's, and a contract on it is
    tested by counting examples. ``default`` is its place among the metrics that a report shows unasked, 0 for the one that leads;
    None where a recipe has to name it.
    """

    name: str
    task: Task
    function: Formula
    higher_is_better: bool
    label: str
    unit: Unit = ""
    summary: str = ""
    exact_test: bool = False
    default: int | None = None

    @property
    def is_share(self) -> bool:
        """Whether it is a share of 1, said in percent."""
        return self.unit == "share"


metrics: Registry[Metric] = Registry("metric", group=METRICS)


def metric(
    name: str,
    *,
    task: Task,
    higher_is_better: bool,
    label: str = "",
    unit: Unit = "",
    exact_test: bool = False,
    default: int | None = None,
) -> Callable[[Formula], Formula]:
    """Register a formula under ``name``, which also enrols it in the law tests; its first docstring line is the summary."""

    def register(function: Formula) -> Formula:
        summary = (function.__doc__ or "").strip().partition("\n")[0].removeprefix("Return ").rstrip(".")
        made = Metric(name, task, function, higher_is_better, label or name, unit, summary, exact_test, default)
        metrics.add(name, made)
        return function

    return register


def metrics_of(task: Task) -> tuple[str, ...]:
    """Return the names of all metrics of a task."""
    return tuple(name for name in metrics if metrics[name].task == task)


def default_metrics(task: Task) -> tuple[str, ...]:
    """Return the metrics of a task that a report shows unasked, the leading one first.

    >>> default_metrics("regression")
    ('r2', 'mae', 'rmse')
    """
    places = {name: place for name in metrics_of(task) if (place := metrics[name].default) is not None}
    return tuple(sorted(places, key=lambda name: (places[name], name)))


def check_metrics(names: Sequence[str], task: Task) -> None:
    """Refuse a metric that is unknown or that measures another task.

    Raises:
        RecipeError: it says which, and what fits.
    """
    for name in names:
        if metrics[name].task != task:
            fitting = ", ".join(metrics_of(task))
            raise RecipeError(
                f"evaluation.metrics: {name!r} measures {metrics[name].task}, the data ask for {task}: choose among {fitting}"
            )


def metrics_table() -> list[dict[str, str]]:
    """Return one row per metric: which task it measures, how it is called and said, what it is.

    >>> [row["called"] for row in metrics_table() if row["name"] == "f1_macro"]
    ['macro F1']
    """
    found = [metrics[name] for name in metrics]
    return [
        {
            "name": one.name,
            "task": one.task,
            "called": one.label,
            "unit": one.unit,
            "better": "higher" if one.higher_is_better else "lower",
            "shown": "unasked" if one.default is not None else "when named",
            "summary": one.summary,
        }
        for one in sorted(found, key=lambda one: one.task)
    ]


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


@metric("accuracy", task="classification", higher_is_better=True, unit="share", exact_test=True, default=0)
def accuracy(tally: Tally) -> Floats:
    """Return the share of examples whose most likely class is the target."""
    return _ratio(tally.right.sum(axis=1), tally.support.sum(axis=1))


def _add_average(part: int, name: str, label: str, average: Callable[[Floats, Floats], Floats], how: str) -> None:
    def function(tally: Tally) -> Floats:
        return average(class_parts(tally)[part], tally.support)

    weights = {"macro": "every class alike", "weighted": "each by its examples"}[how]
    function.__doc__ = f"Return the mean {label} over the classes, {weights}."
    register = metric(
        f"{name}_{how}",
        task="classification",
        higher_is_better=True,
        label=f"{how} {label}",
        unit="share",
        default=1,
    )
    register(function)


for _part, (_name, _label) in enumerate((("precision", "precision"), ("recall", "recall"), ("f1", "F1"))):
    _add_average(_part, _name, _label, _macro, "macro")
    _add_average(_part, _name, _label, _weighted, "weighted")


@metric("mae", task="regression", higher_is_better=False, label="MAE", unit="target units", default=1)
def mae(moments: Moments) -> Floats:
    """Return the mean absolute error."""
    return moments.absolute_error


@metric("rmse", task="regression", higher_is_better=False, label="RMSE", unit="target units", default=1)
def rmse(moments: Moments) -> Floats:
    """Return the root of the mean squared error."""
    value: Floats = np.sqrt(moments.square_error)
    return value


@metric("r2", task="regression", higher_is_better=True, label="R²", default=0)
def r2(moments: Moments) -> Floats:
    """Return the share of the targets' variance that is explained; of constant targets 1 when all are met, else 0."""
    spread = moments.square_target - np.square(moments.target)
    # What rounding leaves of a variance of zero is no variance.
    varied = spread > 1e-12 * moments.square_target
    exact = np.where(moments.square_error == 0, 1.0, 0.0)
    return np.where(varied, 1 - _ratio(moments.square_error, np.where(varied, spread, 0.0)), exact)
