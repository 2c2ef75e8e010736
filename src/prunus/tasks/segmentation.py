"""A class for each pixel, or for each point of a volume.

Counts per class are summed over all images before anything is divided, as the field does: an empty image is no special case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prunus.core.batch import Batch
from prunus.core.calls import described
from prunus.core.errors import DataError, ShapeError
from prunus.core.predictions import Prediction, check_outputs_finite
from prunus.core.types import Floats
from prunus.tasks.counts import Tally, counted
from prunus.tasks.metric import metric, ratio
from prunus.tasks.one_tensor import leading_tensor
from prunus.tasks.task import Choices, Observed, Task, task

__all__ = ["Segmentation", "dice", "dice_foreground", "miou", "miou_foreground", "pixel_accuracy"]

_RESIZED = {1: "linear", 2: "bilinear", 3: "trilinear"}


@task("segmentation")
@dataclass(frozen=True)
class Segmentation(Task):
    """Targets are class numbers, ``(n, height, width)``; outputs ``(n, classes, height, width)``, or of two classes one logit.

    One logit is ``(n, 1, height, width)`` or ``(n, height, width)``. Volumes have one dimension more. Scores smaller than the
    targets are interpolated to their size, as SegFormer's need. What isn't counted is ``ignore_index``: 255 and -100 unless said.
    """

    reads: ClassVar[tuple[str, ...]] = ("n_right", "n_there", "n_said")
    class_names: tuple[str, ...] = ()
    ignore_index: int | None = None

    def check(self, outputs: Any, batch: Batch) -> None:
        """See that there are scores for each class number of a mask."""
        targets, n = batch.targets, len(batch.index)
        if not isinstance(targets, Tensor) or not 2 <= targets.ndim <= 5 or len(targets) != n:
            raise DataError(
                f"segmentation: expected masks of class numbers, ({n}, height, width): got {described(targets)}"
            )
        if targets.is_floating_point() and not bool((targets == targets.round()).all()):
            raise DataError(f"segmentation: expected class numbers in masks: got {described(targets)} with fractions")
        scores, mask = self._scores(outputs, batch)
        counts = self._counted(mask, scores.shape[1])
        unsaid = self.ignore_index is None and scores.shape[1] == 2
        if unsaid and bool((mask == 255).any()) and not bool((mask[counts] == 1).any()):
            raise DataError(
                "segmentation: masks hold 0 and 255 for two classes: expected 0 and 1; divide them by 255, or say "
                "ignore_index=255 if 255 isn't to be counted"
            )

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of an image's pixels, in nats; 0 of one without any that counts."""
        each, counts = self._surprise(outputs, batch)
        return each.sum(dim=1) / counts.sum(dim=1).clamp(min=1)

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of all pixels of the batch."""
        each, counts = self._surprise(outputs, batch)
        return each.sum() / counts.sum().clamp(min=1)

    def weight_of(self, batch: Batch) -> Tensor | int:
        """Return how many pixels are counted."""
        return self._counts(batch.targets, len(self.class_names)).sum()

    def observe(self, outputs: Any, batch: Batch) -> Observed:
        """Return an image's pixels of each class: found rightly, there, and said to be there."""
        scores, mask = self._scores(outputs, batch)
        n, n_classes = scores.shape[:2]
        counts = self._counted(mask, n_classes).flatten(1)
        true, said = mask.flatten(1), scores.detach().argmax(dim=1).flatten(1)
        image = torch.arange(n, device=true.device)[:, None] * n_classes

        def per_class(classes: Tensor, which: Tensor) -> Tensor:
            return torch.bincount((image + classes)[which], minlength=n * n_classes).reshape(n, n_classes)

        found = {
            "n_right": per_class(true, counts & (true == said)),
            "n_there": per_class(true, counts),
            "n_said": per_class(said, counts),
        }
        return {name: column.cpu().numpy() for name, column in found.items()}

    def totals(self, observed: Observed, weights: Floats) -> Tally:
        """Return the pixels of each class."""
        return counted(observed, weights)

    def choices(self, outputs: Any, batch: Batch) -> Choices:
        """Return the scores of each pixel that counts."""
        scores, mask = self._scores(outputs, batch)
        counts = self._counted(mask, scores.shape[1]).flatten(1)
        flat = scores.flatten(2).transpose(1, 2)
        return Choices(flat[counts], mask.flatten(1)[counts], counts.nonzero()[:, 0])

    def decode(self, outputs: Any) -> Prediction:
        """Return the mask of each image: the number of the most likely class of each pixel, at the size of the scores."""
        scores = leading_tensor(outputs)
        check_outputs_finite(scores)
        if scores.ndim < 3:
            raise ShapeError(f"segmentation: expected scores (n, classes, height, width): got {tuple(scores.shape)}")
        if scores.ndim == 3 and scores.shape[1] != len(self.class_names):
            scores = scores[:, None]
        return Prediction(tuple(_two_classes(scores).argmax(dim=1).tolist()))

    def _surprise(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy of each pixel, 0 where it isn't counted, and which are, both ``(n, pixels)``."""
        scores, mask = self._scores(outputs, batch)
        counts = self._counts(mask, scores.shape[1])
        each = functional.cross_entropy(scores, mask.where(counts, -100), ignore_index=-100, reduction="none")
        return each.flatten(1), counts.flatten(1)

    def _counts(self, mask: Tensor, n_classes: int) -> Tensor:
        if self.ignore_index is not None:
            return mask != self.ignore_index
        return (mask != -100) & ((mask != 255) | (n_classes > 255))

    def _counted(self, mask: Tensor, n_classes: int) -> Tensor:
        """Return which pixels are counted, once it's sure that each is of a class."""
        counts = self._counts(mask, n_classes)
        held = mask[counts]
        if len(held) and (int(held.min()) < 0 or int(held.max()) >= n_classes):
            ignored = "255 and -100 aren't" if self.ignore_index is None else f"{self.ignore_index} isn't"
            raise DataError(
                f"segmentation: expected class numbers 0..{n_classes - 1} in masks ({ignored} counted): got "
                f"{int(held.min())}..{int(held.max())}"
            )
        return counts

    def _scores(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return scores ``(n, classes, *size)`` and masks ``(n, *size)``, which may come with a dimension of one for a channel."""
        found, mask = leading_tensor(outputs), batch.targets
        if found.ndim <= mask.ndim and mask.ndim > 2 and mask.shape[1] == 1:
            mask = mask[:, 0]
        size = tuple(mask.shape[1:])
        scores = found[:, None] if found.ndim == len(size) + 1 else found
        if scores.ndim != len(size) + 2 or len(scores) != len(batch.index) or len(size) not in _RESIZED:
            raise ShapeError(
                f"segmentation: expected scores of each class, ({len(batch.index)}, classes, "
                f"{', '.join(map(str, size))}), or smaller: got {tuple(found.shape)}"
                + ("" if found is outputs else f" in {described(outputs)}")
            )
        scores = scores.float()
        if scores.shape[2:] != size:
            scores = functional.interpolate(scores, size=size, mode=_RESIZED[len(size)], align_corners=False)
        return _two_classes(scores), mask.long().to(scores.device)


def _two_classes(scores: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(scores), scores], dim=1) if scores.shape[1] == 1 else scores


def _mean_of(above: Floats, below: Floats, first: int = 0) -> Floats:
    """Return the mean over the classes that are in the targets or in the predictions, from a class on."""
    shares, there = ratio(above, below)[:, first:], below[:, first:] > 0
    return ratio((shares * there).sum(axis=1), there.sum(axis=1).astype(np.float64))


def _union(counts: Tally) -> Floats:
    return counts.support + counts.predicted - counts.right


@metric("miou", task="segmentation", higher_is_better=True, label="mIoU", unit="share", default=0)
def miou(counts: Tally) -> Floats:
    """Return the mean, over the classes that are seen or said anywhere, of intersection over union."""
    return _mean_of(counts.right, _union(counts))


@metric("miou_foreground", task="segmentation", higher_is_better=True, label="foreground mIoU", unit="share")
def miou_foreground(counts: Tally) -> Floats:
    """Return the mean intersection over union without class 0, the background."""
    return _mean_of(counts.right, _union(counts), first=1)


@metric("dice", task="segmentation", higher_is_better=True, label="Dice", unit="share", default=1)
def dice(counts: Tally) -> Floats:
    """Return the mean, over the classes that are seen or said anywhere, of twice the intersection over both sizes: F1 of pixels."""
    return _mean_of(2 * counts.right, counts.support + counts.predicted)


@metric("dice_foreground", task="segmentation", higher_is_better=True, label="foreground Dice", unit="share")
def dice_foreground(counts: Tally) -> Floats:
    """Return the mean Dice without class 0, the background."""
    return _mean_of(2 * counts.right, counts.support + counts.predicted, first=1)


@metric("pixel_accuracy", task="segmentation", higher_is_better=True, label="pixel accuracy", unit="share", default=1)
def pixel_accuracy(counts: Tally) -> Floats:
    """Return the share of pixels whose most likely class is the target."""
    return ratio(counts.right.sum(axis=1), counts.support.sum(axis=1))
