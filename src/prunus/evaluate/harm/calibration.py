"""Does a model mean what it says: is it right as often as it is sure, before and after pruning, and once its scores are set right?

All of it is a function of sums over examples: how many choices lie in each bin of confidence, how sure and how right they are, and
two proper scores. So the same resamples give every measure its interval, of both models together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunus.core.batch import Batch, Batched
from prunus.core.calls import call
from prunus.core.errors import DataError
from prunus.core.types import Floats, Measurement
from prunus.data import Examples
from prunus.evaluate.predict import evaluated
from prunus.evaluate.resample import interval, resample
from prunus.tasks import Observed, Task

__all__ = [
    "BINS",
    "MEASURES",
    "MOST_MEASURED",
    "CalibrationChange",
    "CalibrationRow",
    "calibration_change",
    "calibration_of",
    "fit_temperature",
]

BINS = 15
"""Equally wide bins of confidence, as the literature has them."""
MOST_PLACES = 20_000
"""Of so many choices at most a temperature is fitted."""
MOST_MEASURED = 20_000
"""So many examples at most are looked at: they tell every measure to a third of a percent, and each takes 750 bytes a model."""
_AT_ONCE = 2**22
"""Scores that are looked at together (32 MB)."""
MEASURES = {
    "ece": "expected calibration error, 15 bins",
    "rms_error": "calibration error, root mean square, bias taken off",
    "brier": "Brier score",
    "log_loss": "log loss, nats",
}


@dataclass(frozen=True)
class CalibrationRow:
    """One measure of both models (lower is better), and pruned minus dense; ``scaled``: scores were divided by a temperature."""

    measure: str
    scaled: bool
    dense: Measurement
    pruned: Measurement
    difference: Measurement

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        numbers = {key: getattr(self, key).to_dict() for key in ("dense", "pruned", "difference")}
        return {"measure": self.measure, "scaled": self.scaled, **numbers}


@dataclass(frozen=True)
class CalibrationChange:
    """Calibration of both models on ``n`` choices of ``n_examples``; temperatures were fitted on ``n_fitted`` other examples."""

    n: int
    n_examples: int
    fitted_on: str
    n_fitted: int
    temperatures: dict[str, float]
    rows: tuple[CalibrationRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**vars(self), "rows": [row.to_dict() for row in self.rows]}


def calibration_change(
    dense: nn.Module,
    pruned: nn.Module,
    examples: Batched,
    task: Task,
    *,
    fit_on: Batched | None,
    fitted_on: str = "",
    confidence: float = 0.95,
    bootstrap: int = 1000,
    seed: int = 0,
) -> CalibrationChange | None:
    """Return how well calibrated both models are, before and after a temperature; None where a task chooses among no classes.

    Args:
        fit_on: examples that neither model learnt from, and that aren't measured; None: no temperature is fitted.
        fitted_on: what these are called.
    """
    examples = some_of(examples)
    models = {"dense": dense, "pruned": pruned}
    temperatures: dict[str, float] = {}
    if fit_on is not None:
        for name, model in models.items():
            found = _choices(model, fit_on, task, most=MOST_PLACES)
            if found is None:
                return None
            temperatures[name] = fit_temperature(*found)
    seen: dict[str, Observed] = {}
    for name, model in models.items():
        one = calibration_of(model, examples, task, temperatures=(1.0, *([temperatures[name]] if temperatures else [])))
        if one is None:
            return None
        seen[name] = one
    rows: list[CalibrationRow] = []
    for number in range(2 if temperatures else 1):
        pair = [{"sums": seen[name]["sums"][:, number]} for name in models]
        values = resample(pair, _measures, reads=("sums",), resamples=bootstrap, seed=seed)
        for column, measure in enumerate(MEASURES):
            parts = [values[0, :, column], values[1, :, column], values[1, :, column] - values[0, :, column]]
            rows.append(CalibrationRow(measure, number == 1, *(_measured(measure, part, confidence) for part in parts)))
    sums = seen["dense"]["sums"][:, 0]
    n_fitted = 0 if fit_on is None else len(fit_on)
    return CalibrationChange(
        int(sums[:, :BINS].sum()),
        len(sums),
        fitted_on if fit_on is not None else "",
        n_fitted,
        temperatures,
        tuple(rows),
    )


def some_of(examples: Batched) -> Batched:
    """Return the examples that calibration is measured on: all, or of very many some, evenly from first to last."""
    if len(examples) <= MOST_MEASURED or not isinstance(examples, Examples):
        return examples
    return examples.take(torch.arange(MOST_MEASURED) * len(examples) // MOST_MEASURED)


def _measured(name: str, values: Floats, confidence: float) -> Measurement:
    value = float(values[0])
    low, high = interval(values[1:], confidence)
    return Measurement(name, value, min(low, value), max(high, value), "", False)


def calibration_of(
    model: nn.Module, examples: Batched, task: Task, *, temperatures: Sequence[float] = (1.0,)
) -> Observed | None:
    """Return each example's sums: choices, confidence and right ones of each bin, squared errors, surprise.

    None where the task chooses among no classes.

    Shapes:
        ``sums`` is ``(n, temperatures, 3 * BINS + 2)``.
    """
    parts: list[Tensor] = []
    for batch, outputs in _answers(model, examples):
        found = task.choices(outputs, batch)
        if found is None:
            return None
        sums = torch.zeros(len(batch.index), len(temperatures), 3 * BINS + 2, dtype=torch.float64)
        step = max(1, _AT_ONCE // max(found.scores.shape[1], 1))
        for start in range(0, len(found.right), step):
            part = slice(start, start + step)
            scores, right, example = (one[part].detach().cpu() for one in found)
            for number, temperature in enumerate(temperatures):
                _add(sums[:, number], scores.double() / temperature, right, example)
        parts.append(sums)
    if not parts:
        raise DataError("calibration needs at least one example: got an empty set")
    return {"sums": torch.cat(parts).numpy()}


def _add(sums: Tensor, scores: Tensor, right: Tensor, example: Tensor) -> None:
    """Add to each example's sums what its choices tell."""
    logs = scores.log_softmax(dim=1)
    chances = logs.exp()
    sure, said = chances.max(dim=1)
    # A confidence of exactly 1/15 belongs to the first bin: bins are closed on the right.
    place = (sure * BINS).ceil().long().clamp(1, BINS) - 1
    for number, what in enumerate((torch.ones_like(sure), sure, (said == right).double())):
        sums.index_put_((example, number * BINS + place), what, accumulate=True)
    own = logs.gather(1, right[:, None])[:, 0]
    brier = chances.square().sum(dim=1) - 2 * own.exp() + 1
    sums.index_put_((example, torch.full_like(example, 3 * BINS)), brier, accumulate=True)
    sums.index_put_((example, torch.full_like(example, 3 * BINS + 1)), -own, accumulate=True)


def _measures(seen: Observed, weights: Floats) -> Floats:
    """Return every measure, in the order of ``MEASURES``, of the sums under each row of weights: ``(rows, measures)``."""
    sums = weights @ seen["sums"]
    count, sure, right = (sums[:, k * BINS : (k + 1) * BINS] for k in range(3))
    total = np.maximum(count.sum(axis=1), 1.0)
    gap = np.abs(sure - right).sum(axis=1) / total
    held = np.maximum(count, 1.0)
    off, share = (sure - right) / held, right / held
    # What a bin's gap is by chance alone: the variance of its share of right ones.
    noise = np.where(count > 1, share * (1 - share) / np.maximum(count - 1, 1.0), 0.0)
    square = (count * (off**2 - noise)).sum(axis=1) / total
    proper = sums[:, 3 * BINS :] / total[:, None]
    return np.column_stack([gap, np.sqrt(np.maximum(square, 0.0)), proper])


def fit_temperature(scores: Tensor, right: Tensor) -> float:
    """Return what to divide scores by so that the right classes surprise least; at most 100 and at least 0.01.

    The surprise is convex in the inverse of it, whose best value is found by bisection of the slope.

    References:
        Guo et al., ICML 2017, arXiv:1706.04599.

    >>> fit_temperature(torch.tensor([[0.0, 4.0]] * 4), torch.tensor([1, 1, 1, 0])).__round__(2)  # 4 / T = ln 3
    3.64
    """
    values = scores.double()
    low, high = np.log(0.01), np.log(100.0)
    for _ in range(60):
        middle = (low + high) / 2
        chances = (values * float(np.exp(middle))).softmax(dim=1)
        slope = (chances * values).sum(dim=1).mean() - values.gather(1, right[:, None]).mean()
        low, high = (low, middle) if float(slope) > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def _choices(model: nn.Module, examples: Batched, task: Task, *, most: int) -> tuple[Tensor, Tensor] | None:
    """Return scores and right classes of the first ``most`` choices, evenly from each batch where there are more."""
    held: tuple[Tensor, Tensor] | None = None
    n_seen = 0
    for batch, outputs in _answers(model, examples):
        found = task.choices(outputs, batch)
        if found is None:
            return None
        # Pixels of one image are alike: of many choices some of each example tell more than all of the first.
        step = max(1, len(found.right) * max(len(examples), 1) // (most * max(len(batch.index), 1)))
        scores, right = found.scores.detach()[::step], found.right[::step]
        n_new = min(len(right), most - n_seen)
        held = held or (torch.zeros(0, scores.shape[1]), torch.zeros(0, dtype=torch.int64))
        held = _with_room(held[0], n_seen + n_new, most), _with_room(held[1], n_seen + n_new, most)
        # Copied: a view of few keeps all scores of its batch.
        held[0][n_seen : n_seen + n_new], held[1][n_seen : n_seen + n_new] = scores[:n_new], right[:n_new]
        n_seen += n_new
        if n_seen >= most:
            break
    return None if held is None else (held[0][:n_seen], held[1][:n_seen])


def _with_room(held: Tensor, n: int, most: int) -> Tensor:
    """Return a tensor of at least ``n`` rows, with those that there are first; it grows to twice as many, never beyond ``most``."""
    if n <= len(held):
        return held
    more = min(max(n, 2 * len(held)), most) - len(held)
    return torch.cat([held, held.new_zeros(more, *held.shape[1:])])


def _answers(model: nn.Module, examples: Batched) -> Iterator[tuple[Batch, Any]]:
    with evaluated(model, examples) as batches:
        for batch in batches:
            yield batch, call(model, batch.inputs)
