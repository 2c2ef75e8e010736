"""Projected gradient descent, the attack that everybody runs: it alone overstates what a model withstands."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from prunus.evaluate.robustness.attacks.threat import Scores, Threat, gradient_of, inside, lengths, wrong

__all__ = ["pgd", "somewhere"]


def pgd(
    model: Scores, x: Tensor, right: Tensor, threat: Threat, *, steps: int, restarts: int, draw: torch.Generator
) -> Tensor:
    """Return inputs near ``x``, those that are answered wrongly where one was found.

    Args:
        restarts: so many starts, each anywhere in the ball; 0 starts once, at ``x`` itself.

    References:
        Madry et al., ICLR 2018, arXiv:1706.06083; steps are 2.5 times the reach over their number, as there.
    """
    best, found = x.clone(), wrong(model(x).detach(), right)

    def loss(scores: Tensor) -> Tensor:
        return functional.cross_entropy(scores, right, reduction="none")

    step = 2.5 * threat.reach / max(steps, 1)
    for _ in range(max(restarts, 1)):
        now = somewhere(x, threat, draw) if restarts else x
        for _ in range(steps):
            gradient, _, _ = gradient_of(model, now, loss)
            now = inside(now + step * steepest(gradient, threat), x, threat)
        fooled = wrong(model(now).detach(), right) & ~found
        best[fooled] = now[fooled]
        found |= fooled
        if bool(found.all()):
            break
    return best


def somewhere(x: Tensor, threat: Threat, draw: torch.Generator) -> Tensor:
    """Return a random allowed input for each."""
    if threat.norm == "linf":
        away = 2 * torch.rand(x.shape, generator=draw, dtype=x.dtype) - 1
    else:
        away = torch.randn(x.shape, generator=draw, dtype=x.dtype)
        away = away / lengths(away).clamp(min=1e-12)
    return inside(x + threat.reach * away.to(x.device), x, threat)


def steepest(gradient: Tensor, threat: Threat) -> Tensor:
    """Return the direction of length one, in the norm, along which the loss rises most."""
    if threat.norm == "linf":
        return gradient.sign()
    return gradient / lengths(gradient).clamp(min=1e-12)
