"""What may be pruned in a model, and what is each kind called?

Three kinds are masks, which set single weights to zero and leave every shape as it is: ``weight``; ``N:M`` (N kept of every M
weights along the input dimension); and ``RxC`` (blocks of R rows and C columns of a weight matrix). All others really go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["UNITS", "Mask", "as_mask", "check_unit", "is_mask", "plural"]

UNITS = ("weight", "channel", "head", "head_dim", "mlp", "width", "hidden", "expert", "block")
_PATTERN = re.compile(r"([1-9][0-9]{0,4})([:x])([1-9][0-9]{0,4})")


@dataclass(frozen=True)
class Mask:
    """How the weights of a matrix are tiled.

    ``n_m``: ``first`` stay of every ``second`` along the input. ``block``: ``first`` rows and ``second`` columns stay or go
    together; a single weight is a block of 1 x 1.
    """

    kind: Literal["n_m", "block"]
    first: int
    second: int

    @property
    def rows(self) -> int:
        """How many outputs one tile spans."""
        return self.first if self.kind == "block" else 1

    @property
    def columns(self) -> int:
        """How many inputs one tile spans."""
        return self.second


def as_mask(granularity: str) -> Mask | None:
    """Return the mask that a granularity is, or None where units really go.

    >>> as_mask("2:4"), as_mask("4x1"), as_mask("channel")
    (Mask(kind='n_m', first=2, second=4), Mask(kind='block', first=4, second=1), None)
    """
    if granularity == "weight":
        return Mask("block", 1, 1)
    found = _PATTERN.fullmatch(granularity)
    return found and Mask("n_m" if found[2] == ":" else "block", int(found[1]), int(found[3]))


def is_mask(granularity: str) -> bool:
    """Tell whether a granularity leaves every shape as it is."""
    return as_mask(granularity) is not None


def check_unit(value: str) -> str:
    """Return ``value`` if it is a granularity of the model.

    Raises:
        ValueError: it is none; the message lists what there is.
    """
    if value in ("feature", "input_feature"):
        raise ValueError(f"input features are cut by the section features, not by the strategy: got {value!r}")
    mask = as_mask(value)
    if value not in UNITS and mask is None:
        names = ", ".join(repr(name) for name in UNITS)
        raise ValueError(
            f"expected one of {names}, 'N:M' (such as '2:4') or blocks 'RxC' (such as '4x1'), got {value!r}"
        )
    if mask is not None and mask.kind == "n_m" and mask.first >= mask.second:
        raise ValueError(f"N:M keeps N of every M weights, so N must be less than M: got {value!r}")
    if value == "1x1":
        raise ValueError("blocks of one weight are the granularity weight: got '1x1'")
    return value


def plural(granularity: str) -> str:
    """Return what several units of a granularity are called.

    >>> plural("channel"), plural("2:4"), plural("4x1")
    ('channels', 'weights (2:4)', '4x1 blocks')
    """
    mask = as_mask(granularity)
    if mask is None or granularity == "weight":
        return f"{granularity}s"
    return f"weights ({granularity})" if mask.kind == "n_m" else f"{granularity} blocks"
