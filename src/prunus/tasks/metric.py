"""Which measures of quality may a recipe name, and what are they of many resamples at once?

All that holds of one metric stands where it is registered: the tasks that have it, its formula, its name and unit in a report,
the test that it allows, and whether a report shows it unasked. A formula is a function of a task's totals over examples, so the
same one serves the value and a thousand bootstrap resamples of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from prunus.core.code.registry import METRICS, Registry
from prunus.core.errors import RecipeError
from prunus.core.types import Floats, Ints
from prunus.tasks.task import Observed, Task, n_observed, pooled, tasks

__all__ = [
    "Metric",
    "Pooling",
    "check_metrics",
    "columns_read",
    "default_metrics",
    "measured",
    "metric",
    "metrics",
    "metrics_of",
    "metrics_table",
    "pooling",
    "ratio",
    "value_of",
]

Unit = Literal["share", "target units", ""]
Formula = Callable[..., Floats]
Totals = Callable[[Observed, Floats], Any]
Pooling = Callable[[Observed, Ints, int], Observed | None]


@dataclass(frozen=True)
class Metric:
    """A measure of quality: ``function`` takes the totals of its tasks and returns ``(resamples,)``, or a column per output.

    ``label`` is what a report calls it, and ``unit`` how it is said: a ``share`` in percent, its differences in points. With
    ``exact_test`` it is the share of examples whose answer is right: its interval is Wilson's, and a contract on it is
    tested by counting examples. ``default`` is its place among the metrics that a report shows unasked, 0 for the one that leads;
    None where a recipe has to name it. ``totals`` takes the place of the task's own, and sees the columns in ``reads``.
    """

    name: str
    tasks: tuple[str, ...]
    function: Formula
    higher_is_better: bool
    label: str
    unit: Unit = ""
    summary: str = ""
    exact_test: bool = False
    default: int | None = None
    totals: Totals | None = None
    reads: tuple[str, ...] = ()

    @property
    def is_share(self) -> bool:
        """Whether it is a share of 1, said in percent."""
        return self.unit == "share"


metrics: Registry[Metric] = Registry("metric", group=METRICS)


def metric(
    name: str,
    *,
    task: str | tuple[str, ...],
    higher_is_better: bool,
    label: str = "",
    unit: Unit = "",
    exact_test: bool = False,
    default: int | None = None,
    totals: Totals | None = None,
    reads: tuple[str, ...] = (),
) -> Callable[[Formula], Formula]:
    """Register a formula under ``name``, which also enrols it in the law tests; its first docstring line is the summary."""

    def register(function: Formula) -> Formula:
        summary = (function.__doc__ or "").strip().partition("\n")[0].removeprefix("Return ").rstrip(".")
        of = (task,) if isinstance(task, str) else task
        made = Metric(
            name, of, function, higher_is_better, label or name, unit, summary, exact_test, default, totals, reads
        )
        metrics.add(name, made)
        return function

    return register


def measured(task: Task, names: Sequence[str], observed: Observed, weights: Floats) -> Floats:
    """Return each metric under each row of ``weights`` ``(resamples, n)``, an example's counts: ``(resamples, metrics)``."""
    found: list[Floats] = []
    totals: dict[Totals, Any] = {}
    for name in names:
        one = metrics[name]
        how = one.totals or task.totals
        if how not in totals:
            totals[how] = how(observed, weights)
        value = one.function(totals[how])
        found.append(value if value.ndim == 1 else value.mean(axis=1))
    return np.stack(found, axis=1)


def pooling(task: Task, names: Sequence[str]) -> Pooling | None:
    """Return what makes observations of groups, as the metrics may see them; None where one sees more than the task's totals."""
    if any(metrics[name].totals is not None for name in names):
        return None
    return partial(pooled, task)


def value_of(task: Task, name: str, observed: Observed) -> float:
    """Return one metric of what was observed, each example counted once."""
    return float(measured(task, (name,), observed, np.ones((1, n_observed(observed))))[0, 0])


def columns_read(task: Task, names: Sequence[str]) -> tuple[str, ...]:
    """Return which observations the metrics see."""
    read = [metrics[name].reads if metrics[name].totals else task.reads for name in names]
    return tuple(dict.fromkeys(column for columns in read for column in columns))


def metrics_of(task: str) -> tuple[str, ...]:
    """Return the names of all metrics of a task."""
    return tuple(name for name in metrics if task in metrics[name].tasks)


def default_metrics(task: str) -> tuple[str, ...]:
    """Return the metrics of a task that a report shows unasked, the leading one first.

    >>> default_metrics("regression")
    ('r2', 'mae', 'rmse')
    """
    places = {name: place for name in metrics_of(task) if (place := metrics[name].default) is not None}
    return tuple(sorted(places, key=lambda name: (places[name], name)))


def check_metrics(names: Sequence[str], task: str, *, key: str = "evaluation.metrics") -> None:
    """Refuse a metric that is unknown or that measures another task.

    Raises:
        RecipeError: it says which, and what fits.
    """
    for name in names:
        if task not in metrics[name].tasks:
            fitting, what = ", ".join(metrics_of(task)), " and ".join(metrics[name].tasks)
            raise RecipeError(f"{key}: {name!r} measures {what}, the data ask for {task}: choose among {fitting}")


def metrics_table() -> list[dict[str, str]]:
    """Return one row per metric: which tasks it measures, how it is called and said, what it is.

    >>> [row["called"] for row in metrics_table() if row["name"] == "mae"]
    ['MAE']
    """
    # What a user's own task measures is known for a while only.
    found = [one for one in map(metrics.__getitem__, metrics) if any(of in tasks for of in one.tasks)]
    return [
        {
            "name": one.name,
            "task": ", ".join(one.tasks),
            "called": one.label,
            "unit": one.unit,
            "better": "higher" if one.higher_is_better else "lower",
            "shown": "unasked" if one.default is not None else "when named",
            "summary": one.summary,
        }
        for one in sorted(found, key=lambda one: one.tasks)
    ]


def ratio(above: Floats, below: Floats) -> Floats:
    """Divide; 0 / 0 is 0, as is usual for precision without predictions."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
