"""How is a sequence of tokens read and counted? With scores of classes (or a vocabulary) at each place, -100 where none is asked.

Sums over tokens are divided once, at the end: a long sequence counts for more than a short one, as perplexity is defined.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prunus.core.batch import Batch
from prunus.core.calls import described
from prunus.core.errors import DataError, ShapeError
from prunus.core.predictions import Prediction, check_outputs_finite
from prunus.core.types import Floats
from prunus.tasks.metric import metric, ratio
from prunus.tasks.one_tensor import leading_tensor
from prunus.tasks.task import Choices, Observed, Task

__all__ = [
    "IGNORED",
    "TokenTask",
    "Tokens",
    "check_tokens",
    "labels_among",
    "perplexity",
    "token_accuracy",
    "token_scores",
]

IGNORED = -100


class Tokens(NamedTuple):
    """Sums over tokens, each ``(resamples,)``: surprise in nats, rightly answered, and all of them."""

    nll: Floats
    right: Floats
    tokens: Floats


def _counts(observed: Observed, weights: Floats) -> Tokens:
    """Return the sums over the examples' tokens."""
    return Tokens(*(weights @ observed[name].astype(np.float64) for name in ("nll", "tokens_right", "tokens")))


def labels_among(inputs: Any) -> Any:
    """Return the labels that a model of transformers takes along with its inputs, None where there are none."""
    return inputs.get("labels") if isinstance(inputs, Mapping) else None


def token_scores(task: str, outputs: Any, n: int, length: int) -> Tensor:
    """Return scores ``(n, length, classes)``.

    Raises:
        ShapeError: they aren't of that shape.
    """
    found = leading_tensor(outputs)
    if found.ndim != 3 or tuple(found.shape[:2]) != (n, length):
        raise ShapeError(
            f"{task}: expected scores for each token, ({n}, {length}, classes): got {tuple(found.shape)}"
            + ("" if found is outputs else f" in {described(outputs)}")
        )
    return found


def check_tokens(task: str, labels: Any, n: int, n_classes: int | None = None) -> Tensor:
    """Return labels ``(n, length)``, once they're class numbers or -100.

    Raises:
        DataError: they aren't.
    """
    kinds = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
    if not isinstance(labels, Tensor) or labels.dtype not in kinds or labels.ndim != 2 or len(labels) != n:
        raise DataError(
            f"{task}: expected a class number for each token, ({n}, tokens), -100 where none is asked: got {described(labels)}"
        )
    held = labels[labels != IGNORED]
    if n_classes is not None and len(held) and (int(held.min()) < 0 or int(held.max()) >= n_classes):
        raise DataError(
            f"{task}: expected class numbers 0..{n_classes - 1}, or -100 where none is asked: got "
            f"{int(held.min())}..{int(held.max())}"
        )
    return labels.long()


class TokenTask(Task):
    """A task whose answer is a score for each token of a vocabulary (or class) at each place."""

    reads: ClassVar[tuple[str, ...]] = ("nll", "tokens_right", "tokens")

    @abstractmethod
    def read(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return scores ``(n, tokens, vocabulary)`` and the tokens that they're for, ``(n, tokens)``, -100 where none is asked."""

    def check(self, outputs: Any, batch: Batch) -> None:
        """See that there are scores for each token."""
        self.read(outputs, batch)

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the mean surprise at an example's tokens, in nats."""
        each, asked = _losses(*self.read(outputs, batch))
        return each.sum(dim=1) / asked.sum(dim=1).clamp(min=1)

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the mean surprise at all tokens of the batch."""
        each, asked = _losses(*self.read(outputs, batch))
        return each.sum() / asked.sum().clamp(min=1)

    def weight_of(self, batch: Batch) -> Tensor | int:
        """Return how many tokens are asked."""
        targets = labels_among(batch.inputs) if batch.targets is None else batch.targets
        return len(batch.index) if targets is None else (targets != IGNORED).sum()

    def observe(self, outputs: Any, batch: Batch) -> Observed:
        """Return the sums over an example's tokens; it is ``right`` when all of them are."""
        return _observed(*self.read(outputs, batch))

    def totals(self, observed: Observed, weights: Floats) -> Any:
        """Return the sums over all tokens."""
        return _counts(observed, weights)

    def choices(self, outputs: Any, batch: Batch) -> Choices:
        """Return the scores at each place where a token is asked."""
        scores, labels = self.read(outputs, batch)
        example, place = (labels != IGNORED).nonzero(as_tuple=True)
        return Choices(scores[example, place].float(), labels[example, place], example)

    def decode(self, outputs: Any) -> Prediction:
        """Return the most likely token at each place (what follows it, of a causal model), as its number."""
        scores = leading_tensor(outputs)
        check_outputs_finite(scores)
        if scores.ndim != 3:
            raise ShapeError(f"{self.name}: expected scores (n, tokens, vocabulary): got {tuple(scores.shape)}")
        return Prediction(tuple(scores.argmax(dim=2).tolist()))


def _losses(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of each token, 0 where none is asked, and which are, both ``(n, tokens)``."""
    each = functional.cross_entropy(
        scores.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return each.reshape(labels.shape), labels != IGNORED


def _observed(scores: Tensor, labels: Tensor) -> Observed:
    """Return each example's surprise, its tokens, and how many get the highest score; one by one, for memory's sake."""
    rows = []
    for one, wanted in zip(scores.detach(), labels, strict=True):
        asked = wanted != IGNORED
        one, wanted = one[asked].float(), wanted[asked]
        nll = functional.cross_entropy(one, wanted, reduction="none").double().sum()
        right = (one.argmax(dim=1) == wanted).sum()
        rows.append((float(nll), int(right), len(wanted)))
    nlls, rights, tokens = (np.asarray(column) for column in zip(*rows, strict=True))
    return {
        "nll": nlls.astype(np.float64),
        "tokens_right": rights.astype(np.int64),
        "tokens": tokens.astype(np.int64),
        "right": rights == tokens,
    }


@metric(
    "perplexity",
    task=("language", "sequence_to_sequence"),
    higher_is_better=False,
    label="perplexity",
    default=0,
    totals=_counts,
    reads=("nll", "tokens_right", "tokens"),
)
def perplexity(counts: Tokens) -> Floats:
    """Return e to the mean surprise of a token: among how many equally likely ones the model would be as unsure."""
    value: Floats = np.exp(np.minimum(ratio(counts.nll, counts.tokens), 700.0))
    return value


@metric(
    "token_accuracy",
    task=("language", "sequence_to_sequence", "token_classification"),
    higher_is_better=True,
    label="token accuracy",
    unit="share",
    default=1,
    totals=_counts,
    reads=("nll", "tokens_right", "tokens"),
)
def token_accuracy(counts: Tokens) -> Floats:
    """Return the share of tokens whose most likely answer is the target."""
    return ratio(counts.right, counts.tokens)
