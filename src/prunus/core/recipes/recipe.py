"""What may a recipe say?

One typed tree describes a run. A key that isn't here is refused, a number must be finite, and the one amount is
``keep_fraction`` in (0, 1]: there is no sparsity to mix it up with. Reading YAML lives in ``core.recipes.recipe_file``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from prunus.core.files.urls.url_text import is_url_text, scrubbed
from prunus.core.recipes.card_section import Card
from prunus.core.recipes.data_sections import Data, Split, kind_of_source
from prunus.core.recipes.execution.dispatch_section import Dispatch
from prunus.core.recipes.joint_section import Joint, check_joint_amounts
from prunus.core.recipes.recipe_checks import check_amounts, check_gap_margin, check_rewind_and_during
from prunus.core.recipes.scorer_section import AnyScorer, Scorer
from prunus.core.recipes.search_section import Search
from prunus.core.recipes.section import Count, Fraction, NonNegative, Section, Share
from prunus.core.recipes.shipping.export_section import Export, cut_for_config
from prunus.core.recipes.shipping.quantize_section import Quantize
from prunus.core.recipes.sizes.sizes_section import Sizes, check_sizes
from prunus.core.recipes.strategy import LayerRule, ModelUnit, Schedule, Strategy
from prunus.core.recipes.target_contract import Contract, Target
from prunus.core.recipes.train_sections import Average, Distil, Lora, Recovery, Train

__all__ = [
    "Average",
    "Card",
    "Clean",
    "Contract",
    "Cover",
    "Data",
    "Distil",
    "Evaluation",
    "Examples",
    "Export",
    "Features",
    "Joint",
    "Latency",
    "LayerRule",
    "Lora",
    "Model",
    "ModelUnit",
    "Quantize",
    "Recipe",
    "Recovery",
    "Relabel",
    "Remove",
    "Runtime",
    "Schedule",
    "Scorer",
    "Search",
    "Sizes",
    "Split",
    "Strategy",
    "Target",
    "Train",
    "kind_of_source",
]


class Model(Section):
    """Which network, and with which weights it starts."""

    builder: str = Field("cnn", description="mlp, cnn, resnet, or module:function that returns an nn.Module")
    args: dict[str, Any] = Field(default_factory=dict, description="keyword arguments for the builder")
    weights: str | None = Field(None, description="a .safetensors file, or a .pt that holds a plain state dict")

    @property
    def is_function(self) -> bool:
        """Whether the builder is the user's ``module:function``, and none that comes with prunus."""
        return ":" in self.builder


class Remove(Section):
    """Remove training examples that hardly affect the predictions, or that mislead them."""

    criterion: str = Field(
        "random",
        description="random is the baseline; aum drops suspected wrong labels; el2n keeps the hard ones, and loses to random where "
        "little stays; loss is there for every task; prunus criteria lists them",
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


class Duplicates(Section):
    """Of training examples that are nearly alike and have one label, keep the most typical."""

    cosine: Fraction = Field(
        0.99,
        description="least cosine of two examples, as deviations from the mean example, that makes them duplicates",
    )
    space: Literal["inputs", "tokens", "embedding"] = Field(
        "inputs",
        description="what is compared: the inputs as they are, the token ids that they hold, or what the last layer of the short "
        "training reads",
    )
    jaccard: Fraction = Field(
        0.8, description="tokens: least share of pieces (some tokens in a row) in common that makes two duplicates"
    )
    width: Count | None = Field(
        None, description="tokens: how many in a row make a piece; default: as few as tell unrelated examples apart"
    )


class Clean(Section):
    """Find wrong labels by models that didn't learn from them, and estimate how many there are: drop or relabel their examples."""

    wrong: Literal["flag", "drop", "relabel", "both"] | None = Field(
        None,
        description="what becomes of wrong labels; both relabels where the new one is sure and drops the rest; flag only tells "
        "them; default: both for classes, flag for several labels, tokens and values",
    )
    drop_probability: Fraction = Field(
        0.7, description="least probability that the given label is wrong, for its example to go"
    )
    relabel_probability: Fraction = Field(0.9, description="least probability of the label that takes its place")
    class_floor: Share = Field(
        0.1,
        description="of the examples that carry a label so many have it afterwards, and one at least; 0: a class may vanish",
    )
    evidence: Literal["folds", "recorded"] = Field(
        "folds",
        description="folds: models that never saw the example, three or examples.folds; recorded: the course of one training that "
        "learnt from it, with less certainty",
    )
    rounds: Literal[1, 2] = Field(
        2,
        description="2: the folds' models of a second round don't learn from labels that those of the first call wrong (where that "
        "is 1 % or more); more labels are found, and told better; classes only",
    )


class Cover(Section):
    """Keep a share of the training examples that stands for all of them, class by class, once what is wrong or double is gone."""

    keep_fraction: Fraction = Field(
        description="share of all training examples that stays; what was dropped before counts as gone already"
    )
    criterion: str = Field(
        "random",
        description="by what order each class keeps its share: random; or facility_location, k_centre, herding, cluster_coverage, "
        "coverage_centric (prunus criteria lists them)",
    )
    min_per_class: Count = Field(1, description="so many examples of each class stay at least, or all that it has")
    clean_first: bool = Field(
        True,
        description="drop wrong labels and near-duplicates before, where clean, relabel and duplicates don't say how: of classes, "
        "and of inputs that can be compared",
    )


class Examples(Section):
    """What to do with the training examples: clean or relabel, drop duplicates, remove in the order given, then cover."""

    epochs: Count = Field(10, description="length of the short training that records the evidence")
    folds: Count = Field(
        1, description="1: watch the training; more: also score every example by models that didn't train on it"
    )
    scorer: AnyScorer = Field(
        default_factory=Scorer,
        description="pruned: scores come from a smaller model, and the record says how far they are the dense one's",
    )
    estimate: bool = Field(
        True,
        description="say how many of the labels that are called wrong (relabel, aum) are wrong, by models that didn't learn from "
        "them: three short trainings more, unless folds and relabel have them anyway (first seed only)",
    )
    plan: str | None = Field(
        None,
        min_length=1,
        description="a table of examples (.parquet), as prunus clean wrote it or as it was changed since: it decides instead of "
        "clean, relabel, duplicates and remove; cover then chooses among what it leaves",
    )
    recording: str | None = Field(
        None,
        min_length=1,
        description="a folder in which a training on these data was recorded (prunus.Recording, prunus score): what it says of the "
        "examples is taken, instead of a short training",
    )
    target: Literal["validation", "calibration"] = Field(
        "validation",
        description="criterion influence: the examples that others help or harm (data.validation and data.calibration may name "
        "files of your own); validation can't prove anything else then: take calibration beside a gate, a contract or joint",
    )
    allow_empty_classes: bool = Field(False, description="a plan may leave a class without training examples")
    clean: Clean | None = None
    relabel: Relabel | None = None
    duplicates: Duplicates | None = None
    remove: tuple[Remove, ...] = ()
    cover: Cover | None = None
    gate: bool = Field(
        False,
        description="judge what stays on the validation examples, seed by seed, against as many by chance and against all of them "
        "for as many steps: three trainings per seed (prunus select does it anyway)",
    )

    @model_validator(mode="after")
    def _labels_are_repaired_once(self) -> Examples:
        if self.clean is not None and self.relabel is not None:
            raise ValueError("clean and relabel both say which labels are wrong: give one of them")
        return self


class Features(Section):
    """Replace input features whose importance is within noise of zero by their training mean, and cut them out."""

    repeats: Annotated[int, Field(ge=3)] = Field(10, description="permutations per feature")
    confidence: Fraction = Field(0.95, description="of the upper bound that must not exceed the tolerance")
    tolerance: NonNegative = Field(
        0.01,
        description="loss of accuracy (or of R²) that counts as zero; n validation examples can show no less than about 1.6 / n",
    )
    min_features: Count = 1


class Latency(Section):
    """How time is measured: dense and pruned take turns in one run."""

    batch_size: Count = 64
    repeats: Annotated[int, Field(ge=5)] = 30
    warm_up: Count = 5
    runtime: Literal["best", "best_of_all", "torch", "torch_compiled", "onnxruntime", "openvino", "mnn", "litert"] = (
        Field(
            "best",
            description="both models run in it; best: the one in which the dense model is fastest, of those installed (torch, ONNX "
            "Runtime, OpenVINO, MNN); best_of_all tries torch_compiled and litert, too, which take up to a minute for each model",
        )
    )
    clock: Literal["auto", "wall", "processor"] = Field(
        "auto",
        description="auto: with one thread the process's own time, so that a busy machine doesn't count; else wall time",
    )


class Evaluation(Section):
    """What is measured on train and test."""

    metrics: tuple[str, ...] = Field(
        (),
        description="default: the usual ones of the task; the first one leads the report; or functions of your own "
        "(module:function of outputs and targets, with an attribute higher_is_better), which need a function as data.source",
    )
    control: Literal["none", "same_budget"] = Field(
        "none",
        description="same_budget: the dense model that is compared with is trained on for as many epochs as the pruned one was "
        "after the cuts; none: it isn't, and the result says so",
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    bootstrap: Annotated[int, Field(ge=100)] = Field(1000, description="resamples behind the intervals")
    latency: Latency = Field(default_factory=Latency)


class Runtime(Section):
    """On what it runs."""

    device: str = Field("cpu", description="cpu, cuda, or auto")
    threads: Count | None = Field(1, description="1 makes runs reproducible bit for bit; null: all cores")
    sharding: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="under torchrun: ddp gives every rank the whole model and a part of each batch; fsdp leaves each rank a part "
        "of the parameters, gradients and optimizer state, too",
    )


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
    joint: Joint | None = Field(
        None, description="how well shares of the data and of the model do together: a grid, on the validation examples"
    )
    recovery: Recovery = Field(default_factory=Recovery)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    card: Card | None = Field(None, description="what you say of the model, for its card and its bill of materials")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0, 1, 2), min_length=1, description="one dense/pruned pair each"
    )
    output: str = "runs/prunus"
    export: Export | None = Field(None, description="also leave the model for other runtimes, beside its bundle")
    quantize: Quantize | None = Field(None, description="also leave an exported file in 8-bit whole numbers")
    keep_dense: bool = Field(
        True,
        description="leave a bundle of the dense model beside the pruned one: to time, quantise and serve against",
    )
    runtime: Runtime = Field(default_factory=Runtime)
    tracking: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = Field(
        (),
        description="where else the run is told, below the output folder or where their own variables say; log.jsonl always is",
    )
    search: Search | None = Field(None, description="which settings prunus search tries; prunus run does without it")
    dispatch: Dispatch | None = Field(
        None,
        exclude=True,  # where a thing was done is no part of what was asked: it enters no comparison, and doesn't travel
        description="which workers do what falls into parts: seeds of a run, trials of a search; it changes no result",
    )

    sizes: Sizes | None = Field(
        None, description="which sizes prunus sizes makes of one plan; prunus run does without it"
    )

    @model_validator(mode="after")
    def _sizes_have_their_cuts(self) -> Recipe:
        if self.sizes is not None and self.target is not None:
            raise ValueError("sizes and target (or contract) both say how much stays: give one of them")
        check_sizes(self.sizes, self.strategy)
        return self

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
        check_rewind_and_during(
            None if self.strategy is None else self.strategy.schedule,
            self.train,
            self.recovery,
            has_weights=self.model.weights is not None,
        )
        return self

    @model_validator(mode="before")
    @classmethod
    def _scaling_belongs_to_the_model(cls, tree: Any) -> Any:
        """Standardise only what is trained here: given weights have the scaling that they were trained on."""
        if not isinstance(tree, dict) or not isinstance(tree.get("data"), dict):
            return tree
        data, model = tree["data"], tree.get("model")
        if data.get("standardize") is not None:
            return tree
        weights = model.get("weights") if isinstance(model, dict) else getattr(model, "weights", None)
        given = any(data.get(key) is not None for key in ("scale", "mean", "std"))
        return {**tree, "data": {**data, "standardize": weights is None and not given}}

    @model_validator(mode="before")
    @classmethod
    def _what_transformers_loads_its_config_says(cls, tree: Any) -> Any:
        return cut_for_config(tree)

    @model_validator(mode="before")
    @classmethod
    def _a_contract_has_a_target(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and tree.get("contract") is not None and tree.get("target") is None:
            return {**tree, "target": "smallest"}
        return tree

    @model_validator(mode="after")
    def _a_target_decides_how_much_goes(self) -> Recipe:
        check_amounts(self.strategy, self.target, self.contract)
        check_gap_margin(self.recovery, self.strategy, self.contract, features=self.features is not None)
        check_joint_amounts(self.joint, self.strategy, self.target, features=self.features is not None)
        return self

    @field_validator("output")
    @classmethod
    def _output_is_a_folder(cls, output: str) -> str:
        if is_url_text(output):
            raise ValueError(
                f"it is locked and written bit by bit, which a URL can't be: got {scrubbed(output)}; give a folder, and "
                "prunus run --copy-to URL to have the finished run copied there"
            )
        return output

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"every seed may be given once: got {list(seeds)}")
        return seeds
