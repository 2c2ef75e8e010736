"""Is what a loss gave one finite number that has a gradient?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunus.core.errors import ModelError, RunError

if TYPE_CHECKING:
    from prunus.data import Batch

__all__ = ["checked"]


def checked(value: object, batch: Batch) -> Tensor:
    """Return a loss as a scalar.

    Raises:
        ModelError: it isn't one number, or has no gradient.
        RunError: it isn't finite.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(type(value).__name__)
        raise ModelError(f"the loss must be one number, the mean over the batch: got {got}")
    if not value.requires_grad:
        raise ModelError(
            "the loss has no gradient: it was computed under no_grad, detached, or by an operation like argmax that isn't "
            "differentiable; use a criterion that needs no gradient, such as magnitude_l2, or another loss"
        )
    if not torch.isfinite(value.detach()).all():
        raise RunError(
            f"the loss on the calibration batch that starts at example {int(batch.index[0])} must be finite: got {value.item()}; "
            "look for NaN in the weights or inputs"
        )
    return value.reshape(())
