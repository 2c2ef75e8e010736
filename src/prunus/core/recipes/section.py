"""What do all sections of a recipe share: strictness, and the kinds of numbers that they take?"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Count", "Finite", "Fraction", "NonNegative", "Positive", "Section", "Share"]

Fraction = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values don't change after they were read."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
