"""Which trials are beaten by no other, how much of the space of objectives do they cover, and which few stand for all?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunus.core.types import Floats, Ints

__all__ = ["hypervolume", "spread", "unbeaten"]


def unbeaten(values: Floats) -> Ints:
    """Return the rows that no other row is at least as low as in every column, and lower in one.

    Shapes:
        ``(n, objectives)``, all to be low, to ``(m,)`` row numbers, by the first column; of equal rows the first.

    >>> unbeaten(np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 3.0], [3.0, 1.0], [1.0, 3.0]])).tolist()
    [0, 1, 3]
    """
    order = np.lexsort(values.T[::-1]) if len(values) else np.arange(0)
    found: list[int] = []
    for row in order.tolist():
        if not any(bool((values[kept] <= values[row]).all()) for kept in found):
            found.append(row)
    return np.array(found, np.int64)


def hypervolume(values: Floats, reference: Floats) -> float:
    """Return the volume between a reference point and what the rows beat: the more, the better the frontier.

    Exact, by slicing along the last objective; meant for some hundred points and few objectives.

    Shapes:
        ``(n, objectives)``, all to be low, and ``(objectives,)``.
    References:
        Zitzler and Thiele, PPSN V, 1998.

    >>> hypervolume(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([1.0, 1.0]))
    0.3125
    """
    inside = values[(values < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    if values.shape[1] == 1:
        return float(reference[0] - inside[:, 0].min())
    levels = np.unique(inside[:, -1])
    ends = np.append(levels[1:], reference[-1])
    return sum(
        float(end - level) * hypervolume(inside[inside[:, -1] <= level][:, :-1], reference[:-1])
        for level, end in zip(levels, ends, strict=True)
    )


def spread(costs: Sequence[float], n: int) -> list[int]:
    """Return ``n`` positions that lie evenly over sorted costs, the ends among them.

    >>> spread([0.1, 0.11, 0.12, 0.5, 0.9], 3)
    [0, 3, 4]
    """
    if n >= len(costs):
        return list(range(len(costs)))
    goals = np.linspace(costs[0], costs[-1], n) if n > 1 else np.array([costs[0]])
    left = list(range(len(costs)))
    taken: list[int] = []
    for goal in goals:
        nearest = min(left, key=lambda place: (abs(costs[place] - goal), place))
        left.remove(nearest)
        taken.append(nearest)
    return sorted(taken)
