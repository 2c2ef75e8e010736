"""Which shares of the data and of the model do no worse together than all of both?

Rows are shares of the data, columns shares of the model, each from all down; every cell is compared with the first one, on the same
examples and the same seeds. A row is tested from the left and ends at the first cell that isn't shown to be no worse: what follows
in a row costs no confidence (as in ``docs/adr/0007``), so the error is shared among the rows alone (Bonferroni), and all that is
called no worse is so with the asked confidence together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import mean, stdev
from typing import Any

from prunus.core.errors import DataError
from prunus.core.types import Measurement
from prunus.evaluate.compare import compare
from prunus.evaluate.pairs import Pairs
from prunus.evaluate.student import student_quantile
from prunus.tasks import Observed, Task, metrics, n_observed, value_of

__all__ = ["GridCell", "JudgedGrid", "judge_grid"]


@dataclass(frozen=True)
class GridCell:
    """One cell: its metric under each seed, Student's interval of their mean (None of one seed), and how far it is from the first.

    ``drop`` is at most ``bound`` (positive is worse); ``kept`` whether that was shown to be within the margin.
    """

    values: tuple[float, ...]
    low: float | None
    high: float | None
    difference: Measurement | None
    drop: float
    bound: float
    kept: bool

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return mean(self.values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        apart = None if self.difference is None else self.difference.to_dict()
        return {
            "values": list(self.values),
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "difference": apart and {key: apart[key] for key in ("value", "low", "high")},
            "kept": self.kept,
        }


@dataclass(frozen=True)
class JudgedGrid:
    """Every cell, row by row, with what they were judged by; each difference's interval holds with ``each``."""

    metric: str
    higher_is_better: bool
    max_drop: float
    confidence: float
    each: float
    method: str
    cells: tuple[tuple[GridCell, ...], ...]


def judge_grid(
    observed: Sequence[Sequence[Sequence[Observed]]],
    task: Task,
    metric: str,
    *,
    max_drop: float,
    confidence: float = 0.95,
    bootstrap: int = 1000,
    seed: int = 0,
) -> JudgedGrid:
    """Return how each cell of a grid does beside the first one.

    Args:
        observed: row by row and cell by cell, what ``task`` saw of the model of each seed, on the same examples.
        task: what was asked.
        metric: a name in ``prunus.tasks.metrics``.
        max_drop: how much worse counts as no worse, in the metric's own unit.
        confidence: one-sided, with which all that is called no worse is so.
        bootstrap: resamples behind the intervals, at least.
        seed: of the resamples.

    Raises:
        DataError: no examples, or not one model per seed in each cell.
        RecipeError: an unknown metric, or one of another task.
    """
    first = observed[0][0]
    if any(len(cell) != len(first) for row in observed for cell in row):
        raise DataError(
            f"a grid needs one model per seed in each cell: got {[[len(c) for c in row] for row in observed]}"
        )
    if n_observed(first[0]) == 0:
        raise DataError("a grid is measured on validation examples: got none; raise data.split.validation")
    error = (1 - confidence) / len(observed)
    each = 1 - 2 * error
    enough = max(bootstrap, ceil(20 / error))
    higher = metrics[metric].higher_is_better
    rows, method = [], ""
    for number, row in enumerate(observed):
        cells: list[GridCell] = []
        for cell in row:
            found = tuple(value_of(task, metric, seen) for seen in cell)
            low, high = _of_seeds(found, confidence)
            if number == 0 and not cells:
                cells.append(GridCell(found, low, high, None, 0.0, 0.0, kept=True))
                continue
            pairs = Pairs(first, cell, task, confidence=each, bootstrap=enough, seed=seed)
            apart = compare(pairs, (metric,))[0]
            method = apart.method
            drop = -apart.difference.value if higher else apart.difference.value
            bound = -apart.difference.low if higher else apart.difference.high
            shown = bound <= max_drop and (not cells or cells[-1].kept)
            cells.append(GridCell(found, low, high, apart.difference, drop, bound, kept=shown))
        rows.append(tuple(cells))
    return JudgedGrid(metric, higher, max_drop, confidence, each, method, tuple(rows))


def _of_seeds(values: Sequence[float], confidence: float) -> tuple[float | None, float | None]:
    """Return Student's interval of the mean over seeds; one seed has none."""
    if len(values) < 2:
        return None, None
    half = student_quantile(confidence, len(values) - 1) * stdev(values) / sqrt(len(values))
    return mean(values) - half, mean(values) + half
