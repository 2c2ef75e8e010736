"""How far are a detector's boxes from another's? They come in any number and order, so neither can be subtracted."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["boxes_apart"]


def boxes_apart(found: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[float, float]:
    """Return the scores of boxes that the other answer lacks, and the scores of all, of both answers.

    A box that is found again counts as missed for what it doesn't overlap, and for what the other's score is lower.

    Shapes:
        Answers are boxes ``(k, 4)`` as x1, y1, x2, y2, each followed by their scores ``(k,)``, for one image after another.

    >>> one, sure = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([1.0])
    >>> boxes_apart([one, sure], [one, sure / 2])
    (0.5, 1.5)
    """
    missed = size = 0.0
    for one, other in zip(_images(found), _images(others), strict=True):
        missed += _missed(one, other) + _missed(other, one)
        size += float(one[1].sum() + other[1].sum())
    return missed, size


def _images(found: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    pairs = itertools.pairwise(found)
    return [(one.double(), other.double()) for one, other in pairs if one.dim() == 2 and one.shape == (len(other), 4)]


def _missed(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> float:
    (boxes, scores), (there, sure) = found, wanted
    if not len(sure) or not len(scores):
        return float(sure.sum())
    low, high = torch.maximum(boxes[:, None, :2], there[:, :2]), torch.minimum(boxes[:, None, 2:], there[:, 2:])
    inter = (high - low).clamp(min=0).prod(dim=2)
    areas = [(each[:, 2:] - each[:, :2]).prod(dim=1) for each in (boxes, there)]
    union = areas[0][:, None] + areas[1] - inter
    share = torch.where(union > 0, inter / union, 0.0) * torch.minimum(scores[:, None], sure)
    return float((sure - share.amax(dim=0)).sum())
