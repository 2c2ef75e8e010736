"""What does a record say of the cuts themselves: what was set right after each, and what another choice would have lost?"""

from __future__ import annotations

from typing import Literal

from prunus.report.record_parts import Part

__all__ = ["AdjustmentFacts", "AdjustmentRow", "AllocationFacts", "AllocationRow"]

Measure = Literal["relative", "kl"]


class AdjustmentRow(Part):
    """One kind of adjustment after one cut; distances are those of the outputs to the dense model's, on held-out examples.

    ``fitted`` are the layers that were changed, ``returned`` those that were taken back by themselves, and ``left_out`` says of
    others why they couldn't be adjusted. The verdict is about the kind as a whole.
    """

    kind: Literal["least_squares", "bias", "batch_norm"]
    before: float | None
    after: float | None
    verdict: Literal["kept", "taken back", "nothing changed"]
    fitted: list[str]
    returned: list[str]
    left_out: dict[str, str]


class AdjustmentFacts(Part):
    """What was set right after one cut of one seed: fitted on some calibration examples, judged on others.

    ``measure`` says what a distance is: ``relative``, as a share of the outputs' size, or ``kl``, in nats.
    """

    seed: int
    after: str
    checks: list[AdjustmentRow]
    notes: list[str]
    n_fitted: int
    n_held_out: int
    measure: Measure = "relative"


class AllocationRow(Part):
    """One way to share a cost: how far it takes the outputs from what they were; ``share`` is the cost that is left."""

    allocation: str
    distance: float | None
    share: float
    chosen: bool


class AllocationFacts(Part):
    """What each allocation would have lost in one cut of one seed, by zeros on held-out examples, before anything is set right."""

    seed: int
    cut: int
    cost: Literal["params", "macs", "bytes", "weights"]
    n_held_out: int
    measure: Measure = "relative"
    rows: list[AllocationRow]
