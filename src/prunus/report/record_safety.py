"""What is kept of how safe a model is: whom pruning harms, what it withstands, and what it tells of its training examples?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prunus.report.record_examples import PICTURE
from prunus.report.record_parts import Number, Part

__all__ = [
    "CalibrationFacts",
    "CalibrationLine",
    "FlipFacts",
    "FlipRow",
    "HarmFacts",
    "PartRow",
    "PartTable",
    "SafetyFacts",
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
    notes: list[str] = Field(default=[])
