"""Which weights of a parameter belong together, and which N of every M stay?

A parameter is read as a matrix of outputs x inputs. The inputs of a convolution are ordered by kernel position, and by channel
inside it, as kernels for channels-last tensors read them: M weights in a row are M input channels at one position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from prunus.core.errors import ModelError, RunError
from prunus.core.types import Bools, Floats, Ints
from prunus.core.units import Mask

__all__ = ["best_of_each", "tile"]


def tile(shape: Sequence[int], mask: Mask, *, inputs: tuple[int, int] = (1, 1), name: str = "the parameter") -> Ints:
    """Return the flat positions of the weights in each tile.

    Args:
        shape: of the parameter, as it is stored.
        mask: how it is tiled.
        inputs: which dimension counts the input channels, and into how many groups of a grouped convolution it is cut.
        name: for the message.

    Shapes:
        ``(tiles, weights in a tile)``; tiles are numbered row by row, and inside one the weights too.

    Raises:
        ModelError: the rows or the columns of a tile don't divide what there is.

    >>> tile((2, 4), Mask("n_m", 1, 2)).tolist()
    [[0, 1], [2, 3], [4, 5], [6, 7]]
    >>> tile((2, 2, 1, 2), Mask("n_m", 1, 2)).tolist()  # two input channels of a 1 x 2 kernel
    [[0, 2], [1, 3], [4, 6], [5, 7]]
    """
    dim, n_groups = inputs
    # (outputs, kernel positions, inputs), flattened to the matrix that the kernels see.
    order = np.moveaxis(np.arange(math.prod(shape), dtype=np.int64).reshape(shape), dim, -1)
    n_outputs, *_, n_inputs = order.shape
    rows, columns = mask.rows, mask.columns
    if n_outputs % rows or n_inputs % (n_groups * columns):
        which, step, there = (
            ("outputs", rows, n_outputs) if n_outputs % rows else ("inputs", columns, n_inputs // n_groups)
        )
        what = f"{mask.first}:{mask.second}" if mask.kind == "n_m" else f"blocks of {rows}x{columns}"
        raise ModelError(
            f"{name}: {what} need a number of {which} that {step} divides: got {there}; exclude the layer "
            f"(strategy.exclude), or round widths with round_to: {step} where channels are cut before"
        )
    blocks = order.reshape(n_outputs // rows, rows, -1, columns).swapaxes(1, 2)
    tiles: Ints = np.ascontiguousarray(blocks).reshape(-1, rows * columns)
    return tiles


def best_of_each(saliency: Floats, count: int) -> Bools:
    """Return which ``count`` of every row stay; on a tie the earlier one does.

    Shapes:
        Both are ``(rows, units)``.

    Raises:
        RunError: a saliency isn't finite.

    >>> best_of_each(np.array([[3.0, 1.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0]]), 2).astype(int).tolist()
    [[1, 0, 1, 0], [1, 1, 0, 0]]
    """
    if not np.isfinite(saliency).all():
        raise RunError("every saliency must be finite: look for NaN in the weights, or for a loss that diverged")
    order = np.argsort(-saliency, axis=1, kind="stable")
    keep = np.zeros(saliency.shape, np.bool_)
    np.put_along_axis(keep, order[:, :count], values=True, axis=1)
    return keep
