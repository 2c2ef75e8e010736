"""What does training minimise?

A loss is a function of the model's outputs and the batch that gives one number; it never sees the model. A training step is a
user's own way from the model and a batch to that number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from prunus.core.code.imports import one_line, resolve
from prunus.core.errors import ModelError, PrunusError, RecipeError, ShapeError

if TYPE_CHECKING:
    from prunus.data import Batch

    Loss = Callable[[Tensor, Batch], Tensor]
    TrainingStep = Callable[[nn.Module, Batch], Tensor]
else:
    Loss = Callable[..., Tensor]
    TrainingStep = Callable[..., Tensor]

__all__ = ["Loss", "TrainingStep", "bound", "default_loss", "given_loss", "guarded", "like_targets", "named_loss"]


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


def named_loss(reference: str, *, key: str) -> Loss:
    """Return the loss that ``module:function`` names; ``key`` is where the recipe says so.

    Raises:
        RecipeError: there is no such function.
    """
    try:
        return given_loss(resolve(reference, error=RecipeError), f"{key} {reference}")
    except RecipeError as error:
        raise RecipeError(f"{key}: {error}") from error


def given_loss(function: Any, what: str) -> Loss:
    """Return a user's loss of outputs and a batch, guarded; a module (``nn.CrossEntropyLoss``) is one of outputs and targets.

    Raises:
        RecipeError: it can't be called.
        ModelError: (when called) it failed.
    """
    if isinstance(function, nn.Module):
        return guarded(lambda outputs, batch: function(outputs, batch.targets), what)
    return guarded(function, what)


def guarded(function: Any, what: str) -> Callable[..., Tensor]:
    """Return a user's ``function`` so that what it raises comes as one line that begins with ``what``.

    Raises:
        RecipeError: it can't be called.
        ModelError: (when called) it failed.
    """
    if not callable(function):
        raise RecipeError(
            f"{what} must be a function that returns one number to minimise: got {type(function).__name__}"
        )

    def call(*given: Any) -> Tensor:
        try:
            value: Tensor = function(*given)
        except PrunusError:
            raise
        except Exception as failure:
            raise ModelError(f"{what} failed: {one_line(failure)}; correct it there") from failure
        return value

    return call


def bound(training_step: TrainingStep, model: nn.Module) -> Loss:
    """Return a training step of ``model`` as a loss: it runs the model anew and doesn't look at the outputs."""
    return lambda outputs, batch: training_step(model, batch)
