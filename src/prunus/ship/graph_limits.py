"""How much may a computation take that came from elsewhere, and how does a user allow more?

``PRUNUS_GRAPH_LIMITS=4`` allows four times as much of everything, wherever a graph is read, run or written; whoever loads a bundle
in Python may give :class:`GraphLimits` of their own. Each refusal names the variable.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from prunus.core.errors import BundleError

__all__ = ["MOST_NODES", "VARIABLE", "GraphLimits", "TooCostlyError", "times_asked", "usual_limits"]

VARIABLE = "PRUNUS_GRAPH_LIMITS"
"""The environment variable that holds how many times the usual limits a graph may take."""

MOST_NODES = 50_000
"""The longest honest trace of the zoo has 3,900 nodes; a recurrent cell that is unrolled has some ten for each position."""


@dataclass(frozen=True)
class GraphLimits:
    """What a computation that came from elsewhere may take.

    Args:
        n_nodes: so many nodes, tensors and inputs included.
        tensor_bytes: so large may one tensor be that it makes.
        live_bytes: so much may all tensors take that it holds at once, beside its weights and inputs.
        arithmetic_per_example: so many operations of arithmetic for each example of a batch, where one is a multiplication or
            addition of a matrix product in single precision. Default: minutes on one core.
    """

    n_nodes: int = MOST_NODES
    tensor_bytes: int = 4 * 2**30
    live_bytes: int = 8 * 2**30
    arithmetic_per_example: float = 4e12


class TooCostlyError(BundleError):
    """A computation would take more than its limits allow."""

    def __init__(self, text: str) -> None:
        advice = f"; if you trust it, set {VARIABLE}={2 * times_asked()} or more (times the usual limits)"
        super().__init__(text if VARIABLE in text else text + advice)


def usual_limits() -> GraphLimits:
    """Return the limits that hold where nobody gave others.

    Raises:
        BundleError: the user's variable is no whole number.
    """
    times, plain = times_asked(), GraphLimits()
    return GraphLimits(
        times * plain.n_nodes,
        times * plain.tensor_bytes,
        times * plain.live_bytes,
        times * plain.arithmetic_per_example,
    )


def times_asked() -> int:
    """Return how many times the usual limits the user allows.

    Raises:
        BundleError: the variable is no whole number from 1 to 1,000,000.
    """
    text = os.environ.get(VARIABLE, "") or "1"
    if not text.isdecimal() or not text.isascii() or not 1 <= int(text[:8]) <= 1_000_000 or len(text) > 7:
        raise BundleError(
            f"{VARIABLE} must be a whole number from 1 to 1000000, times the usual limits: got {text[:40]!r}"
        )
    return int(text)
