"""Auto-PGD: steps that halve where the loss stops rising, for losses that don't vanish where a model is sure.

References:
    Croce & Hein, ICML 2020, arXiv:2003.01690, and their reference code: momentum 0.75, checkpoints at 0.22 of the steps and
    then ever nearer, half the step where fewer than 75 % of the steps since the last one raised the loss or none did since the
    last halving.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from prunus.evaluate.robustness.attacks.pgd import somewhere, steepest
from prunus.evaluate.robustness.attacks.threat import Scores, Threat, gradient_of, inside, margin, towards_each, wrong

__all__ = ["Loss", "apgd", "apgd_targeted", "difference_of_logits"]

Loss = Literal["ce", "dlr"]


def apgd(
    model: Scores, x: Tensor, right: Tensor, threat: Threat, *, steps: int, loss: Loss, draw: torch.Generator
) -> Tensor:
    """Return inputs near ``x``, those that are answered wrongly where one was found."""

    def each(scores: Tensor) -> Tensor:
        if loss == "ce":
            return functional.cross_entropy(scores, right, reduction="none")
        return difference_of_logits(scores, right)

    return _ascend(model, x, right, threat, steps, each, draw)


def apgd_targeted(
    model: Scores, x: Tensor, right: Tensor, threat: Threat, *, steps: int, most: int, draw: torch.Generator
) -> Tensor:
    """Return inputs near ``x``; each of the ``most`` likeliest wrong classes is aimed at, one after the other."""

    def towards(some: Tensor, own: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        near = _ascend(model, some, own, threat, steps, lambda scores: _towards(scores, own, target), draw)
        return near, wrong(model(near).detach(), own)

    return towards_each(model, x, right, most, towards)


def difference_of_logits(scores: Tensor, right: Tensor) -> Tensor:
    """Return the negated lead of the right class over the scores' own spread (DLR), the lead alone of fewer than three classes."""
    if scores.shape[1] < 3:
        return -margin(scores, right)
    ordered = scores.sort(dim=1, descending=True).values
    return -margin(scores, right) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def _towards(scores: Tensor, right: Tensor, target: Tensor) -> Tensor:
    """Return how much likelier the target is than the right class, over the spread of the scores."""
    lead = scores.gather(1, target[:, None])[:, 0] - scores.gather(1, right[:, None])[:, 0]
    if scores.shape[1] < 4:
        return lead
    ordered = scores.sort(dim=1, descending=True).values
    return lead / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12)


def _ascend(
    model: Scores,
    x: Tensor,
    right: Tensor,
    threat: Threat,
    steps: int,
    loss: Callable[[Tensor], Tensor],
    draw: torch.Generator,
) -> Tensor:
    shape = (-1, *[1] * (x.ndim - 1))
    interval, least, shorter = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    now = somewhere(x, threat, draw)
    gradient, each, scores = gradient_of(model, now, loss)
    step = torch.full((len(x),), 2 * threat.reach, dtype=x.dtype, device=x.device)
    before, top, top_gradient, highest = now, now.clone(), gradient.clone(), each.clone()
    fooled = wrong(scores, right)
    best = torch.where(fooled.reshape(shape), now, x)
    rose = torch.zeros(len(x), dtype=torch.long, device=x.device)
    halved, last_highest, since = torch.ones_like(fooled), highest.clone(), 0
    for number in range(steps):
        share = 0.75 if number else 1.0
        moved = inside(now + step.reshape(shape) * steepest(gradient, threat), x, threat)
        moved = inside(now + share * (moved - now) + (1 - share) * (now - before), x, threat)
        before, now = now, moved
        gradient, value, scores = gradient_of(model, now, loss)
        new = wrong(scores, right)
        best[new] = now[new]
        fooled |= new
        rose += value > each
        each = value
        higher = value > highest
        top[higher], top_gradient[higher], highest[higher] = now[higher], gradient[higher], value[higher]
        since += 1
        if since == interval:
            reduce = (rose <= 0.75 * interval) | (~halved & (last_highest >= highest))
            halved, last_highest = reduce.clone(), highest.clone()
            step[reduce] /= 2
            now, gradient = now.clone(), gradient.clone()
            now[reduce], gradient[reduce] = top[reduce], top_gradient[reduce]
            interval, since = max(interval - shorter, least), 0
            rose.zero_()
        if bool(fooled.all()):
            break
    return best
