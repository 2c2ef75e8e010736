"""Which layers of a stack of blocks are pruned, and what in the blocks stays whole?"""

from __future__ import annotations

import fnmatch
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from prunus.recover import check_pattern, is_matrix_layer, matrices
from prunus.scale.blocks import Stack, run_once
from prunus.scale.experts import stacked_in

__all__ = ["LayerReport", "Layers", "layers_of", "left_whole"]

Layers = Mapping[str, nn.Module]
"""The layers of one block, by their names in the model."""


@dataclass(frozen=True)
class LayerReport:
    """What became of one layer; ``error`` is the share of its outputs' energy that was lost.

    It is NaN where the second moments of the inputs weren't needed: for ``magnitude`` and ``wanda`` without ``refit``. What stays
    whole in a block though nobody excluded it (a matrix in no layer) is there by its parameter's name, with all of it kept.
    """

    name: str
    kept: int
    total: int
    error: float


def layers_of(
    model: nn.Module, stack: Stack, batch: Any, exclude: Sequence[str], n_m: tuple[int, int] | None
) -> list[dict[str, nn.Module]]:
    """Return the layers of each block that are pruned: linear ones, convolutions, and experts stacked in one parameter.

    Args:
        batch: shows how the experts are read.
        exclude: name patterns of layers (for experts: of the parameter or its module) that stay whole.

    Raises:
        RecipeError: M of ``n_m`` doesn't divide a layer's inputs.
    """
    found: list[dict[str, nn.Module]] = []
    loose: list[dict[str, nn.Parameter]] = []
    for number, block in enumerate(stack.blocks):
        named = {f"{stack.entry(number)}.{path}".removesuffix("."): module for path, module in block.named_modules()}
        found.append({name: m for name, m in named.items() if _is_layer(m) and not _matches(name, exclude)})
        loose.append({name: p for name, p in _unheld(stack, number, found[-1], exclude).items() if p.dim() == 3})
    if any(loose):
        stacked = stacked_in(dict(ChainMap(*loose)), lambda: run_once(model, batch))
        for layers, names in zip(found, loose, strict=True):
            layers.update({name: stacked[name] for name in names if name in stacked})
    if n_m is not None:
        for layers in found:
            for name, layer in layers.items():
                check_pattern(matrices(layer).shape[2], n_m, name)
    return found


def _is_layer(module: nn.Module) -> bool:
    """Tell whether a module's weight can be written: it isn't packed, and no hook or parametrization computes it anew."""
    weight = module._parameters.get("weight") if is_matrix_layer(module) else None
    return weight is not None and weight.is_floating_point()


def left_whole(stack: Stack, layers: Sequence[Layers], exclude: Sequence[str]) -> list[dict[str, nn.Parameter]]:
    """Return, for each block, the matrices that none of its layers holds and that nobody excluded, by their names."""
    return [_unheld(stack, number, mine, exclude) for number, mine in enumerate(layers)]


def _unheld(stack: Stack, number: int, layers: Layers, exclude: Sequence[str]) -> dict[str, nn.Parameter]:
    held = {id(layer.get_parameter("weight")) for layer in layers.values()}
    named = {f"{stack.entry(number)}.{name}": weight for name, weight in stack.blocks[number].named_parameters()}
    return {
        name: weight
        for name, weight in named.items()
        if weight.dim() > 1
        and id(weight) not in held
        and not _matches(name, exclude)
        and not _matches(name.rpartition(".")[0], exclude)
    }


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
