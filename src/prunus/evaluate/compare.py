"""Is the pruned model worse than the dense one, better, or can't one tell?

Both answer the same examples, and each seed gives a pair, so the comparison is paired twice: a resample draws seeds and
examples, and takes both models' answers to the same ones. What the two have in common cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Any, Literal

import numpy as np
from torch import Tensor

from prunus.core.runtime import derive_seed
from prunus.core.types import Floats, Measurement
from prunus.evaluate.metrics import check_metrics, class_parts, metrics
from prunus.evaluate.resample import confusion, draws, interval, predicted_of

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


def compare(
    dense: Sequence[Tensor],
    pruned: Sequence[Tensor],
    targets: Tensor,
    *,
    task: Literal["classification", "regression"],
    class_names: Sequence[str] = (),
    metrics: Sequence[str],
    confidence: float = 0.95,
    bootstrap: int = 1000,
    seed: int = 0,
) -> tuple[Comparison, ...]:
    """Return the comparison for every metric.

    Args:
        dense: outputs of the dense model of each seed on the same examples.
        pruned: outputs of the pruned model of each seed, in the same order.

    Raises:
        RecipeError: an unknown metric, or one of another task.
    """
    check_metrics(metrics, task)
    n_seeds = len(dense)
    pair = {"dense": dense, "pruned": pruned}
    weights = np.concatenate([np.ones((1, len(targets)), np.int64), draws(len(targets), bootstrap, seed)])
    # (metric, model) -> (seeds, 1 + resamples): the first column is the plain value.
    values = {
        (name, model): np.stack([row[name] for row in rows])
        for model, outputs in pair.items()
        for rows in [[_values(o, targets, task, len(class_names), metrics, weights) for o in outputs]]
        for name in metrics
    }
    rng = np.random.default_rng(derive_seed(seed, "bootstrap", "seeds"))
    chosen = rng.integers(0, n_seeds, (bootstrap, n_seeds))
    method = "paired bootstrap over examples" + (
        " and seeds" if n_seeds > 1 else "; one seed says nothing about other seeds"
    )
    return tuple(
        _comparison(name, values[name, "dense"], values[name, "pruned"], chosen, confidence, method) for name in metrics
    )


def _values(
    outputs: Tensor, targets: Tensor, task: str, n_classes: int, names: Sequence[str], weights: Any
) -> dict[str, Floats]:
    predicted = predicted_of(outputs, task)
    if task == "classification":
        counts = confusion(targets.cpu().numpy(), predicted, max(n_classes, outputs.shape[1]), weights)
        return {name: metrics[name].function(counts) for name in names}
    true = targets.cpu().double().numpy()
    found: dict[str, list[float]] = {name: [] for name in names}
    for row in weights:
        index = np.repeat(np.arange(len(true)), row)
        for name in names:
            found[name].append(float(metrics[name].function(true[None, index], predicted[None, index])[0]))
    return {name: np.array(value) for name, value in found.items()}


def _comparison(name: str, dense: Floats, pruned: Floats, chosen: Any, confidence: float, method: str) -> Comparison:
    metric = metrics[name]
    difference = pruned - dense
    resampled = difference[:, 1:]
    spread = resampled[chosen, np.arange(len(chosen))[:, None]].mean(axis=1)
    value = float(difference[:, 0].mean())
    low, high = interval(spread, confidence)
    sense = 1 if metric.higher_is_better else -1
    verdict: Verdict = "no measurable difference"
    if low > 0 or high < 0:
        verdict = "better" if sense * value > 0 else "worse"
    return Comparison(
        name,
        float(dense[:, 0].mean()),
        float(pruned[:, 0].mean()),
        Measurement(name, value, low, high, metric.unit, metric.higher_is_better),
        stdev(dense[:, 0].tolist()) if len(dense) > 1 else None,
        stdev(pruned[:, 0].tolist()) if len(pruned) > 1 else None,
        len(dense),
        verdict,
        method,
    )


def class_changes(
    dense: Sequence[Tensor],
    pruned: Sequence[Tensor],
    targets: Tensor,
    *,
    class_names: Sequence[str],
    confidence: float = 0.95,
    bootstrap: int = 1000,
    seed: int = 0,
) -> tuple[Measurement, ...]:
    """Return the change of each class's recall, pruned minus dense, mean over seeds, with its paired interval.

    A class without examples is left out.
    """
    weights = np.concatenate([np.ones((1, len(targets)), np.int64), draws(len(targets), bootstrap, seed)])
    true = targets.cpu().numpy()

    def recall(outputs: Sequence[Tensor]) -> Floats:
        n_classes = max(len(class_names), outputs[0].shape[1])
        parts = [
            class_parts(confusion(true, predicted_of(o, "classification"), n_classes, weights))[1] for o in outputs
        ]
        return np.stack(parts)

    difference = recall(pruned) - recall(dense)
    rng = np.random.default_rng(derive_seed(seed, "bootstrap", "seeds"))
    chosen = rng.integers(0, len(dense), (bootstrap, len(dense)))
    spread = difference[:, 1:][chosen, np.arange(bootstrap)[:, None]].mean(axis=1)
    present = np.bincount(true, minlength=len(class_names)) > 0
    return tuple(
        Measurement(name, float(difference[:, 0, i].mean()), *interval(spread[:, i], confidence), "", True)
        for i, name in enumerate(class_names)
        if present[i]
    )
