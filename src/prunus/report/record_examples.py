"""What does a record say of the training examples: which labels look wrong, what is alike, and where each lies?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from prunus.report.record_parts import Number, Part

__all__ = [
    "PICTURE",
    "ClassCount",
    "ExamplesFacts",
    "LabelFacts",
    "LikePair",
    "MapFacts",
    "NoiseFacts",
    "PrecisionFacts",
    "Suspect",
]

PICTURE = r"^data:image/png;base64,[A-Za-z0-9+/]+=*$"


class NoiseFacts(Part):
    """How well labels that were flipped on purpose were found.

    ``n_found`` were relabelled or removed, ``n_repaired`` got their own label back; ``n_clean`` others were relabelled or
    removed, too (None in records from before it was counted).
    """

    n_flipped: int
    n_found: int
    n_repaired: int
    n_clean: int | None = None


class PrecisionFacts(Part):
    """How many of the labels that were called wrong are estimated to be: of ``n``, with an interval.

    ``noise`` is the share of all training labels that is estimated to be wrong.
    """

    action: Literal["relabelled", "removed", "flagged"]
    n: int
    precision: Number
    noise: float


class LabelFacts(Part):
    """What came of cleaning the labels: ``noise`` is the share of all ``n`` that is estimated to be wrong.

    ``repaired`` is the share of the relabelled ones that is estimated to have the right label now; ``n_spared`` would have gone, if
    their class had enough others. The evidence is of models that didn't see an example (folds), or of one that learnt from it.
    """

    n: int
    noise: Number
    evidence: Literal["folds", "recorded"]
    n_dropped: int
    n_relabelled: int
    n_flagged: int
    n_spared: int
    repaired: float | None


class ClassCount(Part):
    """Training examples of one class."""

    name: str
    before: int
    removed: int
    relabelled: int


class Suspect(Part):
    """A training example whose label is doubtful."""

    id: str
    given: str
    suggested: str | None
    score: float
    action: Literal["relabelled", "removed", "flagged"]
    image: str | None = Field(pattern=PICTURE, description="a picture, inline")
    values: str = Field("", description="of a table: some of its columns")


class LikePair(Part):
    """Two examples that are alike: one went for the other, their labels differ, or a test example is one that training knows."""

    kind: Literal["dropped", "otherwise", "leaked"]
    id: str
    other: str
    label: str
    other_label: str
    likeness: float
    image: str | None = Field(None, pattern=PICTURE)
    other_image: str | None = Field(None, pattern=PICTURE)
    values: str = ""
    other_values: str = ""


class MapFacts(Part):
    """Where ``n`` training examples lie, or some of them: in the plane in which their embeddings spread most.

    Columns have one row per example that is shown. ``explained`` is the share of the spread that the plane holds; ``of`` says what
    was embedded.
    """

    n: int
    of: str
    explained: float
    id: list[str]
    x: list[float]
    y: list[float]
    decision: list[Literal["keep", "drop", "relabel", "flag"]]
    label: list[str]
    reason: list[str]

    @model_validator(mode="after")
    def _even(self) -> MapFacts:
        lengths = {len(column) for column in (self.id, self.x, self.y, self.decision, self.label, self.reason)}
        if len(lengths) != 1:
            raise ValueError(f"the columns of a map are equally long, got lengths {sorted(lengths)}")
        return self


class ExamplesFacts(Part):
    """What was found out about training examples without a whole run: the page about them shows it."""

    name: str
    source: str
    task: str
    n: dict[str, int]
    labels: LabelFacts | None = None
    precision: list[PrecisionFacts] = Field(default=[])
    classes: list[ClassCount] = Field(default=[])
    suspects: list[Suspect] = Field(default=[])
    pairs: list[LikePair] = Field(default=[])
    n_alike: dict[Literal["dropped", "otherwise", "leaked"], int] = Field(default={})
    map: MapFacts | None = None
    notes: list[str] = Field(default=[])


class ScoreAgreement(Part):
    """How alike two models order a sample of the examples by one score: Spearman's correlation, None where one is constant.

    ``between_dense`` is that of two dense trainings: more isn't to be had.
    """

    score: str
    value: float | None
    low: float | None
    high: float | None
    between_dense: float | None


class ScorerFacts(Part):
    """The pruned model that scored the examples; its ``macs`` and ``parameters`` are shares of the dense one's."""

    model: Literal["pruned"]
    keep_fraction: float
    macs: float
    parameters: float
    n_sample: int
    agreement: list[ScoreAgreement]
