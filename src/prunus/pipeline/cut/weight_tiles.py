"""Into which tiles do N:M and blocks cut the weights of a model, and does every layer divide?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import nn

from prunus.apply import input_dims
from prunus.core.errors import RunError
from prunus.core.recipes.recipe import Strategy
from prunus.core.types import Bools, Ints, Stratum
from prunus.core.units import Mask, as_mask
from prunus.score import prunable_weights
from prunus.select import best_of_each, tile

__all__ = ["best_of_tiles", "check_tiles", "tiles_of"]


def tiles_of(model: nn.Module, exclude: Sequence[str], mask: Mask, *, only_small: bool = False) -> dict[str, Ints]:
    """Return, per parameter that may be pruned, the flat positions of the weights in each tile.

    Args:
        only_small: only parameters that are smaller than one tile, which no cut will make divide.

    Shapes:
        ``(tiles, weights in a tile)``; single weights are in the order of the parameter.

    Raises:
        ModelError: N:M or blocks don't divide a parameter.
    """
    dims, parameters = input_dims(model), dict(model.named_parameters())
    found = {}
    for name in prunable_weights(model, exclude):
        shape, inputs = tuple(parameters[name].shape), dims.get(name, (1, 1))
        if only_small and shape[1 - inputs[0]] >= mask.rows and shape[inputs[0]] // inputs[1] >= mask.columns:
            continue
        single = mask == Mask("block", 1, 1)
        found[name] = np.arange(math.prod(shape))[:, None] if single else tile(shape, mask, inputs=inputs, name=name)
    return found


def check_tiles(model: nn.Module, strategy: Strategy) -> None:
    """Find layers that N:M or blocks don't divide before anything is trained; widths that are cut before may still come to divide.

    Raises:
        ModelError: it names the layer.
    """
    mask = as_mask(strategy.granularity[-1])
    if mask is not None:
        tiles_of(model, strategy.exclude, mask, only_small=len(strategy.granularity) > 1)


def best_of_tiles(stratum: Stratum, tiles: Ints, count: int) -> Bools:
    """Return which weights stay when the best ``count`` of every tile do: ``(weights,)``.

    Raises:
        RunError: a saliency isn't finite.
    """
    keep = np.zeros(len(stratum.saliency), np.bool_)
    try:
        keep[tiles] = best_of_each(stratum.saliency[tiles], count)
    except RunError as error:
        raise RunError(f"{stratum.name}: {error}") from error
    return keep
