"""What is a criterion, and which ones are there?

A criterion is a formula from evidence to one saliency per unit, and a higher saliency means *keep*. It sees tensors whose first
dimension counts the units, never a model; what it ``needs`` is gathered in one pass by ``score.evidence``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from prunus.core.errors import RecipeError, ShapeError
from prunus.core.recipe import ModelUnit
from prunus.core.registry import Registry

__all__ = ["Criterion", "Formula", "Need", "Regularizer", "check_criterion", "criteria", "criterion"]

Need = Literal["weight", "gradient", "inverse_gram", "noise"]
"""``noise`` is one uniform random number per unit, drawn from the run's seed and the name of the tensor."""

Regularizer = Literal["l1", "bn_scale"]
"""The penalty of the sparsity-inducing training that comes before the score."""

Formula = Callable[..., Tensor]


@dataclass(frozen=True)
class Criterion:
    """A formula and what it takes: ``function(*evidence in the order of needs) -> (units,)``.

    ``reads`` says on which tensors of a group it looks: all parameters, or only the scales of normalisation layers (and then it
    has no meaning for single weights). A ``single`` criterion judges single weights only.
    """

    name: str
    needs: tuple[Need, ...]
    function: Formula
    summary: str
    reference: str = ""
    regularizer: Regularizer | None = None
    reads: Literal["parameters", "norm_scales"] = "parameters"
    single: bool = False

    @property
    def granularities(self) -> tuple[str, ...]:
        """What it can judge: scales of normalisation layers say nothing of single weights and of whole modules."""
        if self.single:
            return ("weight",)
        units = get_args(ModelUnit)
        return (
            units if self.reads == "parameters" else tuple(u for u in units if u not in ("weight", "block", "expert"))
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


criteria: Registry[Criterion] = Registry("criterion")


def criterion(
    name: str,
    *,
    needs: tuple[Need, ...],
    reference: str = "",
    regularizer: Regularizer | None = None,
    reads: Literal["parameters", "norm_scales"] = "parameters",
    single: bool = False,
) -> Callable[[Formula], Formula]:
    """Register a formula under ``name``, which also enrols it in the law tests; its first docstring line is the summary."""

    def register(function: Formula) -> Formula:
        summary = (function.__doc__ or "").strip().partition("\n")[0].removeprefix("Return ").rstrip(".")
        criteria.add(name, Criterion(name, needs, function, summary, reference, regularizer, reads, single))
        return function

    return register


def check_criterion(name: str, granularity: str) -> Criterion:
    """Return the criterion called ``name`` if it can judge units of this granularity.

    Raises:
        RecipeError: it is unknown, or it judges something else; the message lists what fits.
    """
    chosen = criteria[name]
    if granularity not in chosen.granularities:
        able = ", ".join(other for other in criteria if granularity in criteria[other].granularities)
        raise RecipeError(
            f"strategy.criterion: {name!r} doesn't judge {granularity}s: choose among {able}, or another granularity"
        )
    return chosen
