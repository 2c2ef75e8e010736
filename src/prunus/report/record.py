"""What does a run say about itself, in numbers?

The record is the one source of the terminal summary and the HTML page. Everything but ``timing`` is the same for the same seed on
one thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from prunus.core.text import shown
from prunus.report.record_examples import (
    ClassCount,
    LabelFacts,
    LikePair,
    MapFacts,
    NoiseFacts,
    PrecisionFacts,
    ScorerFacts,
    Suspect,
)
from prunus.report.record_gate import GateFacts, JointFacts
from prunus.report.record_parts import GapStep, Number, Part
from prunus.report.record_repairs import AdjustmentFacts, AllocationFacts
from prunus.report.record_safety import HarmFacts
from prunus.report.record_searches import SearchFacts
from prunus.report.record_shipped import ExportFacts, Int8Facts, Int8Time

__all__ = [
    "ClassCount",
    "ClassScore",
    "ComparisonRow",
    "CostRow",
    "Curve",
    "DataFacts",
    "FeatureRow",
    "FrozenAxis",
    "GapRow",
    "GraphFacts",
    "GroupRow",
    "LabelFacts",
    "LatencyFacts",
    "LayerCount",
    "NoiseFacts",
    "Number",
    "PrecisionFacts",
    "QualityRow",
    "RunRecord",
    "SensitivityCurve",
    "Suspect",
]

ModelName = Literal["dense", "pruned"]


class DataFacts(Part):
    """The data set and its split."""

    source: str
    task: str
    class_names: list[str]
    input_shape: list[int]
    inputs: str = Field("", description="what the model takes, where that isn't one tensor of input_shape")
    n: dict[str, int]
    test_seen: Literal["no", "unknown"] = Field(
        "no",
        description="unknown: weights came from elsewhere and the split from prunus, so that they may know test examples",
    )
    test_set: str = Field("", description="what the test set is: how it came to be apart from what is trained on")
    n_duplicates: int
    duplicates: list[str]
    noise: NoiseFacts | None


class ClassScore(Part):
    """One class on one split."""

    name: str
    support: int
    precision: Number
    recall: Number
    f1: Number


class QualityRow(Part):
    """One model of one seed on one split."""

    seed: int
    model: ModelName
    split: Literal["train", "test"]
    metrics: list[Number]
    per_class: list[ClassScore]
    confusion: list[list[int]] | None


class GroupChange(Part):
    """One group of test examples, dense and pruned (means over seeds)."""

    name: str
    n: int
    dense: float | None
    pruned: float | None
    difference: Number
    verdict: Literal["better", "worse", "no measurable difference"]


class GroupChanges(Part):
    """The change in every group of a column; the intervals of all groups hold together with ``confidence``."""

    column: str
    metric: str
    confidence: float
    changes: list[GroupChange]


class GapRow(Part):
    """Train minus test."""

    seed: int
    model: ModelName
    metric: str
    value: float | None
    low: float | None
    high: float | None


class ComparisonRow(Part):
    """Dense against pruned on the test examples, over all seeds."""

    metric: str
    dense: float
    pruned: float
    difference: Number
    dense_deviation: float | None
    pruned_deviation: float | None
    n_seeds: int
    verdict: Literal["better", "worse", "no measurable difference"]
    method: str


class CostRow(Part):
    """What one model costs; ``size_bytes`` are its weights on disk, ``memory_bytes`` parameters and buffers (None of old)."""

    parameters: int
    nonzero_parameters: int
    macs: int
    size_bytes: int
    memory_bytes: int | None = None


class LayerCount(Part):
    """Units of one layer (or group of coupled layers)."""

    name: str
    granularity: str
    before: int
    after: int


class SensitivityCurve(Part):
    """The loss on the calibration examples with one layer alone pruned: (share that stays, loss), shares falling from 1."""

    name: str
    granularity: str
    points: list[tuple[float, float]]


class FeatureRow(Part):
    """One input feature."""

    name: str
    importance: float
    kept: bool


class FrozenAxis(Part):
    """What couldn't be pruned, and why."""

    name: str
    size: int
    reason: str


class GroupRow(Part):
    """Units that can only leave together: what one of them carries, and where it lies (number of a layer, side)."""

    name: str
    kind: str
    units: int
    parameters_per_unit: int
    macs_per_unit: float
    places: list[tuple[int, Literal["out", "in", ""]]]


class GraphFacts(Part):
    """What hung together in the dense model; ``layers`` are those that hold parameters, in their order."""

    layers: list[str]
    groups: list[GroupRow]

    @classmethod
    def of(cls, view: Mapping[str, Any]) -> GraphFacts:
        """Return what a drawing shows of the plain values of `prunus graph`."""
        shown = GroupRow.model_fields
        rows = [{key: row[key] for key in shown} for row in view["groups"]]
        return cls.model_validate({"layers": view["layers"], "groups": rows})


class Curve(Part):
    """One training, epoch by epoch."""

    loss: list[float]
    accuracy: list[float]


class LatencyFacts(Part):
    """How long both models take, in turns; ``milliseconds`` are medians with quartiles."""

    runtime: str
    batch_size: int
    repeats: int
    warm_up: int
    threads: int
    clock: Literal["wall", "processor"] = "wall"
    milliseconds: dict[str, Number]
    speedup: Number | None


class RunRecord(Part):
    """Everything that a run found out."""

    schema_version: Literal[1] = 1
    name: str
    recipe: dict[str, Any]
    versions: dict[str, str]
    seeds: list[int]
    fingerprints: dict[str, str]
    data: DataFacts
    quality: list[QualityRow]
    gaps: list[GapRow]
    gap_trend: list[GapStep] = Field([], description="after each recovery: between training and validation examples")
    comparison: list[ComparisonRow]
    class_changes: list[Number] = Field(description="intervals that hold for all classes together")
    group_changes: GroupChanges | None = Field(None, description="with data.groups")
    harm: HarmFacts | None = Field(None, description="first seed: whom the model that is shipped serves worse")
    cost: dict[ModelName, CostRow]
    searches: list[SearchFacts] = Field(default=[], description="with a target, one for each seed")
    allocations: list[AllocationFacts] = Field(default=[], description="what others would have lost at the same cost")
    adjustments: list[AdjustmentFacts] = Field(default=[], description="what was set right after each cut")
    layers: list[LayerCount]
    sensitivity: list[SensitivityCurve] = Field(default=[])
    classes: list[ClassCount]
    features: list[FeatureRow]
    suspects: list[Suspect]
    precision: list[PrecisionFacts] = Field(default=[], description="first seed; where labels were flipped, data.noise")
    labels: LabelFacts | None = Field(None, description="first seed, with examples.clean")
    pairs: list[LikePair] = Field(default=[], description="of what is alike, a few; with examples.duplicates")
    map: MapFacts | None = Field(None, description="first seed, with examples")
    gate: GateFacts | None = Field(
        None, description="whether the selection of training examples pays; with examples.gate"
    )
    scorer: ScorerFacts | None = Field(None, description="which model scored the examples, where that was a pruned one")
    joint: JointFacts | None = Field(None, description="shares of the data and of the model together; with joint")
    int8: Int8Facts | None = Field(
        None, description="the exported files in float and in 8-bit whole numbers; with quantize"
    )
    exports: list[ExportFacts] = Field(default=[], description="files for other runtimes; with export")
    frozen: list[FrozenAxis]
    graph: GraphFacts | None = None
    kind: Literal["eager", "graph"]
    epochs: dict[ModelName, int] = Field(
        default={},
        description="of training that this run gave each of the models that are compared, without scores and searches",
    )
    notes: list[str]
    curves: dict[str, Curve]
    timing: dict[str, Any] = Field(description="the only part that differs between two equal runs")

    @property
    def int8_times(self) -> dict[str, Int8Time]:
        """How long each of the exported files takes, by name."""
        found = (Int8Time.model_validate(row) for row in self.timing.get("int8", ()))
        return {row.name: row for row in found}

    @field_validator("recipe")
    @classmethod
    def _says_its_confidence(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        section = recipe.get("evaluation") or {}
        share = section.get("confidence", 0.95) if isinstance(section, dict) else section
        if not isinstance(share, float) or not 0.5 < share < 1:
            raise ValueError(f"evaluation.confidence must be in (0.5, 1), got {shown(share)}")
        return recipe

    @field_validator("comparison")
    @classmethod
    def _leads(cls, rows: list[ComparisonRow]) -> list[ComparisonRow]:
        if not rows:
            raise ValueError("at least one metric is compared: the first one leads the report")
        return rows

    @field_validator("timing")
    @classmethod
    def _timed(cls, timing: dict[str, Any]) -> dict[str, Any]:
        if timing.get("latency"):
            LatencyFacts.model_validate(timing["latency"])
        seconds = timing.get("seconds") or {}
        if not isinstance(seconds, dict) or not all(isinstance(value, int | float) for value in seconds.values()):
            raise ValueError(f"seconds must be numbers by stage, got {shown(seconds)}")
        for key, kind in (("total_seconds", int | float), ("finished", str)):
            if not isinstance(timing.get(key), kind | None):
                raise ValueError(f"{key} must be a {'text' if kind is str else 'number'}, got {shown(timing[key])}")
        return timing

    @property
    def latency(self) -> LatencyFacts | None:
        """How long both models take, where it was measured."""
        facts = self.timing.get("latency")
        return LatencyFacts.model_validate(facts) if facts else None

    @property
    def confidence(self) -> float:
        """The confidence of all intervals."""
        return float((self.recipe.get("evaluation") or {}).get("confidence", 0.95))

    def ratio(self, what: str) -> float:
        """Return how many times less of ``what`` (a field of the cost) the pruned model has."""
        return float(getattr(self.cost["dense"], what)) / max(float(getattr(self.cost["pruned"], what)), 1.0)

    def mean(self, model: ModelName, split: str, metric: str) -> float | None:
        """Return a metric's mean over the seeds; None where no seed has it."""
        found = self.values(model, split, metric)
        return sum(number.value for number in found if number.value is not None) / len(found) if found else None

    def values(self, model: ModelName, split: str, metric: str) -> list[Number]:
        """Return a metric of every seed, in the order of the seeds; seeds without a value are left out."""
        return [
            number
            for row in self.quality
            if (row.model, row.split) == (model, split)
            for number in row.metrics
            if number.name == metric and number.value is not None
        ]
