"""How well do scores rank the examples that have a class before those that haven't?

No sum over examples tells that. The examples are sorted once, and the curve is counted anew under each row of weights; examples of
one score are a single step of it, so their order doesn't matter. Of two exclusive classes the second one is ranked, of more each
against the rest; a class that an average can't judge, since every example or none has it, doesn't count in it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from prunus.core.errors import RecipeError
from prunus.core.types import Bools, Floats
from prunus.tasks.metric import metric, ratio
from prunus.tasks.task import Observed

__all__ = ["LogLoss", "Ranked", "auroc", "average_precision", "log_loss", "mean_average_precision", "ranked"]


class Ranked(NamedTuple):
    """What the curves of each class enclose, and how many examples have the class or haven't, each ``(resamples, classes)``."""

    area: Floats
    precision: Floats
    positive: Floats
    negative: Floats


def ranked(observed: Observed, weights: Floats) -> Ranked:
    """Return the areas under the curves of each class.

    Shapes:
        ``true`` holds class numbers ``(n,)`` or a truth value per label ``(n, labels)``; ``scores`` is ``(n, classes)``.
    """
    true, scores = observed["true"], observed["scores"]
    if scores.shape[1] == 0:
        raise RecipeError("auroc and average_precision rank the scores of at most 100 classes: name other metrics")
    if true.ndim == 2:
        classes = [(true[:, label] > 0, scores[:, label]) for label in range(true.shape[1])]
    elif scores.shape[1] == 2:
        classes = [(true == 1, scores[:, 1] - scores[:, 0])]
    else:
        classes = [(true == number, scores[:, number]) for number in range(scores.shape[1])]
    curves = [_curve(has, score, weights) for has, score in classes]
    return Ranked(*(np.stack(parts, axis=1) for parts in zip(*curves, strict=True)))


def _curve(positive: Bools, scores: Floats, weights: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    ends = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(order) - 1)  # the last example of each score
    sorted_weights = weights[:, order]
    found = np.cumsum(sorted_weights * positive[order], axis=1)[:, ends]
    seen = np.cumsum(sorted_weights, axis=1)[:, ends]
    n_positive, n_negative = found[:, -1], seen[:, -1] - found[:, -1]
    before = np.pad(found, ((0, 0), (1, 0)))[:, :-1]
    new_false = np.diff(seen - found, axis=1, prepend=0.0)
    area = ratio((new_false * (before + found) / 2).sum(axis=1), n_positive * n_negative)
    precision = ratio(((found - before) * ratio(found, seen)).sum(axis=1), n_positive)
    return area, precision, n_positive, n_negative


@metric(
    "auroc",
    task=("classification", "multilabel"),
    higher_is_better=True,
    label="AUROC",
    totals=ranked,
    reads=("true", "scores"),
)
def auroc(curves: Ranked) -> Floats:
    """Return the chance that an example of a class is ranked before another, a tie half a chance; .5 where there are no others."""
    judged = (curves.positive > 0) & (curves.negative > 0)
    n_judged = judged.sum(axis=1)
    return np.where(n_judged > 0, ratio((curves.area * judged).sum(axis=1), n_judged.astype(np.float64)), 0.5)


def _mean_precision(curves: Ranked) -> Floats:
    there = curves.positive > 0
    return ratio((curves.precision * there).sum(axis=1), there.sum(axis=1).astype(np.float64))


@metric(
    "average_precision",
    task="classification",
    higher_is_better=True,
    label="average precision",
    totals=ranked,
    reads=("true", "scores"),
)
def average_precision(curves: Ranked) -> Floats:
    """Return the area under the steps of precision over recall; of more than two classes the mean."""
    return _mean_precision(curves)


@metric(
    "mean_average_precision",
    task="multilabel",
    higher_is_better=True,
    label="mean average precision",
    default=1,
    totals=ranked,
    reads=("true", "scores"),
)
def mean_average_precision(curves: Ranked) -> Floats:
    """Return the mean, over the labels that an example has, of the area under the steps of precision over recall."""
    return _mean_precision(curves)


class LogLoss(NamedTuple):
    """The summed surprise, in nats, and how many examples there are, each ``(resamples,)``."""

    nll: Floats
    examples: Floats


def _surprise(observed: Observed, weights: Floats) -> LogLoss:
    return LogLoss(weights @ observed["nll"], weights.sum(axis=1))


@metric(
    "log_loss",
    task="classification",
    higher_is_better=False,
    label="log loss",
    totals=_surprise,
    reads=("nll",),
)
def log_loss(total: LogLoss) -> Floats:
    """Return the mean of -log of the probability of the true class, in nats."""
    return ratio(total.nll, total.examples)
