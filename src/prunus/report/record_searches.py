"""How did the search for a target go, and what was shown of the contract, as a record says it?"""

from __future__ import annotations

from typing import Literal

from prunus.report.record_parts import Part

__all__ = ["CandidateRow", "ContractFacts", "ContractTest", "SearchFacts"]


class ContractFacts(Part):
    """What had to be kept."""

    metric: str
    max_drop: float
    confidence: float


class ContractTest(ContractFacts):
    """A test of one candidate on the validation examples: the drop is at most ``bound``."""

    dense: float
    pruned: float
    drop: float
    bound: float
    n: int
    n_lost: int | None
    n_gained: int | None
    kept: bool
    method: str


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
