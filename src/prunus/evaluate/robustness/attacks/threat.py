"""What may an attacker change, and by how much: the norm, the reach, and the box that inputs live in?

Attacks work in coordinates in which the reach means something: of an image the share of its range (8/255, say), of a table's
features their standard deviations. What is found is always inside the ball and the box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Norm", "Scores", "Threat", "gradient_of", "inside", "lengths", "margin", "towards_each", "wrong"]

Norm = Literal["linf", "l2"]
Scores = Callable[[Tensor], Tensor]
"""What a classifier says of inputs in an attacker's coordinates: ``(n, ...) -> (n, classes)``."""


@dataclass(frozen=True)
class Threat:
    """The ball of ``reach`` around an input, in a norm, cut off by the box from ``low`` to ``high``; ``free`` may be changed.

    Shapes:
        ``low``, ``high`` and ``free`` are those of one input, or of none.
    """

    norm: Norm
    reach: float
    low: Tensor
    high: Tensor
    free: Tensor


def inside(x: Tensor, start: Tensor, threat: Threat) -> Tensor:
    """Return the nearest allowed inputs: in the ball around ``start``, then in the box."""
    away = torch.where(threat.free, x - start, torch.zeros_like(x))
    if threat.norm == "linf":
        away = away.clamp(-threat.reach, threat.reach)
    else:
        away = away * (threat.reach / lengths(away).clamp(min=1e-12)).clamp(max=1.0)
    # What starts outside of the box (an outlier of a table) may stay where it is.
    return (start + away).maximum(threat.low.minimum(start)).minimum(threat.high.maximum(start))


def lengths(x: Tensor) -> Tensor:
    """Return the Euclidean length of each example, with dimensions of one for the others."""
    found: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return found.reshape(-1, *[1] * (x.ndim - 1))


def margin(scores: Tensor, right: Tensor) -> Tensor:
    """Return by how much the right class leads; below zero it doesn't."""
    own = scores.gather(1, right[:, None])[:, 0]
    others = scores.scatter(1, right[:, None], -torch.inf)
    return own - others.amax(dim=1)


def wrong(scores: Tensor, right: Tensor) -> Tensor:
    """Tell which examples are answered wrongly."""
    return scores.argmax(dim=1) != right


def gradient_of(model: Scores, x: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of each example's loss by its input, the losses and the scores."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_(True)
        scores = model(leaf)
        each = loss(scores)
        (gradient,) = torch.autograd.grad(each.sum(), leaf)
    return gradient.detach(), each.detach(), scores.detach()


def towards_each(
    model: Scores,
    x: Tensor,
    right: Tensor,
    most: int,
    towards: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
) -> Tensor:
    """Return inputs near ``x``; those are answered wrongly for which the way to one of the likeliest wrong classes was found.

    Args:
        most: how many of those classes are gone towards, one after the other, with what is still answered rightly.
        towards: takes inputs, their right classes and those to go towards; returns inputs, and which of them count as found.
    """
    scores = model(x).detach()
    ranked = scores.scatter(1, right[:, None], -torch.inf).argsort(dim=1, descending=True)
    best, left = x.clone(), ~wrong(scores, right)
    for place in range(min(most, ranked.shape[1] - 1)):
        rows = left.nonzero()[:, 0]
        if not len(rows):
            break
        near, found = towards(x[rows], right[rows], ranked[rows, place])
        best[rows[found]] = near[found]
        left[rows[found]] = False
    return best
