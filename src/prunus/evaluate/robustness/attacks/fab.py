"""FAB: how near is the boundary? It looks for the smallest change that is answered wrongly, not for the worst one within reach.

Steps go to where the model, were it a plane, would change its mind: the nearest such place in the box. They lean towards the start,
and from wherever a wrong answer is found the way leads back a little, so that the next one is nearer.

References:
    Croce & Hein, ICML 2020, arXiv:1907.02044: the targeted form of AutoAttack (towards each of the likeliest wrong classes), with
    its constants: a bias of at most 0.1 towards the start, steps 1.05 times as far as the plane, 0.9 of the way kept after a find.
    It has one start, the input itself, and no search along the last segment.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.evaluate.robustness.attacks.threat import Scores, Threat, gradient_of, lengths, towards_each, wrong

__all__ = ["fab", "to_plane"]

_MOST_BIAS, _BEYOND, _BACK = 0.1, 1.05, 0.9


def fab(model: Scores, x: Tensor, right: Tensor, threat: Threat, *, steps: int, most: int) -> Tensor:
    """Return inputs near ``x``; those are answered wrongly for which such a change was found within the reach.

    Args:
        most: how many of the likeliest wrong classes are gone towards, one after the other.
    """

    def towards(some: Tensor, own: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        nearest, away = _towards(model, some, own, target, threat, steps)
        return nearest, away <= threat.reach * (1 + 1e-6)

    return towards_each(model, x, right, most, towards)


def _towards(
    model: Scores, x: Tensor, right: Tensor, target: Tensor, threat: Threat, steps: int
) -> tuple[Tensor, Tensor]:
    """Return the nearest wrongly answered inputs that were found, and how far each is: infinitely where there is none."""
    low, high = threat.low.minimum(x), threat.high.maximum(x)
    now, nearest = x.clone(), x.clone()
    least = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    shape = (-1, *[1] * (x.ndim - 1))

    def lead(scores: Tensor) -> Tensor:
        return (scores.gather(1, target[:, None]) - scores.gather(1, right[:, None]))[:, 0]

    for _ in range(steps):
        gradient, ahead, scores = gradient_of(model, now, lead)
        fooled = wrong(scores, right)
        away = _size(now - x, threat)
        closer = fooled & (away < least)
        nearest[closer], least[closer] = now[closer], away[closer]
        # After a find the way leads back; the plane is the one that was met there.
        here = torch.where(fooled.reshape(shape), x + _BACK * (now - x), now)
        ahead = ahead + ((here - now) * gradient).flatten(1).sum(dim=1)
        to_here = to_plane(here, gradient, ahead, low, high, threat)
        to_start = to_plane(x, gradient, ahead + ((x - here) * gradient).flatten(1).sum(dim=1), low, high, threat)
        near, far = _size(to_here, threat), _size(to_start, threat)
        bias = (near / (near + far).clamp(min=1e-12)).clamp(max=_MOST_BIAS).reshape(shape)
        now = (1 - bias) * (here + _BEYOND * to_here) + bias * (x + _BEYOND * to_start)
        now = now.maximum(low).minimum(high)
    with torch.no_grad():
        away, fooled = _size(now - x, threat), wrong(model(now), right)
    closer = fooled & (away < least)
    nearest[closer], least[closer] = now[closer], away[closer]
    return nearest, least


def to_plane(x: Tensor, normal: Tensor, value: Tensor, low: Tensor, high: Tensor, threat: Threat) -> Tensor:
    """Return the smallest change that brings each ``x`` to where ``value + normal * change`` is zero, without leaving the box.

    Where nothing in the box gets there, it is the change that gets nearest.

    Shapes:
        ``x`` and ``normal`` are ``(n, ...)``, ``value`` is ``(n,)``.
    """
    slope = torch.where(threat.free, normal, torch.zeros_like(normal)).flatten(1)
    # What the change has to do to each number: up where that moves the value towards zero, else down.
    up = (slope > 0) == (value < 0)[:, None]
    room = torch.where(up, (high - x).flatten(1), (x - low).flatten(1)).clamp(min=0, max=1e8)
    steep = slope.abs()
    # All go at a pace (one, or their slope) until their room is used up.
    pace = torch.ones_like(steep) if threat.norm == "linf" else steep
    ends, order = (room / pace.clamp(min=1e-20)).sort(dim=1)
    gain = (steep * room).gather(1, order).cumsum(dim=1)
    speed = (steep * pace).gather(1, order)
    rest = speed.flip(1).cumsum(dim=1).flip(1) - speed
    reached = gain + ends * rest  # what is gained in all when the first, second ... is at its end
    wanted = value.abs()[:, None]
    first = (reached < wanted).sum(dim=1, keepdim=True)
    inside = first.clamp(max=steep.shape[1] - 1)
    before = torch.where(inside > 0, gain.gather(1, (inside - 1).clamp(min=0)), torch.zeros_like(wanted))
    going = (rest + speed).gather(1, inside)
    time = torch.where(first < steep.shape[1], (wanted - before) / going.clamp(min=1e-30), ends[:, -1:])
    change = (time * pace).minimum(room) * torch.where(steep > 0, torch.ones_like(steep), torch.zeros_like(steep))
    return torch.where(up, change, -change).reshape(x.shape)


def _size(change: Tensor, threat: Threat) -> Tensor:
    """Return how large each change is, in the norm."""
    return change.flatten(1).abs().amax(dim=1) if threat.norm == "linf" else lengths(change).flatten()
