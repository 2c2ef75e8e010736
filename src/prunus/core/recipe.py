"""What may a recipe say?

One typed tree describes a run. A key that isn't here is refused, a number must be finite, and the one amount is
``keep_fraction`` in (0, 1]: there is no sparsity to mix it up with. Reading YAML lives in ``core.yaml_file``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from prunus.core.goals import Contract, Target
from prunus.core.section import Count, Fraction, NonNegative, Positive, Section, Share

__all__ = [
    "Average",
    "Contract",
    "Data",
    "Distil",
    "Evaluation",
    "Examples",
    "Features",
    "Latency",
    "LayerRule",
    "Model",
    "ModelUnit",
    "Recipe",
    "Recovery",
    "Relabel",
    "Remove",
    "Runtime",
    "Schedule",
    "Split",
    "Strategy",
    "Target",
    "Train",
]

ModelUnit = Literal["weight", "channel", "head", "head_dim", "mlp", "width", "hidden", "expert", "block"]


class Split(Section):
    """How the examples are shared out. What is left of 1 after validation, calibration and test is for training."""

    validation: Fraction = Field(0.15, description="for decisions: feature importance, the choice among candidates")
    calibration: Fraction = Field(0.1, description="for evidence: gradients and activations, without training on them")
    test: Fraction = Field(0.2, description="for the final numbers only; no decision sees it")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> Split:
        held_out = self.validation + self.calibration + self.test
        if held_out >= 1:
            raise ValueError(
                f"validation + calibration + test must leave some for training: got {held_out:g}, must be < 1"
            )
        return self


class Data(Section):
    """Where the examples come from."""

    source: str = Field(
        description="a .npz, .csv or .parquet file, a folder of class folders of images, sklearn:NAME, or module:function"
    )
    target: str | None = Field(
        None, description="the label's column (CSV, Parquet) or array (npz); default: label, target or y"
    )
    task: Literal["auto", "classification", "regression"] = "auto"
    args: dict[str, Any] = Field(default_factory=dict, description="keyword arguments for module:function")
    standardize: bool = Field(True, description="subtract the training mean and divide by the training deviation")
    standardize_target: bool = Field(
        True,
        description="regression: train on targets of mean 0 and deviation 1; results are in the target's own units all the same",
    )
    split: Split = Field(default_factory=Split)
    label_noise: Share = Field(
        0.0, description="flip this share of the training labels: a test of the cleaning, not a use"
    )


class Model(Section):
    """Which network, and with which weights it starts."""

    builder: str = Field("cnn", description="mlp, cnn, resnet, or module:function that returns an nn.Module")
    args: dict[str, Any] = Field(default_factory=dict, description="keyword arguments for the builder")
    weights: str | None = Field(None, description="a .safetensors file, or a .pt that holds a plain state dict")


class Average(Section):
    """Weight averaging, which lowers the variance of the result."""

    kind: Literal["none", "swa", "ema"] = "none"
    last: Count = Field(5, description="swa: how many of the last epochs are averaged")
    decay: Share = Field(0.99, description="ema: how much of the average stays at each step")


class Train(Section):
    """How parameters are trained from where they stand."""

    epochs: int = Field(30, ge=0)
    batch_size: Count = 64
    learning_rate: Positive = 2e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: NonNegative = 1e-4
    momentum: Share = Field(0.9, description="sgd only")
    decay: Literal["cosine", "constant"] = Field(
        "cosine", description="how the learning rate falls, after a short warm-up"
    )
    clip_norm: Positive | None = Field(1.0, description="largest gradient norm; null: no clipping")
    label_smoothing: Share = 0.0
    average: Average = Field(default_factory=Average)


class Remove(Section):
    """Remove training examples that hardly affect the predictions, or that mislead them."""

    criterion: str = Field(
        "el2n", description="el2n keeps the hard ones, aum drops suspected wrong labels, random is the baseline"
    )
    keep_fraction: Fraction | None = None
    cutoff: float | None = Field(
        None, allow_inf_nan=False, description="instead of keep_fraction: remove what scores below"
    )
    class_floor: Share = Field(0.5, description="every class keeps at least this share of its fair part")

    @model_validator(mode="after")
    def _one_amount(self) -> Remove:
        if (self.keep_fraction is None) == (self.cutoff is None):
            raise ValueError("give exactly one of keep_fraction and cutoff")
        return self


class Relabel(Section):
    """Replace a label that the model and the neighbours contradict with high confidence."""

    confidence: Fraction = Field(0.9, description="least mean probability that the model gives to the new label")
    neighbours: Count = Field(10, description="how many nearest neighbours vote")
    agreement: Fraction = Field(0.7, description="least share of the neighbours that have the new label")


class Examples(Section):
    """What to do with the training examples: relabel first, then remove, in the order given."""

    epochs: Count = Field(10, description="length of the short training that records the evidence")
    folds: Count = Field(
        1, description="1: watch the training; more: also score every example by models that didn't train on it"
    )
    relabel: Relabel | None = None
    remove: tuple[Remove, ...] = ()


class Features(Section):
    """Replace input features whose importance is within noise of zero by their training mean, and cut them out."""

    repeats: Annotated[int, Field(ge=3)] = Field(10, description="permutations per feature")
    confidence: Fraction = Field(0.95, description="of the upper bound that must not exceed the tolerance")
    tolerance: NonNegative = Field(
        0.01,
        description="loss of accuracy (or of R²) that counts as zero; n validation examples can show no less than about 1.6 / n",
    )
    min_features: Count = 1


class Schedule(Section):
    """In how many rounds the cut is made; recovery follows each round."""

    kind: Literal["one_shot", "linear", "cubic"] = "one_shot"
    rounds: Count = Field(1, description="one_shot has 1")

    @model_validator(mode="after")
    def _one_shot_has_one_round(self) -> Schedule:
        if self.kind == "one_shot" and self.rounds != 1:
            raise ValueError(f"a one_shot schedule has one round: got rounds {self.rounds}; use linear or cubic")
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
        description="weight: zeros; all others really shrink the model. channel: all widths, or only some: head, head_dim, mlp, "
        "width (residual stream), hidden (recurrent state); whole modules: expert, block. A list: one after the other",
    )
    keep_fraction: Fraction | None = Field(
        None, description="share of the units that stay (default 0.5 if no cutoff is given)"
    )
    cutoff: float | None = Field(
        None, allow_inf_nan=False, description="instead of keep_fraction: remove what scores below"
    )
    allocation: Literal["uniform", "global", "cost"] = Field(
        "uniform",
        description="uniform: the same share in every layer; global: one ranking; cost: what a target implies",
    )
    normalize: Literal["none", "mean", "max"] = Field(
        "mean", description="how saliencies of layers are made comparable"
    )
    reduce: Literal["sum", "mean", "max"] = Field(
        "sum", description="how the members of a group add up to one saliency"
    )
    schedule: Schedule = Field(default_factory=Schedule)
    min_units: Count = Field(1, description="every layer keeps at least this many units")
    round_to: Count | Literal["auto"] = Field(
        "auto",
        description="widths are kept to multiples of this where they can be; auto: 8 for convolutions aimed at a latency, else 1",
    )
    exclude: tuple[str, ...] = Field(
        (), description="name patterns (fnmatch) of parameters or layers that stay as they are"
    )
    layers: tuple[LayerRule, ...] = Field((), description="other amounts and widths for some layers")
    l1_strength: NonNegative = Field(1e-3, description="l1 criteria: weight of the penalty")
    l1_epochs: Count = Field(10, description="l1 criteria: epochs of sparsity-inducing training before the first cut")

    @model_validator(mode="after")
    def _one_amount(self) -> Strategy:
        if self.keep_fraction is not None and self.cutoff is not None:
            raise ValueError("give one of keep_fraction and cutoff, not both")
        return self

    @model_validator(mode="after")
    def _weights_come_last(self) -> Strategy:
        if not self.granularity or "weight" in self.granularity[:-1]:
            raise ValueError(
                f"granularity must name a unit, and weight last: got {list(self.granularity)}; nothing can be cut out after it"
            )
        if self.cutoff is not None and any(rule.keep_fraction is not None for rule in self.layers):
            raise ValueError(
                "layers: a keep_fraction of their own doesn't go with a cutoff; give keep_fraction instead"
            )
        return self

    @property
    def amount(self) -> float | None:
        """The keep fraction that holds: None means that the cutoff decides."""
        return None if self.cutoff is not None else (0.5 if self.keep_fraction is None else self.keep_fraction)


class Distil(Section):
    """Learn from the dense model's outputs, too."""

    temperature: Positive = 3.0
    weight: Fraction = Field(0.5, description="share of the loss that comes from the teacher")


class Recovery(Train):
    """How the pruned model gets its quality back."""

    method: Literal["none", "fine_tune", "distil"] = "fine_tune"
    distil: Distil = Field(default_factory=Distil)


class Latency(Section):
    """How time is measured: dense and pruned take turns in one run."""

    batch_size: Count = 64
    repeats: Annotated[int, Field(ge=5)] = 30
    warm_up: Count = 5
    runtime: Literal["best", "torch", "onnxruntime"] = Field(
        "best",
        description="both models run in it; best: the one in which the dense model is fastest, of those installed",
    )
    clock: Literal["auto", "wall", "processor"] = Field(
        "auto",
        description="auto: with one thread the thread's own time, so that a busy machine doesn't count; else wall time",
    )


class Evaluation(Section):
    """What is measured on train and test."""

    metrics: tuple[str, ...] = Field((), description="default: all that fit the task; the first one leads the report")
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    bootstrap: Annotated[int, Field(ge=100)] = Field(1000, description="resamples behind the intervals")
    latency: Latency = Field(default_factory=Latency)


class Runtime(Section):
    """On what it runs."""

    device: str = Field("cpu", description="cpu, cuda, or auto")
    threads: Count | None = Field(1, description="1 makes runs reproducible bit for bit; null: all cores")


class Recipe(Section):
    """One run of prunus, from data to bundle."""

    name: str = Field("prunus", pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    data: Data
    model: Model = Field(default_factory=Model)
    train: Train = Field(default_factory=Train, description="how the dense model is trained when it has no weights")
    examples: Examples | None = Field(None, description="operations on the training examples")
    features: Features | None = Field(None, description="operations on the input features")
    strategy: Strategy | None = Field(None, description="what to prune in the model; null: only the data")
    target: Target | None = Field(None, description="what the model may cost, instead of strategy.keep_fraction")
    contract: Contract | None = Field(None, description="what the model must keep; alone it means target: smallest")
    recovery: Recovery = Field(default_factory=Recovery)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0, 1, 2), min_length=1, description="one dense/pruned pair each"
    )
    output: str = "runs/prunus"
    runtime: Runtime = Field(default_factory=Runtime)

    @model_validator(mode="before")
    @classmethod
    def _a_contract_has_a_target(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and tree.get("contract") is not None and tree.get("target") is None:
            return {**tree, "target": "smallest"}
        return tree

    @model_validator(mode="after")
    def _a_target_decides_how_much_goes(self) -> Recipe:
        if self.target is None:
            if self.strategy is not None and self.strategy.allocation == "cost":
                raise ValueError("strategy.allocation cost needs a target: give one, like target: {macs: 0.5}")
            return self
        if self.target.share is None and self.contract is None:
            raise ValueError("target: smallest is as small as the contract allows: give a contract, or a share")
        strategy = self.strategy
        if strategy is None:
            raise ValueError("a target or contract needs a strategy, which says what may go: got none; give one")
        for name in ("keep_fraction", "cutoff"):
            if getattr(strategy, name) is not None or any(
                getattr(rule, name, None) is not None for rule in strategy.layers
            ):
                raise ValueError(f"target and strategy.{name} both say how much goes: give one of them")
        if len(strategy.granularity) > 1 or strategy.granularity[0] in ("weight", "block", "expert"):
            why = "zeros save no time, and no MACs" if "weight" in strategy.granularity else "costs follow from widths"
            raise ValueError(
                f"target {self.target.kind} needs one granularity of widths, channel for all of them: "
                f"got {list(strategy.granularity)}; {why}"
            )
        return self

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"every seed may be given once: got {list(seeds)}")
        return seeds
