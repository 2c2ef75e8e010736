"""What is a criterion, and which ones are there?

A criterion is a formula from evidence to one saliency per unit, and a higher saliency means *keep*. It sees tensors whose first
dimension counts the units, never a model; what it ``needs`` is gathered in one pass by ``score.evidence.gather``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from prunus.core.code.registry import CRITERIA, Registry
from prunus.core.errors import RecipeError, ShapeError
from prunus.core.units import UNITS, is_mask

__all__ = [
    "EVERY_UNIT",
    "INPUT_NEEDS",
    "OUTPUT_NEEDS",
    "WIDTHS",
    "Compensation",
    "Criterion",
    "Formula",
    "Need",
    "Reads",
    "Regularizer",
    "check_criterion",
    "criteria",
    "criterion",
]

Need = Literal[
    "weight",
    "gradient",
    "squared_gradient",
    "curvature",
    "hessian_gradient",
    "flow",
    "movement",
    "input_norm",
    "inverse_gram",
    "active_fraction",
    "output_mean",
    "output_variance",
    "block_cosine",
    "noise",
]
"""What a formula may ask for. ``evidence.py`` says how each is measured, ``catalogue.py`` in words."""

Regularizer = Literal["l1", "bn_scale", "l0"]
"""The penalty of the sparsity-inducing training that comes before the score."""

INPUT_NEEDS: frozenset[Need] = frozenset(("input_norm", "inverse_gram"))
"""What is measured where a weight reads its inputs."""
OUTPUT_NEEDS: frozenset[Need] = frozenset(("active_fraction", "output_mean", "output_variance"))
"""What is measured where a weight makes its outputs."""

Reads = Literal["parameters", "norm_scales", "layers", "readers", "makers", "blocks"]
"""On which tensors of a group a criterion looks; it gets no others.

``parameters``: all. ``norm_scales``: the scales of normalisation layers. ``layers``: those that were seen at work. ``readers``: the
weights that read the axis. ``makers``: the weights that make it. ``blocks``: none, the module as a whole.
"""

_MUST_NEED: Mapping[Reads, tuple[frozenset[Need], str]] = {
    "layers": (INPUT_NEEDS | OUTPUT_NEEDS, "layers are told by what was measured at them"),
    "readers": (INPUT_NEEDS, "readers are told by what was measured at their inputs"),
    "makers": (OUTPUT_NEEDS, "makers are told by what was measured at their outputs"),
    "blocks": (frozenset(("block_cosine",)), "a block is judged by what passes through it"),
}

Compensation = Literal["afterwards", "column_by_column"]
"""What the weights that stay take over: ``afterwards``, once it is decided what goes (Optimal Brain Surgeon), or
``column_by_column``, so that later columns are judged after they took over the work of earlier ones (SparseGPT).
"""

EVERY_UNIT = UNITS
WIDTHS = tuple(unit for unit in UNITS if unit not in ("weight", "expert", "block"))

Formula = Callable[..., Tensor]


@dataclass(frozen=True)
class Criterion:
    """A formula and what it takes: ``function(*evidence in the order of needs) -> (units,)``.

    ``granularities`` are the units that it can judge. What is measured along an axis says nothing of single weights and of whole
    modules, and a criterion that compares the units of a tensor has nothing to say of a whole module. ``compare`` says among whom
    a single weight is judged: its tensor, or only its row (the weights into one output). ``signed`` scores may be below zero:
    such a unit does harm. ``compensation`` says whether the single weights that stay make up for those that go. ``joint``: units
    of a group are judged together, given which have gone before (:func:`~prunus.score.elimination.eliminate`); the formula is then
    what a unit would cost that went alone.

    Raises:
        RecipeError: the fields contradict each other.
    """

    name: str
    needs: tuple[Need, ...]
    function: Formula
    summary: str
    reference: str = ""
    regularizer: Regularizer | None = None
    reads: Reads = "parameters"
    granularities: tuple[str, ...] = EVERY_UNIT
    compare: Literal["tensor", "row"] = "tensor"
    signed: bool = False
    compensation: Compensation | None = None
    joint: bool = False

    def __post_init__(self) -> None:
        unknown = [unit for unit in self.granularities if unit not in UNITS]
        if unknown or not self.granularities:
            raise RecipeError(
                f"criterion {self.name!r}: granularities must be among {', '.join(UNITS)}: got {unknown or 'none'}"
            )
        needed, why = _MUST_NEED.get(self.reads, (frozenset(), ""))
        if needed and not needed & set(self.needs):
            raise RecipeError(
                f"criterion {self.name!r}: reads {self.reads!r} needs one of {', '.join(sorted(needed))}, got "
                f"{', '.join(self.needs)}: {why}"
            )
        if "weight" in self.granularities and self.reads in ("norm_scales", "makers", "blocks"):
            raise RecipeError(
                f"criterion {self.name!r}: reads {self.reads!r}, which says nothing of single weights: got granularities "
                f"{', '.join(self.granularities)}; leave out weight"
            )
        of_blocks = (self.needs == ("block_cosine",), self.reads == "blocks", self.granularities == ("block",))
        if (self.reads == "blocks" or "block_cosine" in self.needs) and not all(of_blocks):
            raise RecipeError(
                f"criterion {self.name!r}: needs 'block_cosine' alone, reads 'blocks' and granularity 'block' belong together: got "
                f"needs {', '.join(self.needs)}, reads {self.reads!r}, granularities {', '.join(self.granularities)}"
            )

    def __call__(self, evidence: Mapping[Need, Tensor]) -> Tensor:
        """Return one saliency per unit.

        Shapes:
            Every value of ``evidence`` is ``(units, ...)``; the result is ``(units,)``.
        Raises:
            ShapeError: the evidence is ragged.
        """
        given = [evidence[need] for need in self.needs]
        if len({tensor.shape for tensor in given if tensor.shape[1:]}) > 1:
            shapes = ", ".join(f"{need} {tuple(evidence[need].shape)}" for need in self.needs)
            raise ShapeError(f"{self.name} needs evidence of one shape: got {shapes}")
        return self.function(*given)


criteria: Registry[Criterion] = Registry("criterion", group=CRITERIA)


def criterion(
    name: str,
    *,
    needs: tuple[Need, ...],
    reference: str = "",
    regularizer: Regularizer | None = None,
    reads: Reads = "parameters",
    granularities: tuple[str, ...] = EVERY_UNIT,
    compare: Literal["tensor", "row"] = "tensor",
    signed: bool = False,
    compensation: Compensation | None = None,
    joint: bool = False,
) -> Callable[[Formula], Formula]:
    """Register a formula under ``name``, which also enrols it in the law tests; its first docstring line is the summary."""

    def register(function: Formula) -> Formula:
        summary = (function.__doc__ or "").strip().partition("\n")[0].removeprefix("Return ").rstrip(".")
        made = Criterion(
            name,
            needs,
            function,
            summary,
            reference,
            regularizer,
            reads,
            granularities,
            compare,
            signed,
            compensation,
            joint,
        )
        criteria.add(name, made)
        return function

    return register


def check_criterion(name: str, granularity: str) -> Criterion:
    """Return the criterion called ``name`` if it can judge units of this granularity.

    Raises:
        RecipeError: it is unknown, or it judges something else; the message lists what fits.
    """
    chosen = criteria[name]
    unit = "weight" if is_mask(granularity) else granularity  # N:M and blocks are judged weight by weight
    if unit not in chosen.granularities:
        able = ", ".join(other for other in criteria if unit in criteria[other].granularities)
        raise RecipeError(
            f"strategy.criterion: {name!r} doesn't judge {unit}s: choose among {able}, or another granularity"
        )
    return chosen
