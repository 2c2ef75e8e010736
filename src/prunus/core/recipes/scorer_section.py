"""What may a recipe say of the model that scores the training examples?"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from prunus.core.recipes.section import Fraction, Section

__all__ = ["AnyScorer", "Scorer"]


class Scorer(Section):
    """Which model tells what each training example is worth, wherever a score, a cleaning or an embedding asks one."""

    model: Literal["dense", "pruned"] = Field(
        "dense",
        description="dense: the recipe's; pruned: the same with fewer units, cut as strategy says before it is trained for scores",
    )
    keep_fraction: Fraction | None = Field(
        None, description="pruned: share of the units that stay; default: strategy.keep_fraction, or 0.5"
    )
    sample: Annotated[int, Field(ge=0)] = Field(
        1000,
        description="pruned: on so many examples its scores are compared with the dense model's, in three short trainings on them "
        "alone (first seed); 0: they aren't",
    )


def _by_name(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


AnyScorer = Annotated[Scorer, BeforeValidator(_by_name, json_schema_input_type=Literal["dense", "pruned"] | Scorer)]
"""A section, or just the model's name."""
