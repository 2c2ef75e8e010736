"""What is there to say of a model on its card, from whichever run it came?

Plain facts, so that a card can be written for a bundle that no run made, too: what isn't known is said to be unknown, never left
out. Nothing in here depends on the time or the place of the run: the same seed gives the same card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prunus.core.recipes.card_section import Card

__all__ = ["CardFacts", "Change", "Comparison", "Cost", "DataSaid", "Measured"]


@dataclass(frozen=True)
class Measured:
    """A metric on one split of the model in the bundle, or of the dense one that it comes from, with its interval."""

    model: str
    split: str
    name: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """Dense against pruned on the test examples: ``low`` to ``high`` is the interval of pruned minus dense."""

    metric: str
    dense: float
    pruned: float
    low: float | None
    high: float | None
    verdict: str
    n_seeds: int


@dataclass(frozen=True)
class Cost:
    """What a model costs."""

    parameters: int
    nonzero_parameters: int
    macs: int
    size_bytes: int


@dataclass(frozen=True)
class Change:
    """How many units of a layer there were, and how many stay."""

    layer: str
    granularity: str
    before: int
    after: int


@dataclass(frozen=True)
class DataSaid:
    """On which data it was trained: ``fingerprint`` is a SHA-256 over ids, inputs and labels."""

    source: str
    fingerprint: str
    n: Mapping[str, int]
    test_set: str = ""
    test_seen: bool = False
    n_removed: int = 0


@dataclass(frozen=True)
class CardFacts:
    """All that a card says beside the manifest. ``contract`` is the test that showed what was promised, with ``kept``.

    ``other_files`` tell of files for other runtimes that were made of the model, or why there is none.
    """

    said: Card = field(default_factory=Card)
    run_id: str = ""
    seeds: tuple[int, ...] = ()
    confidence: float = 0.95
    metrics: tuple[Measured, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    contract: Mapping[str, Any] | None = None
    costs: Mapping[str, Cost] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    data: DataSaid | None = None
    dense_fingerprint: str = ""
    plan_fingerprints: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    other_files: tuple[str, ...] = ()

    @property
    def proof(self) -> dict[str, Any] | None:
        """What the manifest keeps of it, so that a signature covers it: the run, and what its contract showed."""
        if not self.run_id:
            return None
        return {"run_id": self.run_id, "contract": None if self.contract is None else dict(self.contract)}
