"""How did the search for a target go, and what was shown of the contract, as a record says it?"""

from __future__ import annotations

from typing import Literal

from prunus.report.record_parts import Part

__all__ = [
    "CandidateRow",
    "ContractFacts",
    "ContractTest",
    "HarmMargin",
    "SearchFacts",
    "WorstClassFacts",
    "WorstGroupFacts",
]


class HarmMargin(Part):
    """What each class had to keep of its recall and each group of the metric, and what became of those with too few examples."""

    worst_class: float | None = None
    worst_group: float | None = None
    small: Literal["refuse", "leave_out"]


class ContractFacts(Part):
    """What had to be kept."""

    metric: str
    max_drop: float
    confidence: float
    harm: HarmMargin | None = None


class ClassLossRow(Part):
    """What one class or group loses: at most ``bound``, told of it alone."""

    name: str
    n: int
    drop: float
    bound: float
    n_lost: int | None
    n_gained: int | None


class WorstClassFacts(Part):
    """The class of which the least could be shown: none loses more than ``bound``; nothing is promised of those left out."""

    name: str
    drop: float
    bound: float
    max_drop: float
    classes: list[ClassLossRow]
    left_out: list[str]
    kept: bool


class WorstGroupFacts(Part):
    """The group of ``column`` of which the least could be shown: none loses more than ``bound``; as of classes.

    Nothing is promised of the ``unknown`` either, where the metric is no number.
    """

    column: str
    name: str
    drop: float
    bound: float
    max_drop: float
    groups: list[ClassLossRow]
    left_out: list[str]
    unknown: tuple[str, ...] = ()
    kept: bool


class ContractTest(Part):
    """A test of one candidate on the validation examples: the drop is at most ``bound``.

    ``worst`` says it of the classes, ``worst_group`` of the groups.
    """

    metric: str
    max_drop: float
    confidence: float
    dense: float
    pruned: float
    drop: float
    bound: float
    n: int
    n_lost: int | None
    n_gained: int | None
    kept: bool
    method: str
    worst: WorstClassFacts | None = None
    worst_group: WorstGroupFacts | None = None


class CandidateRow(Part):
    """One model that a search trained; shares are of the dense model's cost."""

    number: int
    started_from: int
    asked: float
    share: float
    calibration_drop: float | None
    promising: bool
    test: ContractTest | None
    verdict: Literal["kept", "not shown", "not tested"]


class SearchFacts(Part):
    """How one seed's search for a target went.

    ``delivered`` is a candidate's number, None where none keeps the contract, or what was asked for is speed and the candidate has
    none: ``too_slow`` says so.
    """

    seed: int
    cost: Literal["latency", "params", "macs", "bytes"]
    asked: float | None
    floor: float
    runtime: str | None
    contract: ContractFacts | None
    n_validation: int
    n_calibration: int
    candidates: list[CandidateRow]
    delivered: int | None
    too_slow: str = ""

    @property
    def result(self) -> CandidateRow | None:
        """The candidate that is delivered."""
        return next((row for row in self.candidates if row.number == self.delivered), None)
