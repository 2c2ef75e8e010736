"""Which given labels does a model contradict with confidence, and how many of each class does that make?

Confident learning: a class is *confidently* an example's where its probability reaches the mean probability of that class among
the examples that carry its label. The probabilities must come from models that didn't train on the example (out of fold), or from
the course of a training. Rows are read twice, in blocks, so the memory needed doesn't grow with the input, and shards may be files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunus.core.errors import DataError, ShapeError
from prunus.core.types import Bools, Floats, Ints

__all__ = ["ConfidentLabels", "confident_labels"]

Shard = tuple[Any, Any]
"""Probabilities ``(n, classes)`` and labels ``(n,)``: NumPy arrays, memory maps or tensors."""

_BLOCK = 1 << 18
"""Numbers of one block: a few blocks fit into a core's cache."""
_TOLERANCE = 1e-2
"""By so much a row's sum may miss 1: probabilities are kept in half precision, too."""


@dataclass(frozen=True)
class ConfidentLabels:
    """What confident learning says about every example, and about the classes.

    Shapes:
        Of each example, ``(n,)``: ``suggested`` is the class that is confidently its own, -1 where none is; ``own`` and ``best``
        are the probabilities of the given label and of the suggested class (0 where none is); ``contradicted``: another class is
        suggested than the given one. Of each class, ``(classes,)``: its ``thresholds``, infinite where no label names it, and how
        many ``labels`` do. ``joint`` is ``(classes, classes)``: how many examples with label i are confidently of class j.
    """

    suggested: npt.NDArray[np.int32]
    own: npt.NDArray[np.float32]
    best: npt.NDArray[np.float32]
    contradicted: Bools
    thresholds: Floats
    joint: Ints
    labels: Ints

    @property
    def calibrated_joint(self) -> Floats:
        """The share of each given label (row) and class (column), ``(classes, classes)``; rows as frequent as the labels are."""
        rows = self.joint.sum(axis=1, keepdims=True)
        # A label none of whose examples is confidently anything is taken at its word.
        shares = np.where(rows > 0, self.joint / np.maximum(rows, 1), np.eye(len(self.joint)))
        return np.asarray(shares * (self.labels / max(self.labels.sum(), 1))[:, None])

    @property
    def noise_fraction(self) -> float:
        """The share of labels that are of another class, by the joint; the model's own mistakes count, too."""
        joint = self.calibrated_joint
        return float(joint.sum() - np.trace(joint))


def confident_labels(shards: Sequence[Shard]) -> ConfidentLabels:
    """Return which labels the probabilities contradict with confidence.

    Args:
        shards: pairs of probabilities and labels, read twice in their order, one at a time: it may open a file at ``[i]``.

    Raises:
        DataError: no rows, fewer than two classes, a label outside them, or a row that is no distribution.
        ShapeError: probabilities and labels of different lengths, or shards of different widths.

    References:
        Northcutt, Jiang and Chuang, JAIR 2021, arXiv:1911.00068: the confident joint, with the class of the highest probability
        *among those that reach their threshold* (eq. 1); cleanlab takes the highest of all where several reach theirs.

    >>> probability = np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9], [0.8, 0.2]])
    >>> found = confident_labels([(probability, np.array([0, 0, 1, 0]))])
    >>> found.contradicted.tolist(), found.joint.tolist()
    ([False, False, False, False], [[2, 0], [0, 1]])
    """
    n, labels, sums = 0, np.zeros(0, np.int64), np.zeros(0)
    for probability, given in _blocks(shards):
        classes = probability.shape[1]
        if not n:
            labels, sums = np.zeros(classes, np.int64), np.zeros(classes)
        own = probability.gather(1, given[:, None])[:, 0]
        sums += torch.bincount(given, own.double(), minlength=classes).numpy()
        labels += torch.bincount(given, minlength=classes).numpy()
        n += len(given)
    if not n:
        raise DataError("confident learning needs probabilities and labels: got no rows")
    thresholds = np.where(labels > 0, sums / np.maximum(labels, 1), np.inf)
    found = ConfidentLabels(
        suggested=np.empty(n, np.int32),
        own=np.empty(n, np.float32),
        best=np.empty(n, np.float32),
        contradicted=np.empty(n, np.bool_),
        thresholds=thresholds,
        joint=np.zeros((len(labels), len(labels)), np.int64),
        labels=labels,
    )
    # A probability that equals the mean of equal probabilities reaches it, whatever the sum's rounding was.
    reached = torch.from_numpy(thresholds * (1 - 1e-6)).float()
    start = 0
    for probability, given in _blocks(shards):
        best, suggested = torch.where(probability >= reached, probability, -1.0).max(dim=1)
        none = best < 0
        suggested[none] = -1
        rows = slice(start, start + len(given))
        found.suggested[rows] = suggested.numpy()
        found.best[rows] = best.clamp(min=0).numpy()
        found.own[rows] = probability.gather(1, given[:, None])[:, 0].numpy()
        found.contradicted[rows] = (~none & (suggested != given)).numpy()
        pairs = (given * len(labels) + suggested)[~none]
        found.joint.reshape(-1)[:] += torch.bincount(pairs, minlength=found.joint.size).numpy()
        start += len(given)
    return found


def _blocks(shards: Sequence[Shard]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield float32 probabilities and labels in checked blocks."""
    width, start = 0, 0
    for number in range(len(shards)):
        probability, given = shards[number]
        if probability.ndim != 2 or tuple(given.shape) != (len(probability),):
            raise ShapeError(
                f"probabilities are (n, classes) and labels (n,): got {tuple(probability.shape)} and {tuple(given.shape)} in "
                f"shard {number}"
            )
        if probability.shape[1] < 2:
            raise DataError(f"labels can be wrong where there are at least two classes: got {probability.shape[1]}")
        if width and probability.shape[1] != width:
            raise ShapeError(
                f"all shards have as many classes: got {probability.shape[1]} in shard {number} after {width}"
            )
        width = probability.shape[1]
        step = max(_BLOCK // width, 1)
        for row in range(0, len(probability), step):
            rows, own = _tensor(probability[row : row + step]).float(), _tensor(given[row : row + step])
            yield _checked(rows, own, start + row)
        start += len(probability)


def _tensor(values: Any) -> Tensor:
    return values.detach().cpu() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))


def _checked(probability: Tensor, given: Tensor, start: int) -> tuple[Tensor, Tensor]:
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise DataError(f"labels are class numbers: got {str(given.dtype).removeprefix('torch.')}")
    given = given.long()
    outside = (given < 0) | (given >= probability.shape[1])
    if outside.any():
        row = int(outside.nonzero()[0])
        raise DataError(
            f"labels are class numbers from 0 to {probability.shape[1] - 1}: got {int(given[row])} in row {start + row}"
        )
    # Also false where there is NaN or infinity.
    good = ((probability.sum(dim=1) - 1).abs() <= _TOLERANCE) & (probability.amin(dim=1) >= 0)
    if not good.all():
        row = int((~good).nonzero()[0])
        raise DataError(
            f"probabilities are >= 0 and sum to 1 in every row: row {start + row} sums to {float(probability[row].sum()):.6g}, "
            f"its least is {float(probability[row].min()):.6g}; give softmax outputs, not logits"
        )
    return probability, given
