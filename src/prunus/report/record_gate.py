"""What does a record say of a selection of training examples that was judged?"""

from __future__ import annotations

from typing import Literal

from prunus.report.record_parts import Part

__all__ = ["GateArm", "GateDifference", "GateFacts"]

Arm = Literal["selection", "random", "full_short"]


class GateArm(Part):
    """How one way of choosing what to train on did: the mean over seeds, and each of them."""

    name: Arm
    mean: float
    deviation: float | None
    values: list[float]


class GateDifference(Part):
    """By how much one way did otherwise than another, on the same seeds and examples, with its interval."""

    one: Arm
    other: Arm
    verdict: Literal["better", "worse", "no measurable difference"]
    value: float | None
    low: float | None
    high: float | None


class GateFacts(Part):
    """A selection, as many examples by chance, and all of them for as many steps, on the validation examples.

    ``recommended`` is the simplest that nothing beats measurably; ``smaller`` what to take where fewer must be kept.
    """

    metric: str
    higher_is_better: bool
    method: str
    arms: list[GateArm]
    comparisons: list[GateDifference]
    recommended: Arm
    smaller: Literal["selection", "random"]
    n_train: int
    n_kept: list[int]
    n_steps: list[int]
    n_validation: int
    seeds: list[int]
