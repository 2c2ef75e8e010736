"""What does training minimise?

A loss is a function of the model's outputs and the batch that gives one number; it never sees the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from torch import Tensor
from torch.nn import functional

from prunus.core.errors import ShapeError

if TYPE_CHECKING:
    from prunus.data import Batch

    Loss = Callable[[Tensor, Batch], Tensor]
else:
    Loss = Callable[..., Tensor]

__all__ = ["Loss", "default_loss", "like_targets"]


def default_loss(task: Literal["classification", "regression"], label_smoothing: float = 0.0) -> Loss:
    """Return the mean cross-entropy (in nats) for classification, the mean squared error for regression.

    Shapes:
        The loss takes outputs ``(n, classes)`` with targets ``(n,)`` int64; for regression ``(n,)`` or ``(n, 1)`` with ``(n,)``.

    Raises:
        ShapeError: (when called) the outputs don't fit the targets.
    """
    return (
        _squared_error
        if task == "regression"
        else lambda outputs, batch: _cross_entropy(outputs, batch, label_smoothing)
    )


def _cross_entropy(outputs: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
    if outputs.ndim != 2 or outputs.shape[0] != batch.targets.shape[0]:
        raise ShapeError(
            f"a classifier's outputs must be ({batch.targets.shape[0]}, classes) for this batch: got {tuple(outputs.shape)}; "
            "let the model return one logit per class"
        )
    return functional.cross_entropy(outputs, batch.targets, label_smoothing=label_smoothing)


def _squared_error(outputs: Tensor, batch: Batch) -> Tensor:
    return functional.mse_loss(like_targets(outputs, batch.targets), batch.targets)


def like_targets(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return regression outputs in the shape of ``targets``: a last dimension of one goes.

    Raises:
        ShapeError: they don't fit. (Broadcasting ``(n, 1)`` against ``(n,)`` would silently compare everything with everything.)
    """
    if outputs.ndim == targets.ndim + 1 and outputs.shape[-1] == 1:
        outputs = outputs.squeeze(-1)
    if outputs.shape != targets.shape:
        raise ShapeError(
            f"a regression model's outputs must have the targets' shape {tuple(targets.shape)}: got {tuple(outputs.shape)}"
        )
    return outputs
