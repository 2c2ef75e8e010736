"""What do score, select and apply hand to each other?

They never import each other: a criterion makes one saliency per unit (higher always means *keep*), selection turns
saliencies into a :class:`Decision` per stratum, and decisions make a :class:`Plan`. All of it is NumPy on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "Bools",
    "Decision",
    "Digests",
    "Floats",
    "Granularity",
    "Ints",
    "Measurement",
    "Operation",
    "Plan",
    "Step",
    "Stratum",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Digests = npt.NDArray[np.uint8]

Granularity = str
"""What a step judges: a unit of the model (``core.units``), ``feature`` or ``example``."""
Operation = Literal["prune", "remove", "relabel", "replace"]


@dataclass(frozen=True)
class Stratum:
    """The units that share a budget (the weights of a layer, the channels of an axis, the examples of a class).

    Shapes:
        ``saliency`` is ``(units,)``, finite, higher means keep; ``unit`` holds each unit's number (default 0, 1, ...).
    Units:
        ``cost`` is what one unit costs in the currency of the budget (parameters, say); ``min_units`` always stay, and
        the number kept is a multiple of ``multiple`` where that is possible. ``whole`` is how many units there were before the
        first round (0: as many as now), and ``shape`` their dimensions as a tensor (default: units x cost). ``losses`` says
        what the loss was at some shares of ``whole``, one row (share, loss) each, shares falling from 1. Units of one ``row``
        (default: all) are compared with each other only: every row keeps the same share of what the stratum keeps.
        ``n_weights`` is how many weight tensors lose a slice with a unit. ``additive`` saliencies are errors in one unit for all
        strata, each given those before it: the sum over what goes is what is lost. Others have a scale of their own. Strata of
        one ``joint`` keep the same share: one number stands for all of their sizes.
    """

    name: str
    saliency: Floats
    unit: Ints | None = None
    cost: float = 1.0
    min_units: int = 1
    multiple: int = 1
    whole: int = 0
    shape: tuple[float, ...] = ()
    losses: Floats | None = None
    row: Ints | None = None
    n_weights: int = 1
    additive: bool = False
    joint: str = ""

    @property
    def units(self) -> Ints:
        """The number of each unit, in the order of ``saliency``."""
        return np.arange(len(self.saliency), dtype=np.int64) if self.unit is None else self.unit


@dataclass(frozen=True)
class Decision:
    """What one stratum keeps and why: one row per unit in every array.

    ``unit`` numbers the unit inside its stratum (a channel, a flat weight index, a row of the data set); ``label`` is the
    stable name of it where there is one (a sample id, a feature name). ``round`` says in which pruning round the unit
    went (-1: it stayed). ``before`` and ``after`` hold a repaired value (a label, a feature's fill), NaN elsewhere. ``error``
    is the saliency's standard error, where it is known.
    """

    stratum: str
    unit: Ints
    saliency: Floats
    keep: Bools
    reason: npt.NDArray[np.object_]
    round: Ints | None = None
    label: npt.NDArray[np.object_] | None = None
    before: Floats | None = None
    after: Floats | None = None
    error: Floats | None = None

    def __post_init__(self) -> None:
        columns = (
            self.unit,
            self.saliency,
            self.keep,
            self.reason,
            self.round,
            self.label,
            self.before,
            self.after,
            self.error,
        )
        assert all(column is None or len(column) == len(self.unit) for column in columns), f"ragged {self.stratum=}"

    @property
    def n_kept(self) -> int:
        """How many units stay."""
        return int(self.keep.sum())


@dataclass(frozen=True)
class Step:
    """One operation of a plan, and what it decided in every stratum."""

    operation: Operation
    granularity: Granularity
    criterion: str
    decisions: tuple[Decision, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def n_units(self) -> int:
        """How many units were judged."""
        return sum(len(decision.unit) for decision in self.decisions)

    @property
    def n_kept(self) -> int:
        """How many units stay."""
        return sum(decision.n_kept for decision in self.decisions)


@dataclass(frozen=True)
class Plan:
    """Everything that was decided, as data: save it, read it, compare it, replay it on another machine.

    ``fingerprints`` tie it to the data set and the model structure that it was made for.
    """

    steps: tuple[Step, ...]
    seed: int
    recipe: dict[str, Any]
    fingerprints: dict[str, str]

    def of(self, operation: Operation, granularity: Granularity | None = None) -> Iterator[Step]:
        """Yield the steps of one kind, in order."""
        for step in self.steps:
            if step.operation == operation and granularity in (None, step.granularity):
                yield step


@dataclass(frozen=True)
class Measurement:
    """A number with its 95 % interval and its unit; ``higher_is_better`` is None where neither is.

    >>> print(Measurement("accuracy", 0.9526, 0.9258, 0.9702, "share"))
    accuracy 95.3 % (92.6 % to 97.0 %)
    """

    name: str
    value: float
    low: float
    high: float
    unit: str = ""
    higher_is_better: bool | None = None

    def __str__(self) -> str:
        if self.unit == "share":
            value, low, high = (f"{100 * number:.1f} %" for number in (self.value, self.low, self.high))
            return f"{self.name} {value} ({low} to {high})"
        return f"{self.name} {self.value:.4g} ({self.low:.4g} to {self.high:.4g}){' ' * bool(self.unit)}{self.unit}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; a number that isn't finite becomes None."""

        def finite(value: float) -> float | None:
            return float(value) if np.isfinite(value) else None

        return {
            "name": self.name,
            "value": finite(self.value),
            "low": finite(self.low),
            "high": finite(self.high),
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
        }
