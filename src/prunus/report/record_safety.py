"""What is kept of how safe a model is: whom pruning harms, what it withstands, and what it tells of its training examples?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prunus.report.record_examples import PICTURE
from prunus.report.record_parts import Number, Part

__all__ = [
    "AttackFacts",
    "AttackStep",
    "AttackedModel",
    "CalibrationFacts",
    "CalibrationLine",
    "CorruptionFacts",
    "CorruptionLine",
    "FlipFacts",
    "FlipRow",
    "HarmFacts",
    "MembershipLine",
    "PartRow",
    "PartTable",
    "PrivacyFacts",
    "RobustnessFacts",
    "SafetyFacts",
    "TriggerFacts",
    "TriggeredModel",
]

Verdict = Literal["better", "worse", "no measurable difference"]


class PartRow(Part):
    """One class or group: both models' metric there, and the change, pruned minus dense; p-values count all the others."""

    name: str
    n: int
    dense: float | None
    pruned: float | None
    change: Number
    p_value: float | None
    verdict: Verdict
    n_lost: int | None
    n_gained: int | None


class PartTable(Part):
    """The change in every class, or in every group of a column, told so that all of it holds together."""

    by: str
    metric: str
    method: str
    changes: list[PartRow]


class FlipRow(Part):
    """An example on which the models decide differently; ``worse`` is in the unit of ``FlipFacts.measure``."""

    id: str
    kind: Literal["right to wrong", "wrong to right", "wrong otherwise", "changed most"]
    label: str
    dense: str
    pruned: str
    worse: float
    image: str | None = Field(None, pattern=PICTURE)
    values: str = ""


class FlipFacts(Part):
    """How many of ``n`` examples flip, by kind, and some of them."""

    n: int
    n_by_kind: dict[str, int]
    measure: str
    shown: list[FlipRow]


class CalibrationLine(Part):
    """One measure of both models, and pruned minus dense; lower is better. ``scaled``: scores were divided by a temperature."""

    measure: str
    scaled: bool
    dense: Number
    pruned: Number
    difference: Number


class CalibrationFacts(Part):
    """Whether the models mean what they say, on ``n`` choices of ``n_examples``; temperatures were fitted on others."""

    n: int
    n_examples: int
    fitted_on: str
    n_fitted: int
    temperatures: dict[str, float]
    rows: list[CalibrationLine]


class HarmFacts(Part):
    """Whom the pruned model serves worse than the dense one, on ``n`` examples of ``split``; one pair of models."""

    split: str
    n: int
    seed: int
    confidence: float
    classes: PartTable | None = None
    groups: list[PartTable] = Field(default=[])
    flips: FlipFacts | None = None
    calibration: CalibrationFacts | None = None
    notes: list[str] = Field(default=[], description="what can't be said of this task or these data, and why")


class CorruptionLine(Part):
    """A metric of the models under one corruption, severity 0 being the mean over all five.

    ``difference`` is pruned minus dense; ``excess`` is that less the same on clean inputs.
    """

    name: str
    severity: int
    values: dict[str, Number]
    difference: Number | None
    excess: Number | None


class CorruptionFacts(Part):
    """What corruptions of the inputs' kind do, on ``n`` examples; ``says`` what each one is."""

    kind: Literal["image", "table", "tokens", "sequence"]
    metric: str
    n: int
    rows: list[CorruptionLine]
    says: dict[str, str]
    notes: list[str]


class AttackStep(Part):
    """One attack: how many it broke of those that still stood, and how many stood after it."""

    attack: str
    tried: int
    broken: int
    standing: int


class AttackedModel(Part):
    """Which share one model has right without attack, under PGD alone, and under all attacks together."""

    accuracy: Number
    under_pgd: Number
    under_all: Number
    steps: list[AttackStep]


class AttackFacts(Part):
    """Attacks of up to ``reach`` (``unit``) in a norm on ``n`` examples; the difference is of what stands under all of them."""

    norm: Literal["linf", "l2"]
    reach: float
    unit: str
    n: int
    effort: dict[str, int]
    attacks: list[str]
    models: dict[str, AttackedModel]
    difference: Number | None


class TriggeredModel(Part):
    """How often a trigger gets the answer that it is for, how often that comes anyway, and the accuracy without it."""

    success: Number
    anyway: Number
    accuracy: Number


class TriggerFacts(Part):
    """A trigger, measured on ``n`` examples of other classes than ``target``."""

    trigger: str
    target: str
    n: int
    models: dict[str, TriggeredModel]
    difference: Number | None


class RobustnessFacts(Part):
    """What the models withstand."""

    split: str
    confidence: float
    corruptions: CorruptionFacts | None = None
    attacks: list[AttackFacts] = Field(default=[])
    trigger: TriggerFacts | None = None
    notes: list[str] = Field(default=[])


class MembershipLine(Part):
    """How well an attack tells members from outsiders, on each model, and pruned minus dense; lower is better."""

    attack: Literal["loss", "lira"]
    measure: str
    values: dict[str, Number]
    difference: Number | None


class PrivacyFacts(Part):
    """What the models tell of the examples that they were trained on."""

    n_members: int
    n_outsiders: int
    n_shadows: int
    confidence: float
    rows: list[MembershipLine]
    notes: list[str] = Field(default=[])


class SafetyFacts(Part):
    """What was measured of a bundle, and of the dense model that it came from, by their hashes."""

    schema_version: Literal[1] = 1
    bundle: str
    dense: str | None
    hashes: dict[str, str]
    data: str
    task: str
    versions: dict[str, str]
    seed: int
    harm: HarmFacts | None = None
    robustness: RobustnessFacts | None = None
    privacy: PrivacyFacts | None = None
    notes: list[str] = Field(default=[])
