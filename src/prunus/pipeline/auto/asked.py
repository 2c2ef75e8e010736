"""What may be asked of :func:`prunus.prune`, and in which words is it refused?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from prunus.core.calls import arguments, described, map_tensors, n_examples, select_rows, tensors
from prunus.core.errors import DataError, RecipeError, near
from prunus.core.units import UNITS, is_mask
from prunus.pipeline.auto.choosing import ALLOCATIONS
from prunus.recover import Adjustment
from prunus.score import check_criterion, criteria

__all__ = ["ADJUSTMENTS", "amount_of", "check_asked", "example_of"]

_TRACED = 4
"""Examples that the model is traced and certified on."""
_COSTS = ("params", "macs", "bytes")
ADJUSTMENTS: tuple[Adjustment, ...] = ("least_squares", "bias", "batch_norm")


def check_asked(granularity: str, criterion: str, allocation: str, adjust: object) -> None:
    """Refuse unknown names before anything is run."""
    if granularity not in UNITS and not is_mask(granularity):
        widths = [unit for unit in UNITS if unit not in ("weight", "expert", "block")]
        raise RecipeError(f"granularity: {near(granularity, widths)}; got {granularity!r}")
    if is_mask(granularity):
        raise RecipeError(
            f"granularity: {granularity} sets single weights to zero and makes nothing smaller here: use ModelOptimizer"
        )
    if criterion != "auto":
        check_criterion(criterion, granularity)
        if criteria[criterion].regularizer or "movement" in criteria[criterion].needs:
            raise RecipeError(f"criterion: {criterion} takes a training: use ModelOptimizer, or another criterion")
    if allocation != "auto" and allocation not in ALLOCATIONS:
        raise RecipeError(f"allocation: {near(allocation, ('auto', *ALLOCATIONS))}; got {allocation!r}")
    if adjust != "auto":
        wrong = [kind for kind in cast("Sequence[str]", adjust) if kind not in ADJUSTMENTS]
        if wrong or isinstance(adjust, str):
            raise RecipeError(f"adjust: expected 'auto' or some of {', '.join(ADJUSTMENTS)}: got {adjust!r}")


def amount_of(keep_fraction: float | None, target: Mapping[str, float] | None) -> tuple[str, float] | None:
    """Return the currency of the amount, and the share that may be left; None where nothing is asked for."""
    if target is None:
        if keep_fraction is None:
            return None
        kind, share, where = "units", keep_fraction, "keep_fraction"
    else:
        if keep_fraction is not None:
            raise RecipeError(f"give keep_fraction or target, not both: got {keep_fraction} and {target}")
        if not isinstance(target, Mapping) or len(target) != 1 or next(iter(target)) not in _COSTS:
            raise RecipeError(
                f"target: expected one of {', '.join(_COSTS)}, like {{'macs': 0.5}}: got {target!r}; a latency is a target of "
                "ModelOptimizer"
            )
        kind, share = next(iter(target.items()))
        where = f"target.{kind}"
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise RecipeError(f"{where}: expected a number in (0, 1], the share that stays: got {share!r}")
    return kind, float(share)


def example_of(inputs: Any, device: torch.device) -> Any:
    """Return a few of the given inputs, on the model's device."""
    if not isinstance(inputs, (Tensor, tuple, list, Mapping)) and not hasattr(inputs, "__dataclass_fields__"):
        raise DataError(
            f"inputs: expected an example of what the model takes (a tensor, a tuple or a mapping): got {described(inputs)}; "
            "examples belong into data=..."
        )
    if not any(True for _ in tensors(inputs)):
        raise DataError(f"inputs: expected at least one tensor in what the model takes: got {described(inputs)}")
    here = map_tensors(lambda value: value.detach().to(device), inputs)
    try:
        n = n_examples(arguments(here))
    except DataError:  # not all of them count examples: a table of positions, say
        return here
    return select_rows(here, torch.arange(min(_TRACED, n)))
