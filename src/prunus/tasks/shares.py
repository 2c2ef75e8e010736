"""Which share of the examples is answered wholly right?

Where ``right`` is among the observations, a share of examples is counted, not resampled: Wilson's interval, exact tests.
"""

from __future__ import annotations

from typing import NamedTuple

from prunus.core.types import Floats
from prunus.tasks.metric import metric, ratio
from prunus.tasks.task import Observed

__all__ = ["Share", "counted_right", "exact_match", "subset_accuracy"]


class Share(NamedTuple):
    """How many examples are right, and how many there are, each ``(resamples,)``."""

    right: Floats
    examples: Floats


def counted_right(observed: Observed, weights: Floats) -> Share:
    """Return the counts; of ``right``, one truth value per example."""
    return Share(weights @ observed["right"].astype(float), weights.sum(axis=1))


@metric(
    "subset_accuracy",
    task="multilabel",
    higher_is_better=True,
    label="subset accuracy",
    unit="share",
    exact_test=True,
    default=1,
    totals=counted_right,
    reads=("right",),
)
def subset_accuracy(counts: Share) -> Floats:
    """Return the share of examples whose labels are all right."""
    return ratio(counts.right, counts.examples)


@metric(
    "exact_match",
    task=("sequence_to_sequence", "token_classification"),
    higher_is_better=True,
    label="exact match",
    unit="share",
    exact_test=True,
    default=1,
    totals=counted_right,
    reads=("right",),
)
def exact_match(counts: Share) -> Floats:
    """Return the share of sequences of which every token is right, each answered with the true ones before it at hand."""
    return ratio(counts.right, counts.examples)
