"""How much worse do both models get under each corruption, and does pruning cost more there than where nothing is corrupted?

Both see the same corrupted inputs, so differences are paired. The *excess* is the pruned model's difference under a corruption
less its difference without: what pruning costs in robustness beyond what it costs anyway. All come from one bootstrap over
examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunus.core.types import Floats, Measurement
from prunus.evaluate.by_group import at_once
from prunus.evaluate.resample import interval, resample
from prunus.tasks import Observed, Task, columns_read, measured, metrics, pooling

__all__ = ["CorruptionRow", "withstood"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CorruptionRow:
    """A metric of both models under one corruption; severity 0 is the mean over all of them.

    ``difference`` is pruned minus dense, and ``excess`` that less the difference on clean inputs; both None with one model alone.
    """

    name: str
    severity: int
    values: dict[str, Measurement]
    difference: Measurement | None
    excess: Measurement | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "name": self.name,
            "severity": self.severity,
            "values": {name: one.to_dict() for name, one in self.values.items()},
            "difference": self.difference and self.difference.to_dict(),
            "excess": self.excess and self.excess.to_dict(),
        }


def withstood(
    name: str,
    clean: dict[str, Observed],
    seen: Sequence[dict[str, Observed]],
    task: Task,
    metric: str,
    *,
    confidence: float,
    bootstrap: int,
    seed: int,
    together: int = 1,
) -> tuple[CorruptionRow, ...]:
    """Return one row for each severity, and one for their mean.

    Args:
        together: of so many corruptions the intervals of the means' differences hold together (Bonferroni).
        clean: what was observed of each model without any corruption.
        seen: the same of each severity, on the same examples.
    """
    models = list(clean)
    stacked = [one[model] for one in (clean, *seen) for model in models]
    values = resample(
        stacked,
        lambda one, weights: measured(task, [metric], one, weights),
        reads=columns_read(task, (metric,)),
        pool=pooling(task, (metric,)),
        resamples=bootstrap,
        seed=seed,
    )[:, :, 0].reshape(1 + len(seen), len(models), -1)
    mean = _row(name, 0, values[0], values[1:].mean(axis=0), models, metric, confidence)
    if mean.difference is not None and mean.excess is not None:
        wide = (at_once(one, together, confidence) for one in (mean.difference, mean.excess))
        mean = CorruptionRow(name, 0, mean.values, *wide)
    found = [mean]
    found += [_row(name, k, values[0], values[k], models, metric, confidence) for k in range(1, 1 + len(seen))]
    return tuple(found)


def _row(
    name: str, severity: int, clean: Floats, here: Floats, models: Sequence[str], metric: str, confidence: float
) -> CorruptionRow:
    """Return a row; ``clean`` and ``here`` are ``(models, 1 + resamples)``."""
    values = {model: _measured(metric, here[i], confidence) for i, model in enumerate(models)}
    if len(models) < 2:
        return CorruptionRow(name, severity, values, None, None)
    difference = here[models.index("pruned")] - here[models.index("dense")]
    before = clean[models.index("pruned")] - clean[models.index("dense")]
    parts = (_measured(metric, part, confidence) for part in (difference, difference - before))
    return CorruptionRow(name, severity, values, *parts)


def _measured(metric: str, values: Floats, confidence: float) -> Measurement:
    value, drawn = float(values[0]), values[1:]
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn) or not np.isfinite(value):
        return Measurement(metric, value, np.nan, np.nan, metrics[metric].unit, metrics[metric].higher_is_better)
    low, high = interval(drawn, confidence)
    one = metrics[metric]
    return Measurement(metric, value, min(low, value), max(high, value), one.unit, one.higher_is_better)
