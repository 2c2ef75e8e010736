"""Which criteria make good what they remove, and how does one of them go through a whole model?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunus.recover import (
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

if TYPE_CHECKING:
    from prunus.data import Examples
    from prunus.recover.in_order import Update

__all__ = ["COMPENSATIONS", "sweep_model"]


def _swept(weight: Tensor, gram: Tensor, mask: Tensor) -> Tensor:
    return sparsegpt_prune(weight, gram, mask=mask)[0]


COMPENSATIONS: Mapping[str, Update] = {"obs": obs_update, "sparsegpt": _swept}
"""By criterion: ``(weight, gram, mask) -> weight`` of one matrix. So a plan's replay computes what its maker did."""


def sweep_model(
    model: nn.Module, shares: Mapping[str, float], alive: Mapping[str, Tensor], examples: Examples
) -> tuple[dict[str, tuple[Tensor, Tensor]], list[str]]:
    """Return, by weight, its saliency and which of its numbers SparseGPT keeps, and notes; ``model`` is pruned on the way.

    Args:
        shares: the share of each weight that stays, of all that it once had.
        alive: what earlier rounds left, True.
    """
    chosen: dict[str, tuple[Tensor, Tensor]] = {}
    notes = []
    layers = {name: layer for name, layer in layers_in_order(model, examples).items() if _weight_of(name) in shares}
    for name, layer, moments in moments_in_order(model, layers, examples):
        weight, allowed = matrices(layer), matrices(layer, alive[_weight_of(name)])
        new, keep, saliency = torch.empty_like(weight), torch.empty_like(allowed), torch.empty_like(weight)
        for group, (matrix, gram) in enumerate(zip(weight, moments.mean_gram, strict=True)):
            factor = inverse_factor(gram, 0.01)
            saliency[group] = (matrix / factor.diagonal()).square()
            new[group], keep[group] = sparsegpt_prune(
                matrix, gram, keep_fraction=shares[_weight_of(name)], allowed=allowed[group], factor=factor
            )
        set_matrices(layer, new)
        chosen[_weight_of(name)] = from_matrices(layer, saliency), from_matrices(layer, keep)
    for name, parameter in model.named_parameters():
        if name in shares and name not in chosen:
            notes.append(f"{name}: no layer was seen to multiply with it, so it is judged by magnitude")
            size = parameter.detach().abs().masked_fill(~alive[name], -1).reshape(1, -1)
            mask = keep_top(size, keep_fraction=shares[name], within="matrix").view_as(parameter)
            chosen[name] = parameter.detach().abs(), mask & alive[name]
    return chosen, notes


def _weight_of(layer: str) -> str:
    return f"{layer}.weight" if layer else "weight"
