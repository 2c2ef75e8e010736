"""Which boxes does a detector's answer hold, and which objects do its targets?

Detectors answer in three ways: a list with a mapping (``boxes``, ``scores``, ``labels``) for each image, as torchvision's do; the
same three as tensors for all images; or ``logits`` and ``pred_boxes`` for each query, as transformers' do, whose boxes are parts of
the image (centre and sides). All of them become boxes of corners, in the units of the targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunus.core.batch import Batch
from prunus.core.calls import described, tensors
from prunus.core.errors import DataError, ModelError
from prunus.core.types import Floats
from prunus.tasks.boxes.coco import Found, Objects, iou

__all__ = ["MOST", "found_boxes", "image_sizes", "n_images", "objects_of", "own_loss", "targets_of"]

MOST = 300
"""So many boxes of an image count, those of the highest scores."""
_TARGETS = "a mapping of 'boxes' (k, 4) as x1, y1, x2, y2 and 'labels' (k,) for each image"


def own_loss(outputs: Any) -> Tensor | None:
    """Return the loss that a detector gives of itself: its ``loss``, or the sum where it answers with losses by name."""
    if isinstance(outputs, Mapping) and outputs and all(_is_number(value) for value in outputs.values()):
        return torch.stack(list(outputs.values())).sum()
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    return loss if _is_number(loss) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point()


def targets_of(batch: Batch) -> Any:
    """Return the targets of a batch; where it has none, those that the model takes with its inputs to tell its loss."""
    if batch.targets is not None:
        return batch.targets
    if isinstance(batch.inputs, Mapping):
        return batch.inputs.get("labels", batch.inputs.get("targets"))
    if isinstance(batch.inputs, tuple) and len(batch.inputs) > 1:
        return batch.inputs[1]
    return None


def image_sizes(batch: Batch) -> Floats:
    """Return height and width of each image, ``(n, 2)``: of the first input that looks like images; ones where nothing does."""
    n = len(batch.index)
    for _, value in tensors(batch.inputs):
        if value.dim() == 4 and len(value) == n:
            return np.tile(np.array(value.shape[-2:], dtype=np.float64), (n, 1))
        if value.dim() == 3:
            images = [one for _, one in tensors(batch.inputs) if one.dim() == 3][:n]
            return np.array([one.shape[-2:] for one in images], dtype=np.float64)
    return np.ones((n, 2))


def objects_of(targets: Any, sizes: Floats) -> list[Objects]:
    """Return what is in each image.

    Targets are torchvision's (``boxes`` of corners, ``labels``) or transformers' (``boxes`` as parts of the image,
    ``class_labels``); ``iscrowd`` and ``area`` may be there.

    Raises:
        DataError: they are neither.
    """
    n = len(sizes)
    if not isinstance(targets, (list, tuple)) or len(targets) != n:
        raise DataError(f"detection: expected {_TARGETS}, {n} of them: got {described(targets)}")
    return [_objects(one, size, number) for number, (one, size) in enumerate(zip(targets, sizes, strict=True))]


def _objects(target: Any, size: Floats, number: int) -> Objects:
    relative = isinstance(target, Mapping) and "class_labels" in target
    kinds = "class_labels" if relative else "labels"
    if not isinstance(target, Mapping) or "boxes" not in target or kinds not in target:
        raise DataError(f"detection: expected {_TARGETS}: got {described(target)} for image {number}")
    boxes, labels = _array(target["boxes"]).reshape(-1, 4), _array(target[kinds]).reshape(-1)
    if len(boxes) != len(labels):
        raise DataError(
            f"detection: expected a label for each box: got {len(boxes)} boxes and {len(labels)} labels in image {number}"
        )
    boxes = _corners(boxes, size) if relative else boxes
    sides = boxes[:, 2:] - boxes[:, :2]
    wrong = ~np.isfinite(boxes).all(axis=1) | (sides < 0).any(axis=1)
    if wrong.any():
        raise DataError(
            f"detection: expected boxes as x1, y1, x2, y2 with x1 <= x2 and y1 <= y2: got {boxes[wrong][0].tolist()} in image "
            f"{number}; boxes of COCO files hold x, y, width and height"
        )
    crowd = _array(target["iscrowd"]).reshape(-1).astype(bool) if "iscrowd" in target else np.zeros(len(boxes), bool)
    areas = _array(target["area"]).reshape(-1) if "area" in target else sides[:, 0] * sides[:, 1]
    if len(crowd) != len(boxes) or len(areas) != len(boxes):
        raise DataError(
            f"detection: expected iscrowd and area for each of {len(boxes)} boxes: got {len(crowd)} and {len(areas)} in image "
            f"{number}"
        )
    return Objects(boxes, labels.astype(np.int64), crowd, areas)


def _corners(boxes: Floats, size: Floats) -> Floats:
    """Return centres and sides in parts of an image as corners in its pixels."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    corners: Floats = np.concatenate([centre - half, centre + half], axis=-1) * np.tile(size[::-1], 2)
    return corners


def _array(value: Any) -> Floats:
    return np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, dtype=np.float64)


def found_boxes(outputs: Any, sizes: Floats, *, activation: str, n_classes: int, nms: float) -> list[Found]:
    """Return the boxes of each image, at most ``MOST``, the best first.

    Args:
        activation: what makes scores of ``logits``: ``softmax`` (the last class is none) or ``sigmoid``; empty: as ``n_classes``
            tells.
        nms: of boxes of one class that overlap by more, the best stays; 0: all.

    Raises:
        ModelError: the answer is no detector's.
    """
    logits, boxes = _field(outputs, "logits"), _field(outputs, "pred_boxes")
    if isinstance(logits, Tensor) and isinstance(boxes, Tensor):
        made = _of_queries(logits, boxes, sizes, activation, n_classes)
    else:
        made = _listed(outputs, len(sizes))
    return [_best(one, nms) for one in made]


def _field(outputs: Any, name: str) -> Any:
    return outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)


def n_images(outputs: Any) -> int:
    """Return how many images an answer is about."""
    logits = _field(outputs, "logits")
    if isinstance(logits, Tensor):
        return len(logits)
    boxes = _field(outputs, "boxes")
    if boxes is None and isinstance(outputs, tuple) and outputs:
        boxes = outputs[0]
    return len(outputs if boxes is None else boxes)


def _listed(outputs: Any, n: int) -> Iterator[Found]:
    """Yield the boxes of answers that give them as they are."""
    if isinstance(outputs, Sequence) and all(isinstance(one, Mapping) for one in outputs) and len(outputs) == n:
        rows: Any = [tuple(one.get(key) for key in ("boxes", "scores", "labels")) for one in outputs]
    else:
        parts = tuple(_field(outputs, key) for key in ("boxes", "scores", "labels"))
        if any(part is None for part in parts) and isinstance(outputs, (tuple, list)) and len(outputs) == 3:
            parts = tuple(outputs)
        rows = list(zip(*parts, strict=False)) if all(_is_rows(part, n) for part in parts) else []
    if len(rows) != n or any(part is None for row in rows for part in row):
        what = "losses, as in training mode" if own_loss(outputs) is not None else described(outputs)
        raise ModelError(
            f"detection: expected boxes, scores and labels of {n} images, or logits and pred_boxes: got {what}; wrap the model "
            "in a module that returns such"
        )
    for number, row in enumerate(rows):
        boxes, scores, labels = (_array(part) for part in row)
        if boxes.shape != (len(scores), 4) or scores.shape != labels.shape or scores.ndim != 1:
            raise ModelError(
                f"detection: expected boxes (k, 4), scores (k,) and labels (k,): got {boxes.shape}, {scores.shape} and "
                f"{labels.shape} for image {number}"
            )
        yield Found(boxes, scores, labels.astype(np.int64))


def _is_rows(part: Any, n: int) -> bool:
    return isinstance(part, (Tensor, np.ndarray, list, tuple)) and len(part) == n


def _of_queries(logits: Tensor, boxes: Tensor, sizes: Floats, activation: str, n_classes: int) -> Iterator[Found]:
    """Yield the boxes of queries; with a sigmoid a query may be of several classes."""
    if logits.dim() != 3 or boxes.shape != (*logits.shape[:2], 4) or len(logits) != len(sizes):
        raise ModelError(
            f"detection: expected logits ({len(sizes)}, queries, classes) and pred_boxes ({len(sizes)}, queries, 4): got "
            f"{list(logits.shape)} and {list(boxes.shape)}"
        )
    given = logits.shape[2]
    kind = activation or {given: "sigmoid", given - 1: "softmax"}.get(n_classes, "")
    if not kind:
        raise ModelError(
            f"detection: {given} logits for each box: say whether they are scores of {given} classes (activation='sigmoid', as of "
            f"RT-DETR and D-FINE) or of {given - 1} and none (activation='softmax', as of DETR and YOLOS)"
        )
    values = logits.detach().double().cpu()
    scores = values.sigmoid() if kind == "sigmoid" else values.softmax(dim=2)[..., :-1]
    corners = [_corners(one, size) for one, size in zip(_array(boxes), sizes, strict=True)]
    for score, corner in zip(scores, corners, strict=True):
        if kind == "softmax":
            best, label = score.max(dim=1)
            yield Found(corner, best.numpy(), label.numpy())
        else:
            best, place = score.flatten().topk(min(MOST, score.numel()))
            yield Found(corner[(place // score.shape[1]).numpy()], best.numpy(), (place % score.shape[1]).numpy())


def _best(found: Found, nms: float) -> Found:
    """Return what counts, best first; a class below zero fills up, and what isn't a number is no box."""
    there = (found.labels >= 0) & np.isfinite(found.scores) & np.isfinite(found.boxes).all(axis=1)
    order = np.argsort(-found.scores, kind="stable")
    order = order[there[order]][:MOST]
    found = Found(found.boxes[order], found.scores[order], found.labels[order])
    if not nms or not len(order):
        return found
    stays = np.ones(len(order), bool)
    for label in np.unique(found.labels):
        mine = np.flatnonzero(found.labels == label)
        overlap = iou(found.boxes[mine], found.boxes[mine], np.zeros(len(mine), bool)) > nms
        for place, box in enumerate(mine):
            if stays[box]:
                stays[mine[place + 1 :][overlap[place, place + 1 :]]] = False
    return Found(found.boxes[stays], found.scores[stays], found.labels[stays])
