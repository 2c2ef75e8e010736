"""What do all parts of a record share: strictness, and how a number with an interval is kept?"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["GapStep", "Number", "Part"]


class Part(BaseModel):
    """A part of a record: nothing else in it, nothing changed, every number finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class GapStep(Part):
    """How far training and validation examples were apart after a cut and its recovery; ``kept`` is the share of the units left."""

    seed: int
    cut: int
    kept: float
    metric: str
    train: float
    validation: float
    gap: float
    dense_gap: float
    taken_back: bool


class Number(Part):
    """A measurement with its interval; None where there is nothing to measure."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    unit: str = ""
    higher_is_better: bool | None = None
