"""How much wider is an interval whose spread was itself estimated from a few seeds?"""

from __future__ import annotations

from math import cos, pi, sin, sqrt, tan

from prunus.core.bisection import edge

__all__ = ["student_quantile"]


def student_quantile(confidence: float, degrees: int) -> float:
    """Return the ``t`` that Student's distribution stays within, on both sides, with probability ``confidence``.

    References:
        The finite series for whole degrees of freedom: Abramowitz and Stegun, 26.7.3 and 26.7.4.

    >>> round(student_quantile(0.95, 1), 3), round(student_quantile(0.95, 2), 3), round(student_quantile(0.95, 9), 3)
    (12.706, 4.303, 2.262)
    """
    _, angle = edge(lambda angle: _within(angle, degrees) < confidence, 0.0, pi / 2)
    return tan(angle) * sqrt(degrees)


def _within(angle: float, degrees: int) -> float:
    """Return the probability of lying between -t and t, where ``t`` is the angle's tangent times the root of the degrees."""
    odd = degrees % 2
    term, total = (cos(angle), cos(angle)) if odd else (1.0, 1.0)
    if degrees == 1:
        return 2 * angle / pi
    for k in range(2 + odd, degrees - 1, 2):
        term *= (k - 1) / k * cos(angle) ** 2
        total += term
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
