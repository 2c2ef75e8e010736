"""Square: random squares of changed inputs, kept where they help. It needs no gradient, so that hiding gradients is of no use.

References:
    Andriushchenko et al., ECCV 2020, arXiv:1912.00049: the Linf attack, with the schedule of sizes of AutoAttack (0.8 of the
    input at first). Of a table's row, a window of neighbouring features takes the square's place.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from prunus.evaluate.robustness.attacks.threat import Scores, Threat, inside, margin

__all__ = ["kept_where_better", "share_changed", "square"]

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def square(
    model: Scores, x: Tensor, right: Tensor, threat: Threat, *, queries: int, draw: torch.Generator, first: float = 0.8
) -> Tensor:
    """Return inputs near ``x``, those that are answered wrongly where one was found; only scores are asked for.

    Args:
        threat: in the Linf norm.
        queries: so many per example at most.
        first: the share of the input that the first squares change.
    """
    images = x if x.ndim == 4 else x.reshape(len(x), 1, 1, -1)
    shape = images.shape

    def signs(*size: int) -> Tensor:
        return (2 * torch.randint(0, 2, size, generator=draw) - 1).to(x.dtype).to(x.device)

    stripes = signs(len(x), shape[1], 1, shape[3]).expand(shape).reshape(x.shape)
    best = inside(x + threat.reach * stripes, x, threat)
    with torch.no_grad():
        lead = margin(model(best), right)
        # Where the stripes are no better than nothing, nothing is the start.
        plain = margin(model(x), right)
    worse = plain < lead
    best[worse], lead = x[worse], lead.minimum(plain)

    def squares(rows: Tensor, share: float) -> Tensor:
        change = torch.zeros(len(rows), *shape[1:], dtype=x.dtype, device=x.device)
        height = min(max(round(math.sqrt(share * shape[2] * shape[3])), 1), shape[2])
        width = min(max(round(share * shape[2] * shape[3] / height), 1), shape[3])
        if shape[2] > 1:
            width = min(height, shape[3])
        tops = torch.randint(0, shape[2] - height + 1, (len(rows),), generator=draw).tolist()
        lefts = torch.randint(0, shape[3] - width + 1, (len(rows),), generator=draw).tolist()
        by = 2 * threat.reach * signs(len(rows), shape[1], 1, 1)
        for k, (top, left) in enumerate(zip(tops, lefts, strict=True)):
            change[k, :, top : top + height, left : left + width] = by[k]
        return inside(best[rows] + change.reshape(-1, *x.shape[1:]), x[rows], threat)

    return kept_where_better(model, best, lead, right, squares, queries=queries, first=first)


def kept_where_better(
    model: Scores,
    best: Tensor,
    lead: Tensor,
    right: Tensor,
    propose: Callable[[Tensor, float], Tensor],
    *,
    queries: int,
    first: float,
) -> Tensor:
    """Return ``best`` after all queries; one that helps an input is kept in it, and so is the next one's start.

    Args:
        best: inputs to start from; they are changed.
        lead: the margins of the right answers on them, which are changed, too; none is asked of an input that has lost its own.
        propose: returns changed inputs for rows of ``best``, of which about such a share is changed.
    """
    for number in range(1, queries):
        rows = (lead > 0).nonzero()[:, 0]
        if not len(rows):
            break
        tried = propose(rows, share_changed(number, queries, first))
        with torch.no_grad():
            found = margin(model(tried), right[rows])
        better = found < lead[rows]
        best[rows[better]], lead[rows[better]] = tried[better], found[better]
    return best


def share_changed(number: int, queries: int, first: float) -> float:
    """Return which share of an input the squares of a query change: halved ever more rarely, as over ten thousand.

    >>> [share_changed(n, 10_000, 0.8) for n in (5, 11, 51, 9_999)]
    [0.8, 0.4, 0.2, 0.0015625]
    """
    at = int(number / queries * 10_000)
    return float(first / 2 ** sum(at > limit for limit in _HALVINGS))
