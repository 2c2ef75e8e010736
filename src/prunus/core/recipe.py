"""What may a recipe say?

One typed tree describes a run. A key that isn't here is refused, a number must be finite, and the one amount is
``keep_fraction`` in (0, 1]: there is no sparsity to mix it up with. Reading YAML lives in ``core.yaml_file``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from prunus.core.contradictions import check_n_of_m, check_rewind_and_during
from prunus.core.goals import Contract, Target
from prunus.core.section import Count, Fraction, NonNegative, Positive, Section, Share
from prunus.core.units import UNITS, check_unit, is_mask

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
    "Lora",
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

ModelUnit = Annotated[
    str,
    AfterValidator(check_unit),
    WithJsonSchema(
        {"anyOf": [{"enum": list(UNITS)}, {"type": "string", "pattern": r"^[1-9]\d*[:x][1-9]\d*$"}], "type": "string"}
    ),
]
"""A name in ``UNITS``, ``N:M`` or ``RxC``."""


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

    @property
    def is_bundled(self) -> bool:
        """Whether the source comes with scikit-learn, whatever lies in the current folder."""
        return self.source.startswith("sklearn:")

    @property
    def is_function(self) -> bool:
        """Whether the source, if no file has this name, is the user's ``module:function``."""
        ending = self.source.lower().endswith((".csv", ".parquet", ".npz"))
        return ":" in self.source and "/" not in self.source and not ending and not self.is_bundled


class Model(Section):
    """Which network, and with which weights it starts."""

    builder: str = Field("cnn", description="mlp, cnn, resnet, or module:function that returns an nn.Module")
    args: dict[str, Any] = Field(default_factory=dict, description="keyword arguments for the builder")
    weights: str | None = Field(None, description="a .safetensors file, or a .pt that holds a plain state dict")

    @property
    def is_function(self) -> bool:
        """Whether the builder is the user's ``module:function``, and none that comes with prunus."""
        return ":" in self.builder


class Average(Section):
    """Weight averaging, which lowers the variance of the result."""

    kind: Literal["none", "swa", "ema"] = "none"
    last: Count = Field(5, description="swa: how many of the last epochs are averaged")
    decay: Share = Field(0.99, description="ema: how much of the average stays at each step")


class Train(Section):
    """How parameters are trained from where they stand."""

    epochs: int = Field(30, ge=0)
    batch_size: Count = 64
    accumulate: Count = Field(
        1, description="batches per optimizer step: as one of that many times the size, in the memory of one"
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of the forward and backward pass; float16 on CUDA only"
    )
    loss: str | None = Field(
        None,
        description="module:function (outputs, batch) -> one number; null: cross-entropy or squared error (recovery: train.loss). "
        "Criteria that read gradients read train.loss",
    )
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
    class_floor: Share = Field(
        0.5, description="every class keeps at least this share of its fair part, and one example; 0: it may vanish"
    )

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
        description="widths are kept to multiples of this where they can be; auto: 8 for convolutions aimed at a latency, else 1",
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
        check_n_of_m(self)
        return self

    @property
    def amount(self) -> float | None:
        """The keep fraction that holds: None means that the cutoff decides."""
        return None if self.cutoff is not None else (0.5 if self.keep_fraction is None else self.keep_fraction)


class Distil(Section):
    """Learn from the dense model's outputs, too, and from its features."""

    temperature: Positive = 3.0
    weight: Fraction = Field(0.5, description="share of the loss that comes from the teacher")
    features: NonNegative = Field(
        0.0, description="weight of the distance between both models' intermediate features, on top; 0: outputs only"
    )
    modules: tuple[str, ...] = Field(
        (),
        description="name patterns (fnmatch) of the modules whose outputs are compared; none: blocks, or else layers",
    )


class Lora(Section):
    """Train low-rank adapters beside the layers, and merge them into the weights; needs the extra ``lora``."""

    rank: Count = 8
    alpha: Positive = Field(16.0, description="the adapters count alpha / rank times")
    modules: tuple[str, ...] = Field(
        (), description="name patterns (fnmatch) of the layers; none: all linear and convolution layers"
    )


class Recovery(Train):
    """How the pruned model gets its quality back."""

    method: Literal["none", "fine_tune", "distil", "lora"] = "fine_tune"
    adjust: tuple[Literal["batch_norm", "bias", "least_squares"], ...] = Field(
        (),
        description="after each cut, before the training, on the calibration set: least_squares fits the weights that "
        "are left to the outputs before the cut, layer by layer; bias only their means; batch_norm moves running "
        "statistics by what the cut did to them; what makes held-out examples worse is taken back",
    )
    distil: Distil = Field(default_factory=Distil)
    lora: Lora = Field(default_factory=Lora)


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

    @model_validator(mode="after")
    def _smoothing_needs_the_default_loss(self) -> Recipe:
        for key, section in (("train", self.train), ("recovery", self.recovery)):
            if section.label_smoothing and (section.loss or self.train.loss):
                raise ValueError(
                    f"{key}.label_smoothing belongs to the default loss: got it together with the loss "
                    f"{section.loss or self.train.loss}; take one of the two away"
                )
        return self

    @model_validator(mode="after")
    def _schedule_has_its_training(self) -> Recipe:
        check_rewind_and_during(self)
        return self

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
        if (
            len(strategy.granularity) > 1
            or strategy.granularity[0] in ("block", "expert")
            or is_mask(strategy.granularity[0])
        ):
            why = "zeros save no time, and no MACs" if is_mask(strategy.granularity[-1]) else "costs follow from widths"
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
