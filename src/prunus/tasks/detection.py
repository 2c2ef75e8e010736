"""Boxes around things: where, what, and how sure?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from prunus.core.batch import Batch
from prunus.core.calls import described
from prunus.core.errors import DataError, ModelError
from prunus.core.predictions import Prediction
from prunus.core.types import Floats
from prunus.tasks.boxes.coco import AREAS, THRESHOLDS, Found, Ranked, match, ranked
from prunus.tasks.boxes.detector_answers import (
    MOST,
    found_boxes,
    image_sizes,
    n_images,
    objects_of,
    own_loss,
    targets_of,
)
from prunus.tasks.metric import metric, ratio
from prunus.tasks.task import Observed, Task, task

__all__ = ["Detection", "average_precisions"]

_BITS = 1 << np.arange(len(THRESHOLDS))
_COLUMNS = ("score", "label", "hit", "ignored", "object", "object_ignored")


@task("detection")
@dataclass(frozen=True)
class Detection(Task):
    """Targets are what torchvision's or transformers' detectors train on, and so are outputs what they answer.

    Targets are a mapping for each image, with ``boxes`` (x1, y1, x2, y2) and ``labels``, or with ``class_labels`` and boxes
    in parts of the image (centre and sides); ``iscrowd`` and ``area`` may be there. Outputs are ``boxes``, ``scores`` and
    ``labels``, for each image or as tensors for all, or ``logits`` and ``pred_boxes`` in parts of the image. What makes
    scores of logits, where the number of classes doesn't tell, is ``activation``: ``softmax`` (the last is no class) or
    ``sigmoid``.

    The loss is the one that the detector gives of itself: it has to be given the targets with its inputs, and torchvision's have
    to be in training mode. ``prunus.tasks.own_losses`` is the training step that sees to both.

    Of boxes of one class that overlap by more than ``nms`` the best stays; 0 says that the model has seen to that. Boxes of a score
    below ``shown_from`` aren't worth reading; an image has no more than ``max_objects``.
    """

    reads: ClassVar[tuple[str, ...]] = _COLUMNS
    told_by_model: ClassVar[bool] = True
    class_names: tuple[str, ...] = ()
    n_classes: int = 0
    activation: str = ""
    nms: float = 0.0
    shown_from: float = 0.5
    max_objects: int = 300

    def __post_init__(self) -> None:
        if self.activation not in ("", "softmax", "sigmoid"):
            raise ModelError(f"detection: activation is softmax or sigmoid: got {self.activation!r}")

    def check(self, outputs: Any, batch: Batch) -> None:
        """See that there are boxes on both sides, and that no object has a class that has no name."""
        sizes = image_sizes(batch)
        highest = max((one.labels.max(initial=-1) for one in objects_of(targets_of(batch), sizes)), default=-1)
        if 0 < self._known() <= highest:
            raise DataError(f"detection: expected classes 0..{self._known() - 1}: got {highest}")
        if own_loss(outputs) is None:
            self._found(outputs, sizes)

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the loss of the batch for each example: detectors give no other."""
        return self.loss(outputs, batch).expand(len(batch.index))

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the loss that the detector gives of itself."""
        found = own_loss(outputs)
        if found is None:
            raise ModelError(
                f"detection: the model gives no loss: got {described(outputs)}; give loss=..., or "
                "training_step=prunus.tasks.own_losses where it gives one when it is handed the targets"
            )
        return found

    def observe(self, outputs: Any, batch: Batch) -> Observed:
        """Return which boxes are there, with their scores, and whether they have an object at each overlap, a bit each."""
        sizes = image_sizes(batch)
        objects = objects_of(targets_of(batch), sizes)
        most = max((len(one.labels) for one in objects), default=0)
        if most > self.max_objects:
            raise DataError(
                f"detection: expected at most {self.max_objects} objects in an image: got {most}; raise max_objects"
            )
        n, areas = len(sizes), len(AREAS)
        score, label = np.zeros((n, MOST)), np.full((n, MOST), -1, np.int32)
        hit, ignored = np.zeros((n, MOST, areas), np.uint16), np.zeros((n, MOST, areas), np.uint16)
        there, beside = np.full((n, self.max_objects), -1, np.int32), np.zeros((n, self.max_objects, areas), bool)
        for row, (found, one) in enumerate(zip(self._found(outputs, sizes), objects, strict=True)):
            met = match(found, one)
            k, g = len(met.labels), len(one.labels)
            score[row, :k], label[row, :k] = met.scores, met.labels
            hit[row, :k], ignored[row, :k] = met.hit @ _BITS, met.ignored @ _BITS
            there[row, :g], beside[row, :g] = one.labels, met.object_ignored
        return dict(zip(_COLUMNS, (score, label, hit, ignored, there, beside), strict=True))

    def totals(self, observed: Observed, weights: Floats) -> Ranked:
        """Return average precision and recall per class, of objects of any size."""
        return _totals(observed, weights, 0)

    def decode(self, outputs: Any) -> Prediction:
        """Return the boxes of each image that are worth reading: class, score, corners (in parts of it, if the model says so)."""
        found = self._found(outputs, np.ones((n_images(outputs), 2)))
        return Prediction(tuple(self._read(one) for one in found))

    def _read(self, found: Found) -> list[dict[str, Any]]:
        return [
            {
                "class": self.class_names[label] if label < len(self.class_names) else str(label),
                "score": float(score),
                "box": box.tolist(),
            }
            for box, score, label in zip(*found, strict=True)
            if score >= self.shown_from
        ]

    def _known(self) -> int:
        return len(self.class_names) or self.n_classes

    def _found(self, outputs: Any, sizes: Floats) -> list[Found]:
        return found_boxes(outputs, sizes, activation=self.activation, n_classes=self._known(), nms=self.nms)


def _totals(observed: Observed, weights: Floats, area: int) -> Ranked:
    """Return what the ranking is worth for objects in a range of sizes."""
    image, place = np.nonzero(observed["label"] >= 0)
    bits = (observed[name][image, place, area][:, None] & _BITS > 0 for name in ("hit", "ignored"))
    score, label = observed["score"][image, place], observed["label"][image, place]
    there = (observed["object"] >= 0) & ~observed["object_ignored"][..., area]
    kind, on = observed["object"][there], np.nonzero(there)[0]
    n_classes = int(max(observed["label"].max(initial=-1), observed["object"].max(initial=-1))) + 1
    hit, ignored = bits
    return ranked((image, score, label, hit, ignored), (on, kind), n_classes, np.asarray(weights, np.float64))


def average_precisions(observed: Observed) -> dict[int, float]:
    """Return the average precision of each class that has objects, the mean over overlaps from .5 to .95."""
    found = _totals(observed, np.ones((1, len(observed["label"]))), 0)
    return {int(c): float(found.precision[0, c].mean()) for c in np.flatnonzero(found.support[0])}


def _over_classes(values: Floats, support: Floats) -> Floats:
    """Return the mean over the classes that have objects; 0 where none has."""
    present = support > 0
    return ratio((values * present).sum(axis=1), present.sum(axis=1).astype(np.float64))


@metric("map", task="detection", higher_is_better=True, label="mAP", unit="share", default=0)
def mean_average_precision(found: Ranked) -> Floats:
    """Return the mean average precision as COCO defines it: over classes, and overlaps from .5 to .95 in steps of .05."""
    return _over_classes(found.precision.mean(axis=2), found.support)


@metric("map_50", task="detection", higher_is_better=True, label="mAP@50", unit="share", default=1)
def at_half(found: Ranked) -> Floats:
    """Return the mean average precision where an overlap of .5 is enough."""
    return _over_classes(found.precision[:, :, 0], found.support)


@metric("map_75", task="detection", higher_is_better=True, label="mAP@75", unit="share")
def at_three_quarters(found: Ranked) -> Floats:
    """Return the mean average precision at an overlap of .75."""
    return _over_classes(found.precision[:, :, 5], found.support)


@metric("mar_100", task="detection", higher_is_better=True, label="mAR@100", unit="share", default=1)
def mean_recall(found: Ranked) -> Floats:
    """Return the mean recall of at most 100 boxes of a class in an image, over classes and overlaps."""
    return _over_classes(found.recall.mean(axis=2), found.support)


def _add_area(area: int, name: str, size: str) -> None:
    def function(found: Ranked) -> Floats:
        return mean_average_precision(found)

    function.__doc__ = f"Return the mean average precision of {name} objects: {size} square pixels."
    register = metric(
        f"map_{name}",
        task="detection",
        higher_is_better=True,
        label=f"mAP of {name} objects",
        unit="share",
        totals=lambda observed, weights: _totals(observed, weights, area),
        reads=_COLUMNS,
    )
    register(function)


for _area, (_name, _size) in enumerate(
    (("small", "at most 32²"), ("medium", "32² to 96²"), ("large", "at least 96²")), 1
):
    _add_area(_area, _name, _size)
