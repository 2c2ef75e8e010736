"""One class for each example: a score per class, or a single logit for the second of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prunus.core.batch import Batch
from prunus.core.calls import described
from prunus.core.errors import DataError, ModelError, ShapeError
from prunus.core.predictions import Prediction, check_outputs_finite
from prunus.core.types import Bools, Floats, Ints
from prunus.tasks.counts import Tally, tally
from prunus.tasks.one_tensor import one_tensor
from prunus.tasks.task import Choices, Imagined, Observed, Task, task

__all__ = ["Classification"]

_AT_ONCE = 1 << 16

RANKED_CLASSES = 100
"""Of more classes no scores are kept for ranking: they'd be most of what an evaluation holds."""


@task("classification")
@dataclass(frozen=True)
class Classification(Task):
    """Targets are class numbers, ``(n,)``; outputs ``(n, classes)``, or of two classes one logit, ``(n,)`` or ``(n, 1)``.

    ``class_weights`` and ``label_smoothing`` are those of torch's cross-entropy.
    """

    reads: ClassVar[tuple[str, ...]] = ("true", "predicted")
    exclusive: ClassVar[bool] = True
    class_names: tuple[str, ...] = ()
    class_weights: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    n_classes: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_classes", max(len(self.class_names), self.n_classes))

    def check(self, outputs: Any, batch: Batch) -> None:
        """See that there is a score per class for each class number."""
        found, targets = one_tensor(outputs), batch.targets
        scores = widened(found) if self.n_classes in (0, 2) else found
        _check_shape(tuple(found.shape), tuple(scores.shape), len(batch.index), self.n_classes)
        if not isinstance(targets, Tensor) or targets.is_floating_point() or tuple(targets.shape) != (len(scores),):
            raise DataError(
                f"classification: expected one class number per example, ({len(scores)},): got {described(targets)}"
            )
        if bool(((targets < 0) | (targets >= scores.shape[1])).any()):
            raise ModelError(
                f"labels must be class numbers 0..{scores.shape[1] - 1}, got {targets.min()}..{targets.max()}"
            )

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the cross-entropy of each example, in nats, times its class's weight."""
        scores = self._scores(outputs, batch)
        weight = scores.new_tensor(self.class_weights) if self.class_weights else None
        return functional.cross_entropy(
            scores, batch.targets, weight=weight, label_smoothing=self.label_smoothing, reduction="none"
        )

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the mean cross-entropy, by the weights of the targets' classes."""
        scores = self._scores(outputs, batch)
        weight = scores.new_tensor(self.class_weights) if self.class_weights else None
        return functional.cross_entropy(scores, batch.targets, weight=weight, label_smoothing=self.label_smoothing)

    def weight_of(self, batch: Batch) -> Tensor | int:
        """Return the sum of the weights of the targets' classes."""
        if not self.class_weights:
            return len(batch.index)
        return torch.tensor(self.class_weights, device=batch.targets.device)[batch.targets].sum()

    def observe(self, outputs: Any, batch: Batch) -> Observed:
        """Return the class that is there and the one that is said, and the logarithms of the probabilities that rank."""
        scores = self._scores(outputs, batch).detach().cpu()
        true, predicted = batch.targets.cpu(), scores.argmax(dim=1)
        logs = scores.double().log_softmax(dim=1)
        return {
            "true": true.numpy(),
            "predicted": predicted.numpy(),
            "right": (true == predicted).numpy(),
            "nll": -logs.gather(1, true[:, None].long())[:, 0].numpy(),
            "scores": logs[:, : logs.shape[1] if logs.shape[1] <= RANKED_CLASSES else 0].float().numpy(),
        }

    def totals(self, observed: Observed, weights: Floats) -> Tally:
        """Return the counts per class."""
        return tally(observed["true"], observed["predicted"], self._number(observed), weights)

    def imagine(self, observed: Observed) -> Imagined | None:
        """Return an example of a class, drawn as the examples' are."""
        n_classes = self._number(observed)
        counts = np.bincount(observed["true"], minlength=n_classes)
        classes = np.flatnonzero(counts)
        # A wrong answer names the next class: it must cost precision, too, and no class more than another.
        wrong = (classes + 1) % n_classes
        found, missed = (
            {"true": classes, "predicted": said, "right": classes == said, **_as_sure(observed, classes, wrong, ok)}
            for ok, said in ((True, classes), (False, wrong))
        )
        return Imagined(counts[classes] / counts.sum(), found, missed)

    def decode(self, outputs: Any) -> Prediction:
        """Return the most likely class of each example, and the probability of every one."""
        found = one_tensor(outputs)
        check_outputs_finite(found)
        scores = widened(found) if len(self.class_names) == 2 or found.ndim == 2 else found
        if scores.ndim != 2 or scores.shape[1] != (len(self.class_names) or scores.shape[1]):
            raise ShapeError(
                f"a classifier's outputs must be (n, {len(self.class_names) or 'classes'}), one logit per class: "
                f"got {tuple(found.shape)}"
            )
        probabilities = torch.softmax(scores.detach().double(), dim=1).float()
        return Prediction(named(scores.argmax(dim=1).tolist(), self.class_names), probabilities)

    def choices(self, outputs: Any, batch: Batch) -> Choices:
        """Return the scores of each example's classes."""
        scores = self._scores(outputs, batch)
        return Choices(scores, batch.targets.long(), torch.arange(len(scores), device=scores.device))

    def _number(self, observed: Observed) -> int:
        seen = (int(column.max(initial=-1)) + 1 for column in (observed["true"], observed["predicted"]))
        return max(self.n_classes, *seen)

    def _scores(self, outputs: Any, batch: Batch) -> Tensor:
        """Return ``(n, classes)``."""
        found = one_tensor(outputs)
        n = len(batch.index)
        scores = widened(found) if self.n_classes in (0, 2) else found
        if scores.ndim != 2 or len(scores) != n:
            raise ShapeError(
                f"a classifier's outputs must be ({n}, classes) for this batch: got {tuple(found.shape)}; "
                "let the model return one logit per class"
            )
        return scores


def _as_sure(observed: Observed, classes: Ints, other: Ints, right: bool) -> Observed:
    """Return the scores of imagined answers: as sure as those that are right, or wrong, are on average."""
    if "nll" not in observed:
        return {}
    nll = observed["nll"]
    total, n_alike = _summed_where(nll, observed["right"], right)
    mean = min(total / n_alike if n_alike else float(nll.mean() if right else max(nll.max(), 1.0)), 700.0)
    width, rows = observed["scores"].shape[1], np.arange(len(classes))
    scores = np.full((len(classes), width), -700.0)
    if width > int(max(classes.max(), other.max())):
        scores[rows, other] = np.log(max(-np.expm1(-mean), 1e-300))
        scores[rows, classes] = -mean
    return {"nll": np.full(len(classes), mean), "scores": scores}


def _summed_where(values: Floats, truths: Bools, wanted: bool) -> tuple[float, int]:
    """Return the sum of the values whose truth is the wanted one, and how many they are, a few at a time."""
    total, n = 0.0, 0
    for start in range(0, len(values), _AT_ONCE):
        here = values[start : start + _AT_ONCE][truths[start : start + _AT_ONCE] == wanted]
        total, n = total + float(here.sum()), n + len(here)
    return total, n


def _check_shape(found: tuple[int, ...], scores: tuple[int, ...], n: int, n_classes: int) -> None:
    if len(scores) == 2 and scores[0] == n and n_classes in (0, scores[1]):
        return
    if found in ((n,), (n, 1)):
        hint = f"give one score per class, {n_classes} of them"
    elif len(found) == 2 and found[0] == n:
        hint = f"the model has {found[1]} outputs for {n_classes} classes; a builder with an argument n_outputs is told the number"
    else:
        hint = "one row per input is needed; pool or flatten before the last layer"
    raise ModelError(
        f"the model's outputs don't fit the labels: expected {(n, n_classes) if n_classes else (n, 'classes')}, got {found}; {hint}"
    )


def widened(outputs: Tensor) -> Tensor:
    """Return scores of two classes for a single logit, ``(n,)`` or ``(n, 1)``: 0 for the first; other outputs as they are."""
    if outputs.ndim == 1:
        outputs = outputs[:, None]
    if outputs.ndim == 2 and outputs.shape[1] == 1:
        return torch.cat([torch.zeros_like(outputs), outputs], dim=1)
    return outputs


def named(numbers: Sequence[int], class_names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of classes; without names a class is its number."""
    return tuple(class_names[n] if class_names else str(n) for n in numbers)
