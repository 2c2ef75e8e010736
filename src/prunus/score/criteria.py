"""What is a criterion, and which ones are there?

A criterion is a formula from evidence to one saliency per unit, and a higher saliency means *keep*. It sees tensors whose first
dimension counts the units, never a model; what it ``needs`` is gathered in one pass by ``score.evidence``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from prunus.core.errors import RecipeError, ShapeError
from prunus.core.registry import Registry
from prunus.core.units import UNITS, is_mask

__all__ = ["Criterion", "Formula", "Need", "Reads", "Regularizer", "check_criterion", "criteria", "criterion"]

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

Reads = Literal["parameters", "norm_scales", "layers", "readers", "makers", "blocks"]
"""On which tensors of a group a criterion looks.

``parameters``: all. ``norm_scales``: the scales of normalisation layers. ``layers``: those whose inputs were seen. ``readers``: the
weights that read the axis. ``makers``: the weights that make it. ``blocks``: none, the module as a whole.
"""

Formula = Callable[..., Tensor]


@dataclass(frozen=True)
class Criterion:
    """A formula and what it takes: ``function(*evidence in the order of needs) -> (units,)``.

    ``compare`` says among whom a single weight is judged: its tensor, or only its row (the weights into one output).
    ``signed`` scores may be below zero: such a unit does harm. A ``relative`` criterion compares the units of a tensor, and has
    nothing to say of a whole module. A ``single`` criterion judges single weights only.
    """

    name: str
    needs: tuple[Need, ...]
    function: Formula
    summary: str
    reference: str = ""
    regularizer: Regularizer | None = None
    reads: Reads = "parameters"
    compare: Literal["tensor", "row"] = "tensor"
    signed: bool = False
    relative: bool = False
    single: bool = False

    @property
    def granularities(self) -> tuple[str, ...]:
        """What it can judge: what is measured along an axis says nothing of single weights and of whole modules."""
        if self.reads == "blocks":
            return ("block",)
        if self.single:
            return ("weight",)
        not_single = self.reads in ("norm_scales", "makers")
        out = {"weight", "block", "expert"} if not_single else {"block", "expert"} if self.relative else set()
        return tuple(unit for unit in UNITS if unit not in out)

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


criteria: Registry[Criterion] = Registry("criterion")


def criterion(
    name: str,
    *,
    needs: tuple[Need, ...],
    reference: str = "",
    regularizer: Regularizer | None = None,
    reads: Reads = "parameters",
    compare: Literal["tensor", "row"] = "tensor",
    signed: bool = False,
    relative: bool = False,
    single: bool = False,
) -> Callable[[Formula], Formula]:
    """Register a formula under ``name``, which also enrols it in the law tests; its first docstring line is the summary."""

    def register(function: Formula) -> Formula:
        summary = (function.__doc__ or "").strip().partition("\n")[0].removeprefix("Return ").rstrip(".")
        criteria.add(
            name,
            Criterion(name, needs, function, summary, reference, regularizer, reads, compare, signed, relative, single),
        )
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
