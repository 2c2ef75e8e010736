"""What may a recipe say of the cut: by which criterion, how much, where, and in how many rounds?"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from prunus.core.recipes.section import Count, Fraction, NonNegative, Positive, Section, Share
from prunus.core.units import UNITS, as_mask, check_unit, is_mask

__all__ = ["LayerRule", "ModelUnit", "Schedule", "Strategy"]

ModelUnit = Annotated[
    str,
    AfterValidator(check_unit),
    WithJsonSchema(
        {"anyOf": [{"enum": list(UNITS)}, {"type": "string", "pattern": r"^[1-9]\d*[:x][1-9]\d*$"}], "type": "string"}
    ),
]
"""A name in ``UNITS``, ``N:M`` or ``RxC``."""


class Schedule(Section):
    """In how many rounds the cut is made; recovery follows each round."""

    kind: Literal["one_shot", "linear", "cubic", "geometric"] = Field(
        "one_shot", description="linear: as many units in every round; cubic: most at first; geometric: the same share"
    )
    rounds: Count = Field(1, description="one_shot has 1")
    rewind_to: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="after each round what is left goes back to its values at this epoch of the dense training (0: the start), "
        "and recovery trains it from there: the lottery ticket",
    )
    during: Literal["recovery", "train"] = Field(
        "recovery",
        description="train: an untrained model is pruned while the section train trains it, the rounds spread over its epochs",
    )

    @model_validator(mode="after")
    def _one_shot_has_one_round(self) -> Schedule:
        if self.kind == "one_shot" and self.rounds != 1:
            raise ValueError(f"a one_shot schedule has one round: got rounds {self.rounds}; use linear or cubic")
        if self.rewind_to is not None and self.during == "train":
            raise ValueError(
                "rewind_to goes back to a finished training, which during: train has not: drop one of them"
            )
        return self


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class LayerRule(Section):
    """What holds for some layers only; the first rule that fits a layer counts."""

    match: str = Field(description="name pattern (fnmatch) of a parameter, a layer or a group of `prunus graph`")
    keep_fraction: Fraction | None = None
    min_units: Count | None = None
    round_to: Count | None = None


class Strategy(Section):
    """What is pruned, by which criterion, how much, and how fast."""

    criterion: str = Field("magnitude_l2", description="see `prunus criteria`")
    granularity: Annotated[
        tuple[ModelUnit, ...],
        BeforeValidator(_one_or_more, json_schema_input_type=ModelUnit | tuple[ModelUnit, ...]),
    ] = Field(
        ("channel",),
        description="zeros: weight, N:M (2:4 keeps 2 of every 4 along the input), RxC (4x1: blocks of 4 rows and 1 column). All "
        "others really shrink the model. channel: all widths, or only some: head, head_dim, mlp, width (residual stream), hidden "
        "(recurrent state); whole modules: expert, block. A list: one after the other, zeros last",
    )
    keep_fraction: Fraction | None = Field(
        None, description="share of the units that stay (default 0.5 if no cutoff is given)"
    )
    cutoff: float | None = Field(
        None, allow_inf_nan=False, description="instead of keep_fraction: remove what scores below"
    )
    allocation: Literal["uniform", "global", "erk", "lamp", "owl", "sensitivity", "cost"] = Field(
        "uniform",
        description="uniform: the same share in every layer; global: one ranking; erk: by the layers' shapes; lamp: one ranking of "
        "LAMP scores; owl: more where outliers are; sensitivity: by the loss that was measured with each layer pruned alone; "
        "cost: what a target implies",
    )
    compare_allocations: bool = Field(
        True,
        description="say how far uniform, global and cost-aware cuts at the same cost would take the outputs from the dense "
        "model's, on calibration examples that are held out: a few forward passes",
    )
    owl_multiple: Positive = Field(5.0, description="owl: an outlier scores above this many times its layer's mean")
    owl_spread: Share = Field(0.08, description="owl: keep fractions of layers differ from their mean by at most this")
    sensitivity_steps: Annotated[tuple[Fraction, ...], Field(min_length=1)] = Field(
        (0.9, 0.75, 0.5, 0.25, 0.1), description="sensitivity: keep fractions at which each layer's loss is measured"
    )
    normalize: Literal["none", "mean", "max"] = Field(
        "mean", description="how saliencies of layers are made comparable"
    )
    reduce: Literal["sum", "mean", "max", "first"] = Field(
        "sum", description="how the members of a group add up to one saliency; first: only the layer that makes it"
    )
    schedule: Schedule = Field(default_factory=Schedule)
    min_units: Count = Field(1, description="every layer keeps at least this many units")
    round_to: Count | Literal["auto"] = Field(
        "auto",
        description="widths are kept to multiples of this where they can be; auto: those of convolutions to 16 where there is "
        "room, or to what the runtime's kernels want where a latency is the target",
    )
    expressible: bool = Field(
        False,
        description="cut only what the config of the model's class can say, by the same share in all layers that one number stands "
        "for, so that from_pretrained brings the smaller model back (models of transformers); true by default where export says hf",
    )
    exclude: tuple[str, ...] = Field(
        (), description="name patterns (fnmatch) of parameters or layers that stay as they are"
    )
    layers: tuple[LayerRule, ...] = Field((), description="other amounts and widths for some layers")
    l1_strength: NonNegative = Field(1e-3, description="l1, l0, bn_scale: weight of the penalty")
    l1_epochs: Count = Field(
        10,
        description="l1, l0, bn_scale: epochs of the sparsity-inducing training; movement: of the one that it is read from",
    )

    @model_validator(mode="after")
    def _one_amount(self) -> Strategy:
        if self.keep_fraction is not None and self.cutoff is not None:
            raise ValueError("give one of keep_fraction and cutoff, not both")
        return self

    @model_validator(mode="after")
    def _weights_come_last(self) -> Strategy:
        if not self.granularity or any(is_mask(unit) for unit in self.granularity[:-1]):
            raise ValueError(
                f"granularity must name a unit, and weight last (or N:M, or blocks; one of them): got {list(self.granularity)}; "
                "nothing can be cut out after it"
            )
        if len(set(self.granularity)) != len(self.granularity):
            raise ValueError(f"granularity: every unit may be given once: got {list(self.granularity)}")
        if self.cutoff is not None and any(rule.keep_fraction is not None for rule in self.layers):
            raise ValueError(
                "layers: a keep_fraction of their own doesn't go with a cutoff; give keep_fraction instead"
            )
        return self

    @model_validator(mode="after")
    def _n_of_m_is_an_amount(self) -> Strategy:
        _check_n_of_m(self)
        return self

    @property
    def amount(self) -> float | None:
        """The keep fraction that holds: None means that the cutoff decides."""
        return None if self.cutoff is not None else (0.5 if self.keep_fraction is None else self.keep_fraction)


def _check_n_of_m(strategy: Strategy) -> None:
    """Refuse an amount, a ranking or rounds beside N:M, which is an amount by itself; they may mean other units of the list."""
    mask = as_mask(strategy.granularity[0])
    if len(strategy.granularity) > 1 or mask is None or mask.kind != "n_m":
        return
    given = {
        "keep_fraction": strategy.keep_fraction is not None,
        "cutoff": strategy.cutoff is not None,
        f"allocation {strategy.allocation}": strategy.allocation != "uniform",
        f"schedule {strategy.schedule.kind}": strategy.schedule.kind != "one_shot",
        "layers.keep_fraction": any(rule.keep_fraction is not None for rule in strategy.layers),
        "min_units or layers.min_units": strategy.min_units != 1 or any(rule.min_units for rule in strategy.layers),
        "round_to or layers.round_to": strategy.round_to not in (1, "auto")
        or any(rule.round_to for rule in strategy.layers),
    }
    for what, is_given in given.items():
        if is_given:
            raise ValueError(
                f"granularity {strategy.granularity[0]} keeps {mask.first} of every {mask.second} weights everywhere, in one "
                f"round: it contradicts {what}; leave that out"
            )
