"""Which sizes of one model are made from one plan? The section ``sizes`` of a recipe."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field, field_validator

from prunus.core.recipes.section import Fraction, Section
from prunus.core.recipes.strategy import Strategy
from prunus.core.units import is_mask

__all__ = ["Sizes", "check_sizes"]


class Sizes(Section):
    """Several sizes of one model, each cut out of the one before, and what they have in common stored once."""

    keep_fractions: tuple[Fraction, ...] = Field(
        (0.75, 0.5, 0.25),
        min_length=2,
        max_length=32,
        description="shares of the dense model's units, the largest first",
    )
    weights: Literal["shared", "own"] = Field(
        "shared",
        description="shared: all sizes are recovered together, in turns; a smaller one has the largest's matrices, and norms and "
        "biases of its own; own: each is recovered by itself and stored whole",
    )

    @field_validator("keep_fractions")
    @classmethod
    def _they_fall(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if any(small >= large for large, small in pairwise(shares)):
            raise ValueError(
                f"keep_fractions go from the largest size down, each below the one before: got {list(shares)}"
            )
        return shares


def check_sizes(sizes: Sizes | None, strategy: Strategy | None) -> None:
    """Refuse a strategy whose cuts can't be cut further, or that says itself how much stays."""
    if sizes is None:
        return
    if strategy is None:
        raise ValueError("sizes need a strategy, which says what may go: got none; give one")
    if strategy.keep_fraction is not None or strategy.cutoff is not None:
        raise ValueError(
            "sizes.keep_fractions and the strategy's keep_fraction or cutoff both say how much stays: give one of them"
        )
    whole = strategy.granularity[0] in ("block", "expert")
    if len(strategy.granularity) > 1 or is_mask(strategy.granularity[0]) or whole:
        raise ValueError(f"sizes need one granularity of widths, like channel: got {list(strategy.granularity)}")
    if strategy.schedule.rounds > 1 or strategy.schedule.during == "train" or strategy.schedule.rewind_to is not None:
        raise ValueError("sizes are cut one after the other already: leave strategy.schedule out")
