"""Over which settings is searched, for what, and for how long? The section ``search`` of a recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_serializer, field_validator, model_validator

from prunus.core.errors import near
from prunus.core.files.urls.database_url import without_password
from prunus.core.recipes.section import Count, Finite, Fraction, NonNegative, Positive, Section
from prunus.core.recipes.target_contract import Contract, CostKind

__all__ = ["Confirm", "Objective", "Range", "Search", "leading_cost"]

Objective = Literal["quality"] | CostKind


def leading_cost(objectives: Sequence[str]) -> str:
    """Return by which cost settings are ordered: the first that is asked for, MACs where none is.

    >>> leading_cost(["quality", "latency", "bytes"]), leading_cost(["quality"])
    ('latency', 'macs')
    """
    return next((name for name in objectives if name != "quality"), "macs")


class Range(Section):
    """Numbers from ``low`` to ``high``, both among them; whole ones where both are and the key takes whole numbers."""

    low: int | Finite
    high: int | Finite
    log: bool = Field(False, description="draw evenly on a logarithmic scale")
    step: int | Finite | None = Field(None, description="only low, low + step and so on")

    @model_validator(mode="after")
    def _there_is_something_between(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low must be below high: got {self.low} and {self.high}")
        if self.step is not None and (self.step <= 0 or self.log):
            raise ValueError(f"a step is above zero and goes with no logarithm: got step {self.step}, log {self.log}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic scale begins above zero: got low {self.low}")
        return self

    @property
    def whole(self) -> bool:
        """Whether the numbers are whole ones."""
        return all(isinstance(value, int) for value in (self.low, self.high, 1 if self.step is None else self.step))


Choices = Annotated[tuple[Any, ...], Field(max_length=1000)]
_EXAMPLE = "strategy.keep_fraction: {low: 0.2, high: 0.9}"
_SAID_ELSEWHERE = {
    **dict.fromkeys(("min", "from", "start", "lower", "lo"), "low"),
    **dict.fromkeys(("max", "to", "stop", "end", "upper", "hi"), "high"),
    **dict.fromkeys(("log_scale", "logarithmic", "loguniform"), "log"),
    **dict.fromkeys(("q", "every"), "step"),
}
"""What other tools call the parts of a range, where the nearest spelling is another one."""


def _kind(values: Any) -> str:
    return "{low, high}" if isinstance(values, Mapping | Range) else "[]"


Varied = Annotated[
    Annotated[Range, Tag("{low, high}")] | Annotated[Choices, Tag("[]")],
    Discriminator(_kind),
]


def _check_varied(key: Any, values: Any) -> None:
    """Refuse what is neither a range nor a list of values, before pydantic says of both why it isn't one."""
    if not isinstance(key, str):
        raise ValueError(f"a key is a word, like strategy.keep_fraction: got {key!r}")
    if isinstance(values, Range):
        return
    if isinstance(values, Mapping):
        known = list(Range.model_fields)
        odd = [name for name in values if name not in known]
        if odd and odd[0] in ("values", "choices", "options"):
            raise ValueError(f"{key}: give the list itself: expected {key}: [...], got a section {odd[0]}")
        if odd and not any(name in values for name in known) and isinstance(values[odd[0]], Mapping | list | tuple):
            raise ValueError(
                f"{key}: the keys of a space are written with dots: expected {key}.{odd[0]}: ..., got a section"
            )
        if odd:
            meant = _SAID_ELSEWHERE.get(str(odd[0]))
            hint = near(str(odd[0]), known) if meant is None else f"did you mean {meant!r}?"
            raise ValueError(f"{key}: a range has no key {odd[0]!r}: {hint}")
        lacking = [name for name in ("low", "high") if name not in values]
        if lacking:
            raise ValueError(f"{key}: a range needs both low and high: add {lacking[0]}, or give a list of values")
    elif not isinstance(values, list | tuple):
        raise ValueError(f"{key}: expected {{low: ..., high: ...}} or a list of values, got {values!r}")
    elif not values:
        raise ValueError(f"{key}: an empty list leaves nothing to try: give values, or take the key away")
    else:
        seen = [json.dumps(value, sort_keys=True, default=str) for value in values]
        twice = [value for place, value in enumerate(values) if seen[place] in seen[:place]]
        if twice:
            raise ValueError(f"{key}: every value may be given once: got {twice[0]!r} twice")


class Confirm(Section):
    """How the few best settings are judged once more: on all data, with seeds that no trial had, and once on the test examples."""

    points: Count = Field(4, description="so many settings of the frontier are judged, the recommended one among them")
    seeds: Count = Field(3, description="so many seeds that the search didn't use")


class Search(Section):
    """Which settings are best: measured trials on the validation examples, and a frontier that is confirmed on others."""

    space: dict[str, Varied] = Field(
        description="recipe keys, as in an override (strategy.keep_fraction), each with {low, high} or a list of values"
    )
    objectives: tuple[Objective, ...] = Field(
        ("quality", "macs"),
        min_length=1,
        description="quality: the metric on the validation examples; or costs of the pruned model",
    )
    metric: str | None = Field(
        None, description="what quality means; default: the contract's metric, or the first that is evaluated"
    )
    contract: Contract | None = Field(
        None, description="what a setting has to keep to be recommended; settings that don't are avoided by the search"
    )
    trials: Count = Field(60, description="so many settings are tried, those of an earlier call among them")
    minutes: Positive | None = Field(None, description="no trial begins after so many minutes")
    sampler: Literal["tpe", "nsga2", "random"] = Field(
        "tpe", description="tpe: tree-structured Parzen estimator; nsga2: an evolution; random: by chance"
    )
    warm_starts: Annotated[int, Field(ge=0, le=20)] = Field(
        3,
        description="so many of the first trials take the keep fraction that the layers' sensitivity says would keep the contract: "
        "without recovery, then deeper and deeper cuts; needs a contract and strategy.keep_fraction in the space; 0: none",
    )
    batch: Count = Field(
        4,
        description="so many settings are chosen at once, from what all before gave: results hang on it, and not on the workers",
    )
    seeds: Count = Field(1, description="so many of the recipe's seeds are run in each trial")
    share: Fraction = Field(
        1.0, description="share of the training examples that trials use; what is confirmed uses all of them"
    )
    stop_early: bool = Field(
        True,
        description="stop a trial that is behind, after as many epochs, half of those that cost no more than it (at least four)",
    )
    gap_margin: NonNegative | None = Field(
        0.05,
        description="warn of settings that over-fit: by more than this the pruned model's gap between training and validation "
        "examples exceeds the dense one's; null: don't",
    )
    storage: str | None = Field(
        None,
        min_length=1,
        repr=False,
        description="URL of a database that holds the study; default: a journal in the output folder. A password in it isn't kept: "
        "PRUNUS_STORAGE_PASSWORD is one for a URL that has a user and none",
    )
    confirm: Confirm = Field(default_factory=Confirm)

    @field_serializer("storage")
    def _without_its_password(self, storage: str | None) -> str | None:
        return None if storage is None else without_password(storage)

    @field_validator("objectives")
    @classmethod
    def _objectives_differ(cls, objectives: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(objectives)) != len(objectives):
            raise ValueError(f"every objective may be given once: got {list(objectives)}")
        return objectives

    @field_validator("space", mode="before")
    @classmethod
    def _there_is_a_space(cls, space: Any) -> Any:
        if not isinstance(space, Mapping):
            raise ValueError(f"expected keys of the recipe and what each may be, like {_EXAMPLE}: got {space!r}")
        if not space:
            raise ValueError(f"give at least one key to search over, like {_EXAMPLE}")
        for key, values in space.items():
            _check_varied(key, values)
        return space
