"""How well do found boxes meet those that are there, as COCO counts it?

Found boxes of a class are taken by falling score; each takes the object of its class in its image that it overlaps most, if by at
least a threshold and if nobody took that one before. What precision is left at 101 points of recall makes an average precision per
class and threshold. An image's matches don't depend on other images, so they are observed once; the ranking is counted anew under
weights. The tests hold all of it against pycocotools.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prunus.core.types import Bools, Floats, Ints

__all__ = ["AREAS", "THRESHOLDS", "Found", "Matches", "Objects", "Ranked", "iou", "match", "ranked"]

THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
"""Overlaps (intersection over union) from which on a box counts as found."""
AREAS: Floats = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]], dtype=np.float64)
"""Sizes of objects, in square pixels: all, small, medium, large."""
_RECALLS: Floats = np.linspace(0.0, 1.0, 101)
_PER_CLASS = 100
"""So many boxes of a class and an image count, those of the highest scores."""
_CELLS = 4_000_000
"""Numbers in one array, at most: weights are gone through in as many rows as that allows."""


class Found(NamedTuple):
    """What a detector says of one image: boxes ``(k, 4)`` as x1, y1, x2, y2, with a score and a class each."""

    boxes: Floats
    scores: Floats
    labels: Ints


class Objects(NamedTuple):
    """What is in one image: boxes ``(g, 4)``, classes, which of them are crowds, and areas in square pixels."""

    boxes: Floats
    labels: Ints
    crowd: Bools
    areas: Floats


class Matches(NamedTuple):
    """How an image's boxes meet its objects, for each range of areas.

    ``scores`` and ``labels`` are those of the boxes that count, by falling score inside a class, ``(k,)``; ``hit`` and ``ignored``
    say at which thresholds a box has an object, or counts neither way, ``(k, areas, thresholds)``. ``object_ignored`` is
    ``(g, areas)``.
    """

    scores: Floats
    labels: Ints
    hit: Bools
    ignored: Bools
    object_ignored: Bools


def iou(boxes: Floats, objects: Floats, crowd: Bools) -> Floats:
    """Return intersection over union, ``(k, g)``; of a crowd the share of the box that lies in it.

    >>> iou(np.array([[0.0, 0, 2, 2]]), np.array([[0.0, 0, 2, 1], [0, 0, 4, 4]]), np.array([False, True]))
    array([[0.5, 1. ]])
    """
    low = np.maximum(boxes[:, None, :2], objects[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], objects[None, :, 2:])
    inter = np.prod(np.clip(high - low, 0, None), axis=2)
    of_box, of_object = _areas(boxes)[:, None], _areas(objects)[None]
    union = np.where(crowd[None], of_box, of_box + of_object - inter)
    shares: Floats = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return shares


def _areas(boxes: Floats) -> Floats:
    sides: Floats = boxes[:, 2:] - boxes[:, :2]
    areas: Floats = sides[:, 0] * sides[:, 1]
    return areas


def match(found: Found, objects: Objects, area_scale: float = 1.0) -> Matches:
    """Return which boxes of an image meet which of its objects.

    Args:
        area_scale: square pixels in a unit of the boxes' areas (boxes may be in parts of the image).
    """
    by_score = np.argsort(-found.scores, kind="stable")
    order = np.concatenate(
        [by_score[found.labels[by_score] == c][:_PER_CLASS] for c in np.unique(found.labels)] or [by_score]
    )
    boxes, scores, labels = found.boxes[order], found.scores[order], found.labels[order]
    outside = _outside(objects.areas)
    object_ignored = outside | objects.crowd[:, None]
    hit = np.zeros((len(order), len(AREAS), len(THRESHOLDS)), bool)
    ignored = np.zeros_like(hit)
    for label in np.unique(labels):
        mine, theirs = np.flatnonzero(labels == label), np.flatnonzero(objects.labels == label)
        if len(theirs):
            overlap = iou(boxes[mine], objects.boxes[theirs], objects.crowd[theirs])
            hit[mine], ignored[mine] = _taken(overlap, objects.crowd[theirs], object_ignored[theirs])
    # A box that has no object and whose own size is out of the range wasn't asked for.
    ignored |= ~hit & _outside(_areas(boxes) * area_scale)[:, :, None]
    return Matches(scores, labels, hit, ignored, object_ignored)


def _outside(areas: Floats) -> Bools:
    return (areas[:, None] < AREAS[:, 0]) | (areas[:, None] > AREAS[:, 1])


def _taken(overlap: Floats, crowd: Bools, ignored: Bools) -> tuple[Bools, Bools]:
    """Return which boxes, best first, take an object ``(k, areas, thresholds)``, and whether it is one that doesn't count.

    Objects that count go first; among equals the last one is taken, as COCO does. A crowd may be taken by many.
    """
    k, g = overlap.shape
    hit = np.zeros((k, len(AREAS), len(THRESHOLDS)), bool)
    beside = np.zeros_like(hit)
    free = np.ones((len(AREAS), len(THRESHOLDS), g), bool)
    least = np.minimum(THRESHOLDS, 1 - 1e-10)
    counts = ~ignored.T[:, None, :]
    for box in np.flatnonzero(overlap.max(axis=1) >= least[0]):
        fits = (free | crowd) & (overlap[box] >= least[:, None])
        first = fits & counts
        fits = np.where(first.any(axis=2, keepdims=True), first, fits)
        taken = g - 1 - np.where(fits, overlap[box], -1.0)[..., ::-1].argmax(axis=2)
        hit[box] = fits.any(axis=2)
        area, threshold = np.nonzero(hit[box])
        took = taken[area, threshold]
        free[area, threshold, took] = False
        beside[box, area, threshold] = ignored[took, area]
    return hit, beside


class Ranked(NamedTuple):
    """Average precision and the recall of all boxes, each ``(resamples, classes, thresholds)``, and how many objects there are."""

    precision: Floats
    recall: Floats
    support: Floats


def ranked(
    boxes: tuple[Ints, Floats, Ints, Bools, Bools], objects: tuple[Ints, Ints], n_classes: int, weights: Floats
) -> Ranked:
    """Return what a ranking over all images is worth, under each row of ``weights`` ``(resamples, images)``.

    Args:
        boxes: image, score and class of each box ``(k,)``, whether it has an object at each threshold, and whether it counts
            neither way ``(k, thresholds)``; those of an image by falling score inside a class.
        objects: image and class of each object that counts, ``(g,)``.
    """
    image, score, label, hit, ignored = boxes
    there, kind = objects
    shape = len(weights), n_classes, len(THRESHOLDS)
    precision, recall, support = np.zeros(shape), np.zeros(shape), np.zeros(shape[:2])
    most = weights.max(initial=1.0)
    for one in np.unique(kind):
        mine = np.flatnonzero(label == one)
        place, number, copies = _copies(image[mine], score[mine], most)
        mine, last = mine[place], number + 1 == copies
        n = support[:, one] = weights[:, there[kind == one]].sum(axis=1)
        rows = max(1, _CELLS // max(len(mine), 1))
        for start in range(0, len(weights), rows):
            part = slice(start, start + rows)
            weight = np.clip(weights[part][:, image[mine]] - number, 0.0, np.where(last, np.inf, 1.0))
            precision[part, one], recall[part, one] = _curve(weight, hit[mine], ignored[mine], n[part])
    return Ranked(precision, recall, support)


def _copies(image: Ints, score: Floats, most: float) -> tuple[npt.NDArray[np.intp], Ints, Ints]:
    """Return the ranking by falling score, equals by image: boxes, and which copy of its image each is of, of how many.

    An image that counts twice comes after itself, with all its boxes of one score. Only where it has several of these does it
    matter to tell copies apart: there are as many as the largest weight, ``most``.
    """
    same = (image[1:] == image[:-1]) & (score[1:] == score[:-1])
    tied = np.append(same, False) | np.append(False, same)
    copies = np.where(tied, max(1, int(np.ceil(most))), 1)
    box = np.repeat(np.arange(len(image)), copies)
    number = np.arange(len(box)) - np.repeat(np.cumsum(copies) - copies, copies)
    order = np.lexsort((box, number, image[box], -score[box]))
    return box[order], number[order], copies[box[order]]


def _curve(weight: Floats, hit: Bools, ignored: Bools, n: Floats) -> tuple[Floats, Floats]:
    """Return average precision and recall at each threshold, ``(resamples, thresholds)``; ``weight`` is ``(resamples, k)``."""
    precision, recall = np.zeros((len(weight), hit.shape[1])), np.zeros((len(weight), hit.shape[1]))
    same = not ignored.any()
    said = np.cumsum(weight, axis=1)
    for t in range(hit.shape[1]):
        right = np.flatnonzero(hit[:, t] & ~ignored[:, t])
        if not len(right):
            continue
        so_far = said if same else np.cumsum(np.where(ignored[:, t], 0.0, weight), axis=1)
        found = np.cumsum(weight[:, right], axis=1)
        # Precision has its peaks where an object is found, so those places are enough.
        best = np.divide(found, so_far[:, right], out=np.zeros_like(found), where=found > 0)
        best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
        share = np.divide(found, n[:, None], out=np.zeros_like(found), where=n[:, None] > 0)
        reached = np.searchsorted(_RECALLS, share.ravel(), side="right").reshape(share.shape)
        points = np.diff(reached, axis=1, prepend=0)
        precision[:, t] = (best * points).sum(axis=1) / len(_RECALLS)
        recall[:, t] = share[:, -1]
    return precision, recall
