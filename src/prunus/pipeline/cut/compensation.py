"""Which criteria make good what they remove, and how does one of them go through a whole model?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from prunus.core.errors import RecipeError
from prunus.core.recipes.recipe import Strategy
from prunus.core.types import Decision
from prunus.core.units import as_mask
from prunus.graph.tracing.states import duplicate
from prunus.recover import (
    compensate,
    from_matrices,
    inverse_factor,
    keep_top,
    layers_in_order,
    matrices,
    moments_in_order,
    obs_update,
    set_matrices,
    sparsegpt_prune,
)
from prunus.score import Compensation, criteria

if TYPE_CHECKING:
    from prunus.data import Examples
    from prunus.recover.refit.sequential import Update

__all__ = ["COMPENSATIONS", "check_compensation", "compensate_removed", "sparsegpt_model", "sparsegpt_step"]


def _sparsegpt(weight: Tensor, gram: Tensor, mask: Tensor) -> Tensor:
    return sparsegpt_prune(weight, gram, mask=mask)[0]


COMPENSATIONS: Mapping[Compensation, Update] = {"afterwards": obs_update, "column_by_column": _sparsegpt}
"""``(weight, gram, mask) -> weight`` of one matrix. So a plan's replay computes what its maker did."""


def check_compensation(strategy: Strategy) -> None:
    """Refuse what SparseGPT can't be asked: it chooses inside each layer, weight by weight or N:M.

    Raises:
        RecipeError: a cutoff, an allocation over layers, or blocks.
    """
    if criteria[strategy.criterion].compensation != "column_by_column":
        return
    if strategy.cutoff is not None or strategy.allocation != "uniform":
        raise RecipeError(
            f"strategy: {strategy.criterion} chooses inside each layer: give a keep_fraction, not a cutoff, and allocation uniform"
        )
    for granularity in strategy.granularity:
        mask = as_mask(granularity)
        if mask is not None and mask.kind == "block" and mask.rows * mask.columns > 1:
            raise RecipeError(
                f"strategy: {strategy.criterion} judges single weights and N:M: got {granularity} blocks; take weight or 2:4"
            )


def compensate_removed(model: nn.Module, masks: Mapping[str, Tensor], criterion: str, examples: Examples) -> list[str]:
    """Let the weights that stay take over the work of those that go, if that belongs to the criterion; return notes."""
    compensation = criteria[criterion].compensation
    if compensation is None:
        return []
    left = compensate(model, masks, examples, COMPENSATIONS[compensation])
    return [f"{name}: isn't made good, since no layer was seen to multiply with it" for name in left]


def sparsegpt_step(
    model: nn.Module,
    names: Sequence[str],
    masks: Mapping[str, Tensor],
    examples: Examples,
    *,
    shares: Mapping[str, float],
    n_m: tuple[int, int] | None,
) -> tuple[tuple[Decision, ...], list[str]]:
    """Return what SparseGPT decides for each weight of ``names``, and notes; ``model`` stays as it is.

    Args:
        masks: what earlier rounds left, True.
        shares: the share of each weight that stays; empty with ``n_m``.
    """
    chosen, notes = sparsegpt_model(duplicate(model), names, masks, examples, shares=shares, n_m=n_m)
    reason = "sparsegpt: cheapest in its columns, after what went before was made good"
    decisions = []
    for name in names:
        units = np.flatnonzero(masks[name].flatten().numpy()).astype(np.int64)
        saliency, mask = (tensor.flatten().double().numpy() for tensor in chosen[name])
        keep = mask[units].astype(np.bool_)
        decisions.append(Decision(name, units, saliency[units], keep, np.where(keep, "kept", reason).astype(object)))
    return tuple(decisions), notes


def sparsegpt_model(
    model: nn.Module,
    names: Sequence[str],
    alive: Mapping[str, Tensor],
    examples: Examples,
    *,
    shares: Mapping[str, float],
    n_m: tuple[int, int] | None = None,
) -> tuple[dict[str, tuple[Tensor, Tensor]], list[str]]:
    """Return, by weight, its saliency and which of its numbers SparseGPT keeps, and notes; ``model`` is pruned on the way.

    Args:
        names: the weights that may be pruned.
        shares: the share of each of them that stays, of all that it once had; with ``n_m`` N of every M stay instead.
        alive: what earlier rounds left, True.
    """
    chosen: dict[str, tuple[Tensor, Tensor]] = {}
    notes = []
    layers = {name: layer for name, layer in layers_in_order(model, examples).items() if _weight_of(name) in names}
    for name, layer, moments in moments_in_order(model, layers, examples):
        weight, allowed = matrices(layer), matrices(layer, alive[_weight_of(name)])
        new, keep, saliency = torch.empty_like(weight), torch.empty_like(allowed), torch.empty_like(weight)
        order = _neighbours(layer, weight.shape[-1])
        back = order.argsort()
        share = None if n_m else shares[_weight_of(name)]
        for group, (matrix, gram) in enumerate(zip(weight, moments.mean_gram, strict=True)):
            factor = inverse_factor(gram[order][:, order], 0.01)
            saliency[group] = (matrix / factor.diagonal()[back]).square()
            pruned = sparsegpt_prune(
                matrix[:, order],
                gram[order][:, order],
                keep_fraction=share,
                n_m=n_m,
                allowed=allowed[group][:, order],
                factor=factor,
            )
            new[group], keep[group] = (part[:, back] for part in pruned)
        set_matrices(layer, new)
        chosen[_weight_of(name)] = from_matrices(layer, saliency), from_matrices(layer, keep)
    for name, parameter in model.named_parameters():
        if name in names and name not in chosen:
            notes.append(f"{name}: no layer was seen to multiply with it, so it is judged by magnitude")
            size = parameter.detach().abs().masked_fill(~alive[name], -1).flatten(start_dim=1)
            share = None if n_m else shares[name]
            mask = keep_top(size, keep_fraction=share, n_m=n_m, within="matrix").view_as(parameter)
            chosen[name] = parameter.detach().abs(), mask & alive[name]
    return chosen, notes


def _neighbours(layer: nn.Module, fan_in: int) -> Tensor:
    """Return the columns of a layer's matrix in the order that N:M groups them: channels innermost, as its kernels read them."""
    positions = math.prod(getattr(layer, "kernel_size", ()))
    return torch.arange(fan_in).view(-1, positions).T.flatten()


def _weight_of(layer: str) -> str:
    return f"{layer}.weight" if layer else "weight"
