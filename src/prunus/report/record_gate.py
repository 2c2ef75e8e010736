"""What does a record say of what was judged on validation examples: a selection of examples, and shares of data and model?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from prunus.report.record_parts import Part

__all__ = ["Apart", "GateArm", "GateDifference", "GateFacts", "JointCell", "JointFacts", "JointRow"]

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


class Apart(Part):
    """How far a cell is from the first one, paired by seed and example, with its interval."""

    value: float
    low: float
    high: float


class JointCell(Part):
    """One share of the data with one share of the model.

    ``low`` to ``high`` is Student's interval of the mean over seeds. ``kept`` says that it was shown to be no worse than the first
    cell; ``parameters`` (that aren't zero) and ``macs`` are shares of the first cell's.
    """

    values: list[float]
    mean: float
    low: float | None
    high: float | None
    difference: Apart | None
    kept: bool
    parameters: float
    macs: float
    epochs_after: list[int] = Field(description="of training after the dense one, by seed")


class JointRow(Part):
    """One share of the training examples: as asked for, as it was kept (mean over seeds), and how many examples by seed."""

    asked: float
    kept: float
    n: list[int]


class JointFacts(Part):
    """The grid, on the validation examples: a row of ``cells`` for each share of the data, a column for each of the model.

    ``max_drop`` is what counts as no worse, with ``confidence`` for all cells together; each difference's interval holds with
    ``each``. ``model_is`` says of what the ``model`` shares are: units, or a cost.
    """

    metric: str
    higher_is_better: bool
    max_drop: float
    confidence: float
    each: float
    method: str
    model_is: Literal["keep_fraction", "latency", "params", "macs", "bytes"]
    n_train: int
    n_validation: int
    seeds: list[int]
    data: list[JointRow] = Field(min_length=1)
    model: list[float] = Field(min_length=1)
    cells: list[list[JointCell]]
    smallest: tuple[int, int] | None = Field(
        description="row and column of the least that is no worse; null: nothing smaller is"
    )

    @model_validator(mode="after")
    def _is_a_grid(self) -> JointFacts:
        if len(self.cells) != len(self.data) or any(len(row) != len(self.model) for row in self.cells):
            raise ValueError(
                f"expected {len(self.data)} rows of {len(self.model)} cells, got {[len(row) for row in self.cells]}"
            )
        if self.smallest is not None:
            i, j = self.smallest
            if not (0 <= i < len(self.data) and 0 <= j < len(self.model)):
                raise ValueError(f"smallest is no cell of the grid: got {list(self.smallest)}")
        return self
