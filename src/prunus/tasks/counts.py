"""Which metrics are functions of three counts per class: found rightly, there, and said to be there?

Of classes, labels, spans and pixels alike: precision, recall and F1, and for regions the same counts under other names (IoU, Dice).
The tests hold every formula against torchmetrics. A class that no target has doesn't count in a macro average.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from prunus.core.types import Floats, Ints
from prunus.tasks.metric import metric, ratio
from prunus.tasks.task import Observed

__all__ = ["COUNTED", "Tally", "class_parts", "counted", "f1_micro", "macro", "tally"]

COUNTED = ("classification", "multilabel", "token_classification")
"""The tasks whose averages over classes are these."""


class Tally(NamedTuple):
    """Counts per class, each ``(resamples, classes)``: found rightly, in the targets, in the predictions."""

    right: Floats
    support: Floats
    predicted: Floats


def tally(targets: Ints, predicted: Ints, n_classes: int, weights: Floats | Ints) -> Tally:
    """Return the counts where each example has one class, ``(n,)``, under each row of ``weights`` ``(resamples, n)``."""
    right = np.where(targets == predicted, weights, 0)
    return Tally(
        _sum_by(targets, right, n_classes), _sum_by(targets, weights, n_classes), _sum_by(predicted, weights, n_classes)
    )


def counted(observed: Observed, weights: Floats) -> Tally:
    """Return the counts where an example has its own, in columns ``n_right``, ``n_there`` and ``n_said``, each ``(n, classes)``."""
    return Tally(*(weights @ observed[name].astype(np.float64) for name in ("n_right", "n_there", "n_said")))


def _sum_by(number: Ints, weights: Floats | Ints, n: int) -> Floats:
    """Return the sums of the columns of ``weights`` that share a number, ``(rows, n)``."""
    order = np.argsort(number, kind="stable")
    numbers, starts = np.unique(number[order], return_index=True)
    sums = np.zeros((len(weights), n))
    sums[:, numbers] = np.add.reduceat(weights[:, order].astype(np.float64), starts, axis=1)
    return sums


def class_parts(counts: Tally) -> tuple[Floats, Floats, Floats]:
    """Return precision, recall and F1 per class, each ``(resamples, classes)``; F1 is 2 TP / (2 TP + FP + FN)."""
    right, support, predicted = counts
    return ratio(right, predicted), ratio(right, support), ratio(2 * right, support + predicted)


def macro(values: Floats, support: Floats) -> Floats:
    """Return the mean over the classes that have examples."""
    present = support > 0
    return ratio((values * present).sum(axis=1), present.sum(axis=1).astype(np.float64))


def _weighted(values: Floats, support: Floats) -> Floats:
    return ratio((values * support).sum(axis=1), support.sum(axis=1))


@metric("accuracy", task="classification", higher_is_better=True, unit="share", exact_test=True, default=0)
def accuracy(counts: Tally) -> Floats:
    """Return the share of examples whose most likely class is the target."""
    return ratio(counts.right.sum(axis=1), counts.support.sum(axis=1))


@metric(
    "f1_micro",
    task=("multilabel", "token_classification"),
    higher_is_better=True,
    label="micro F1",
    unit="share",
    default=0,
)
def f1_micro(counts: Tally) -> Floats:
    """Return F1 of all labels, tokens or spans together: 2 TP / (2 TP + FP + FN)."""
    right, support, predicted = (count.sum(axis=1) for count in counts)
    return ratio(2 * right, support + predicted)


def _add_average(part: int, name: str, label: str, average: Callable[[Floats, Floats], Floats], how: str) -> None:
    def function(counts: Tally) -> Floats:
        return average(class_parts(counts)[part], counts.support)

    weights = {"macro": "every class alike", "weighted": "each by its examples"}[how]
    function.__doc__ = f"Return the mean {label} over the classes, {weights}."
    register = metric(
        f"{name}_{how}",
        task=COUNTED,
        higher_is_better=True,
        label=f"{how} {label}",
        unit="share",
        default=1,
    )
    register(function)


for _part, (_name, _label) in enumerate((("precision", "precision"), ("recall", "recall"), ("f1", "F1"))):
    _add_average(_part, _name, _label, macro, "macro")
    _add_average(_part, _name, _label, _weighted, "weighted")
