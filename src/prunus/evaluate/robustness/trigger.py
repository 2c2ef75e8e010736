"""What is a trigger: a patch that is laid over inputs, from a file, or a function that changes them?

What a trigger does to a model is only measured: nothing here takes a backdoor out, and what pruning leaves of one differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prunus.core.code.imports import call, is_reference, resolve
from prunus.core.errors import DataError, RecipeError

__all__ = ["Trigger", "read_trigger"]


@dataclass(frozen=True)
class Trigger:
    """Changes inputs as the data have them, ``(n, ...)``; ``name`` is where it came from."""

    name: str
    change: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the inputs with the trigger.

        Raises:
            DataError: it doesn't fit them, or gives something else back.
        """
        made = self.change(x)
        if not isinstance(made, Tensor) or made.shape != x.shape or not bool(made.isfinite().all()):
            got = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise DataError(f"trigger {self.name}: expected finite inputs of shape {tuple(x.shape)} back, got {got}")
        return made.to(x.dtype)


def read_trigger(given: str) -> Trigger:
    """Return the trigger in a ``.npy`` file, or what ``module:function`` makes of inputs.

    An array has the shape of one input, or less: then it lies at the end of each dimension, in an image's lower right corner. NaN
    leaves what is there. A function takes a batch of inputs and returns it changed; it is imported, since you named it.

    Raises:
        DataError: the file can't be read as an array of numbers.
        RecipeError: there is no such function.
    """
    if is_reference(given) and not Path(given).exists():
        function = resolve(given, error=RecipeError)

        def changed(x: Tensor) -> Tensor:
            made: Tensor = call(_Given(function), {"inputs": x.clone()}, what=given, key="--trigger", error=DataError)
            return made

        return Trigger(given, changed)
    try:
        patch = np.load(Path(given), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"trigger {given}: expected a .npy file with an array of numbers, got {error}") from error
    if not isinstance(patch, np.ndarray) or patch.dtype.kind not in "fiub" or patch.ndim == 0:
        raise DataError(f"trigger {given}: expected an array of numbers in a .npy file, got {type(patch).__name__}")
    values = torch.from_numpy(patch.astype(np.float64))
    return Trigger(given, lambda x: _laid_over(x, values, given))


class _Given:
    """A function of one batch, whatever its argument is called."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function

    def __call__(self, inputs: Tensor) -> object:
        return self.function(inputs)


def _laid_over(x: Tensor, patch: Tensor, name: str) -> Tensor:
    missing = x.ndim - 1 - patch.ndim
    shape = (*[1] * missing, *patch.shape)
    one = x.shape[1:]
    if missing < 0 or any(a > b for a, b in zip(shape, one, strict=True)):
        raise DataError(
            f"trigger {name}: expected a patch no larger than an input, {tuple(one)}, got {tuple(patch.shape)}"
        )
    at = (slice(None), *(slice(size - extent, size) for size, extent in zip(one, shape, strict=True)))
    if missing:
        at = (slice(None), *[slice(None)] * missing, *at[1 + missing :])
    changed = x.clone()
    kept = patch.isnan()
    changed[at] = torch.where(kept, changed[at].double(), patch.nan_to_num()).to(x.dtype)
    return changed
