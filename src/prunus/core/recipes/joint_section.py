"""What may a recipe say of pruning both sides at once: which shares of the data and of the model are tried together?"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from prunus.core.recipes.section import Fraction, Positive, Section
from prunus.core.recipes.strategy import Strategy
from prunus.core.recipes.target_contract import Target
from prunus.core.units import as_mask

__all__ = ["Joint", "check_joint_amounts"]


def _from_all_down(shares: tuple[float, ...]) -> tuple[float, ...]:
    """Return the shares from 1, which is what the others are compared with, down; each once.

    >>> _from_all_down((0.5, 0.8))
    (1.0, 0.8, 0.5)
    """
    return tuple(sorted({1.0, *shares}, reverse=True))


Shares = Annotated[tuple[Fraction, ...], AfterValidator(_from_all_down)]


class Joint(Section):
    """Try shares of the training examples together with shares of the model, and say which are no worse than all of both."""

    data: Shares = Field(
        (1.0, 0.8, 0.5),
        description="shares of the training examples; 1: as they are; less: what examples says is done first, then its cover (by "
        "chance, where it has none) keeps so many, each share among those of the share before",
    )
    model: Shares = Field(
        (1.0, 0.7, 0.5),
        description="shares of the model: instead of strategy.keep_fraction, or with a target instead of the share of its cost; 1: "
        "not pruned, and trained for as many epochs more",
    )
    max_drop: Positive | None = Field(
        None,
        description="how much worse counts as no worse, in the metric's own unit; default: the contract's, or 0.01",
    )


def check_joint_amounts(
    joint: Joint | None, strategy: Strategy | None, target: Target | None, *, features: bool
) -> None:
    """Refuse a grid whose model side can't vary, or whose validation examples decide something else, too."""
    if joint is None:
        return
    if features:
        raise ValueError(
            "joint and features both decide on the validation examples, so the grid would show too much: got both; prune the "
            "features in a run of their own"
        )
    if len(joint.model) == 1 or target is not None:
        return
    if strategy is None:
        raise ValueError(
            f"joint.model needs a strategy, which says what may go: got {list(joint.model)} and none; give one, or joint.model: [1]"
        )
    first = as_mask(strategy.granularity[0])
    if strategy.cutoff is not None or (first is not None and first.kind == "n_m"):
        by = "a cutoff" if strategy.cutoff is not None else f"granularity {strategy.granularity[0]}"
        raise ValueError(
            f"joint.model takes the place of strategy.keep_fraction, and {by} says by itself how much goes: got both; give "
            "strategy.keep_fraction, or joint.model: [1]"
        )
    if any(rule.keep_fraction is not None for rule in strategy.layers):
        raise ValueError(
            "joint.model takes the place of strategy.keep_fraction, and strategy.layers have amounts of their own: got both; leave "
            "their keep_fraction out, or give joint.model: [1]"
        )
