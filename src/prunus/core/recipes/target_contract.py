"""What may a smaller model cost, and what must it keep? The sections ``target`` and ``contract`` of a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from prunus.core.recipes.section import Count, Fraction, Positive, Section

__all__ = ["Contract", "CostKind", "Harm", "Target"]

CostKind = Literal["latency", "params", "macs", "bytes"]


class Target(Section):
    """How much of the dense model's cost may be left; exactly one of them."""

    latency: Fraction | None = Field(None, description="measured end to end in the runtime of evaluation.latency")
    params: Fraction | None = None
    macs: Fraction | None = None
    bytes: Fraction | None = Field(None, description="of parameters and buffers")
    smallest: CostKind | None = Field(
        None, description="as little of this cost as the contract allows; `target: smallest` means params"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, value: Any) -> Any:
        return {"smallest": "params"} if value == "smallest" else value

    @model_validator(mode="after")
    def _exactly_one(self) -> Target:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of latency, params, macs, bytes and smallest: got {given or 'none'}")
        return self

    @property
    def kind(self) -> CostKind:
        """Which cost counts."""
        kinds: tuple[CostKind, ...] = ("latency", "params", "macs", "bytes")
        return next((kind for kind in kinds if getattr(self, kind) is not None), self.smallest or "params")

    @property
    def share(self) -> float | None:
        """The share that may be left; None: as small as the contract allows."""
        return None if self.smallest else float(getattr(self, self.kind))


class Harm(Section):
    """What no single class, and no group of examples, may lose, however good the model is on the whole."""

    worst_class: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="how much of its recall each class may lose at most; 0.03 is three points"
    )
    worst_group: Positive | None = Field(
        None,
        description="how much of the contract's metric each group of data.groups may lose at most, in the metric's own unit",
    )
    small: Literal["refuse", "leave_out"] = Field(
        "refuse",
        description="a class or group with too few validation examples to show that: refuse stops before any training, leave_out "
        "promises nothing about it, and says so",
    )

    @model_validator(mode="after")
    def _something(self) -> Harm:
        if self.worst_class is None and self.worst_group is None:
            raise ValueError("give worst_class, worst_group, or both: got neither")
        return self


class Contract(Section):
    """What the smaller model has to keep, shown on the validation examples; without it none is delivered."""

    metric: str = Field("accuracy", description="one of those that are evaluated")
    max_drop: Positive = Field(0.01, description="in the metric's own unit; 0.01 of accuracy is one point")
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = Field(0.95, description="one-sided, for the whole search")
    harm: Harm | None = Field(None, description="what each class or group must keep, too, with the same confidence")
    max_candidates: Count = Field(6, description="how many models the search may train")

    @property
    def of_groups(self) -> bool:
        """Whether it speaks of groups of examples."""
        return self.harm is not None and self.harm.worst_group is not None
