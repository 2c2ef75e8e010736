"""Where does something that holds stop holding, along a line of numbers?"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["edge"]


def edge(holds: Callable[[float], bool], low: float, high: float, *, within: float = 0.0) -> tuple[float, float]:
    """Return the last number at which ``holds`` was seen and the first at which it wasn't, by bisection.

    Args:
        holds: taken to be true at ``low`` and false at ``high``, neither of which is asked, and to change once in between.
        within: how near the two come; 0: there is no number between them.

    >>> edge(lambda x: x * x < 2, 0.0, 2.0, within=0.25)
    (1.25, 1.5)
    """
    while high - low > within and low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, high
