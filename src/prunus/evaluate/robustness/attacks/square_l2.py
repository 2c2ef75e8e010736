"""Square in the Euclidean norm: windows of the change that swap what they hold, kept where that helps.

A query takes the change out of one window and puts a bump (half up, half down) into another, as large as the whole change may then
be. Of a table's row, a run of neighbouring features takes the square's place.

References:
    Andriushchenko et al., ECCV 2020, arXiv:1912.00049, algorithm 3, and their reference code. All examples of a batch share a
    query's windows, as there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prunus.evaluate.robustness.attacks.square import kept_where_better
from prunus.evaluate.robustness.attacks.threat import Scores, Threat, inside, lengths, margin

__all__ = ["bump", "square_l2"]


def square_l2(
    model: Scores, x: Tensor, right: Tensor, threat: Threat, *, queries: int, draw: torch.Generator, first: float = 0.8
) -> Tensor:
    """Return inputs near ``x``, those that are answered wrongly where one was found; only scores are asked for.

    Args:
        threat: in the Euclidean norm.
        queries: so many per example at most.
        first: the share of the input that the first windows take.
    """
    images = x if x.ndim == 4 else x.reshape(len(x), 1, 1, -1)
    n, channels, height, width = images.shape

    def drawn(most: int) -> int:
        return int(torch.randint(0, most + 1, (1,), generator=draw))

    def signs(rows: int) -> Tensor:
        return (2 * torch.randint(0, 2, (rows, channels, 1, 1), generator=draw) - 1).to(x.dtype).to(x.device)

    def allowed(rows: Tensor, change: Tensor) -> Tensor:
        whole = change.reshape(-1, *x.shape[1:])
        whole = torch.where(threat.free, whole, torch.zeros_like(whole))
        return inside(x[rows] + threat.reach * whole / lengths(whole).clamp(min=1e-12), x[rows], threat)

    tall, wide = max(height // 5, 1), max(width // 5, 1)
    start = torch.zeros_like(images)
    for top in range(0, height - tall + 1, tall):
        for left in range(0, width - wide + 1, wide):
            start[:, :, top : top + tall, left : left + wide] += _bump(tall, wide, draw).to(x) * signs(n)
    every = torch.arange(n, device=x.device)
    best = allowed(every, start)
    with torch.no_grad():
        lead, plain = margin(model(best), right), margin(model(x), right)
    best[plain <= 0] = x[plain <= 0]  # what is wrong anyway stays as it is
    lead[plain <= 0] = plain[plain <= 0]

    def windows(rows: Tensor, share: float) -> Tensor:
        change = (best[rows] - x[rows]).reshape(len(rows), channels, height, width)
        tall, wide = _window(share, height, width)
        (top, left), (gone, aside) = [(drawn(height - tall), drawn(width - wide)) for _ in range(2)]
        taken = (slice(None), slice(None), slice(top, top + tall), slice(left, left + wide))
        emptied = (slice(None), slice(None), slice(gone, gone + tall), slice(aside, aside + wide))
        both = torch.zeros_like(change)
        both[taken] = both[emptied] = 1.0
        used = lengths(change * both).reshape(-1, 1, 1, 1)
        unused = (threat.reach**2 - lengths(change).reshape(-1, 1, 1, 1) ** 2).clamp(min=0)
        old = change[taken] / change[taken].square().sum(dim=(2, 3), keepdim=True).sqrt().clamp(min=1e-12)
        new = old + _bump(tall, wide, draw).to(x) * signs(len(rows))
        new = new / new.square().sum(dim=(2, 3), keepdim=True).sqrt().clamp(min=1e-12)
        change[emptied] = 0.0
        change[taken] = new * (unused / channels + used**2).sqrt()
        return allowed(rows, change)

    return kept_where_better(model, best, lead, right, windows, queries=queries, first=first)


def _window(share: float, height: int, width: int) -> tuple[int, int]:
    """Return how tall and wide a window is that takes so much of an input: odd, at least three, where the input is as large."""
    if height == 1:
        return 1, min(max(round(share * width), 2), width)
    side = max(round(math.sqrt(share * height * width)), 3)
    side += side % 2 == 0
    return min(side, height), min(side, width)


def _bump(tall: int, wide: int, draw: torch.Generator) -> Tensor:
    """Return a change of length one for a window: up in one half, down in the other, the halves one above or beside the other."""
    on_its_side = tall == 1 or (wide > 1 and tall == wide and bool(torch.randint(0, 2, (1,), generator=draw)))
    return bump(wide, tall).T if on_its_side else bump(tall, wide)


def bump(tall: int, wide: int) -> Tensor:
    """Return a window of length one whose upper half is a hill, and its lower half a valley.

    >>> bump(2, 1)
    tensor([[ 0.7071],
            [-0.7071]])
    """
    half = tall // 2
    return _of_length_one(torch.cat([_hill(half, wide), -_hill(tall - half, wide)]))


def _hill(tall: int, wide: int) -> Tensor:
    """Return squares around the middle that lie one on the other, the larger the lower."""
    found = torch.zeros(tall, wide)
    top, left = tall // 2, wide // 2
    for number in range(max(top, left) + 1):
        size = 2 * number + 1
        begin, aside = top - number, left - number
        found[max(begin, 0) : min(begin + size, tall), max(aside, 0) : min(aside + size, wide)] += 1 / (number + 1) ** 2
    return _of_length_one(found)


def _of_length_one(change: Tensor) -> Tensor:
    found: Tensor = change / change.square().sum().sqrt().clamp(min=1e-12)
    return found
