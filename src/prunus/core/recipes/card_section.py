"""What may an owner say about a model, which no run can measure? The section ``card`` of a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from prunus.core.recipes.section import Section
from prunus.core.text import plain

__all__ = ["Card"]

Line = Annotated[str, Field(min_length=1, max_length=1000)]
Lines = tuple[Line, ...]


class Card(Section):
    """Goes into the model card and the bill of materials that a bundle brings; all else there is measured or known."""

    description: str = Field("", max_length=4000, description="what the model does, in a sentence or two")
    version: str = Field(
        "", max_length=40, description="of the model, for people; prunus sign says which one is proven"
    )
    license: str = Field(
        "", pattern=r"^[A-Za-z0-9.+-]{0,64}$", description="of the model, by its SPDX identifier: apache-2.0, MIT"
    )
    data_license: str = Field(
        "", pattern=r"^[A-Za-z0-9.+-]{0,64}$", description="of the training data, by its SPDX identifier: CC-BY-4.0"
    )
    authors: Lines = Field((), max_length=50, description="who made it")
    contact: str = Field("", max_length=300, description="whom to ask")
    users: Lines = Field((), max_length=50, description="for whom it is meant")
    intended_use: Lines = Field((), max_length=50, description="what it is meant for")
    out_of_scope: Lines = Field((), max_length=50, description="what it isn't meant for")
    limitations: Lines = Field((), max_length=50, description="where it is known to do badly")
    ethical: Lines = Field((), max_length=50, description="what harm it might do")
    tags: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")], ...] = Field(
        (), max_length=50, description="words to find it by"
    )
    language: tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")], ...] = Field(
        (), max_length=50, description="of its texts: en, de"
    )

    @field_validator("*", mode="after")
    @classmethod
    def _steers_nothing(cls, value: object) -> object:
        """A card is shown on terminals and pages."""
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and plain(text.replace("\n", " ")) != text.replace("\n", " "):
                raise ValueError(f"expected text without control characters, got {text[:60]!r}")
        return value
