"""How many units does a keep fraction mean, and which counts may a stratum end with?

The one amount is ``keep_fraction`` in (0, 1]. A stratum may end with its floor, a multiple of its ``multiple``, or its whole size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunus.core.errors import RecipeError
from prunus.core.types import Ints, Stratum

__all__ = ["Ladder", "budget", "check_keep_fraction"]


def check_keep_fraction(value: float) -> float:
    """Return ``value`` if it is a keep fraction.

    Raises:
        RecipeError: it isn't a number in (0, 1].
    """
    # NaN fails every comparison, so the test is written for what is allowed.
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value <= 1:
        raise RecipeError(f"keep_fraction must be in (0, 1], the share of the units that stays: got {value!r}")
    return float(value)


def budget(n_units: int, keep_fraction: float) -> int:
    """Return how many of ``n_units`` stay.

    Raises:
        RecipeError: ``keep_fraction`` isn't in (0, 1].

    >>> budget(10, 0.3), budget(7, 1.0)
    (3, 7)
    """
    return round(check_keep_fraction(keep_fraction) * n_units)


@dataclass(frozen=True)
class Ladder:
    """The counts that each stratum may end with: rung k of stratum i is ``min(k * block[i], size[i])``.

    Shapes:
        All are ``(strata,)``; ``first`` is the rung of the floor and ``last`` that of keeping everything.
    """

    size: Ints
    block: Ints
    first: Ints
    last: Ints

    @classmethod
    def of(cls, strata: Sequence[Stratum]) -> Ladder:
        """Return the ladder of ``strata``; a stratum smaller than one multiple may end with any count.

        Raises:
            RecipeError: a ``multiple`` below 1 or a negative ``min_units``.
        """
        for stratum in strata:
            if stratum.multiple < 1 or stratum.min_units < 0:
                raise RecipeError(
                    f"stratum {stratum.name!r} needs multiple >= 1 and min_units >= 0: "
                    f"got multiple {stratum.multiple} and min_units {stratum.min_units}"
                )
        size = np.array([len(stratum.saliency) for stratum in strata], np.int64)
        multiple = np.array([stratum.multiple for stratum in strata], np.int64)
        block = np.where(multiple <= size, multiple, 1)
        floor = np.minimum(np.array([stratum.min_units for stratum in strata], np.int64), size)
        return cls(size, block, -(-floor // block), -(-size // block))

    def counts(self, rung: Ints) -> Ints:
        """Return how many units each stratum keeps on its rung."""
        counts: Ints = np.minimum(rung * self.block, self.size)
        return counts

    def climb(self, stratum: int) -> Ints:
        """Return the counts that one stratum passes from its floor to its whole size."""
        rungs = np.arange(self.first[stratum], self.last[stratum] + 1)
        counts: Ints = np.minimum(rungs * self.block[stratum], self.size[stratum])
        return counts

    def at_least(self, counts: Ints) -> Ints:
        """Return the lowest allowed counts that are no lower than ``counts``."""
        return self.counts(np.maximum(-(-counts // self.block), self.first))
