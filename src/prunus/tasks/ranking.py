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
    by_example = np.ascontiguousarray(weights.T)
    curves = [_curve(has, score, by_example) for has, score in classes]
    return Ranked(*(np.stack(parts, axis=1) for parts in zip(*curves, strict=True)))


def _curve(positive: Bools, scores: Floats, weights: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return areas and counts of one class; ``weights`` is ``(n, resamples)``.

    A curve rises only where an example has the class: all that lies between two such scores is summed at once.
    """
    n_all = weights.sum(axis=0)
    if not positive.any():
        nothing = np.zeros_like(n_all)
        return nothing, nothing, nothing, n_all
    order = np.argsort(-scores, kind="stable")
    falling, has = scores[order], positive[order]
    steps = np.cumsum(np.append(False, falling[1:] != falling[:-1]))  # the place of each example's score among all
    rises = np.unique(steps[has])
    # Two stretches for each score at which the curve rises: what is scored higher, up to the last rise, and that score itself.
    stretch = np.searchsorted(rises, steps) + np.searchsorted(rises, steps, side="right")
    seen = np.zeros((2 * len(rises) + 1, weights.shape[1]))
    first = np.flatnonzero(np.append(True, stretch[1:] != stretch[:-1]))
    seen[stretch[first]] = np.add.reduceat(weights[order], first, axis=0)
    found = np.add.reduceat(weights[order[has]], np.searchsorted(steps[has], rises), axis=0)
    tied = seen[1::2] - found  # that haven't the class, at the same score
    up_to, found_up_to = np.cumsum(seen, axis=0)[1::2], np.cumsum(found, axis=0)
    n_positive = found_up_to[-1]
    n_negative = n_all - n_positive
    below = n_negative - (up_to - found_up_to) + tied / 2
    area = ratio((found * below).sum(axis=0), n_positive * n_negative)
    precision = ratio((found * ratio(found_up_to, up_to)).sum(axis=0), n_positive)
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
