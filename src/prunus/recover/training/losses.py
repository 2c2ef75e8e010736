"""What does training minimise?

A loss is a function of the model's outputs and the batch that gives one number; it never sees the model. A training step is a
user's own way from the model and a batch to that number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from prunus.core.calls import answer
from prunus.core.code.imports import one_line, resolve
from prunus.core.errors import ModelError, PrunusError, RecipeError, raise_if_out_of_memory
from prunus.tasks import Classification, Task

if TYPE_CHECKING:
    from prunus.core.batch import Batch

    Loss = Callable[[Tensor, Batch], Tensor]
    TrainingStep = Callable[[nn.Module, Batch], Tensor]
else:
    Loss = Callable[..., Tensor]
    TrainingStep = Callable[..., Tensor]

__all__ = ["Loss", "TrainingStep", "bound", "default_loss", "given_loss", "guarded", "named_loss"]


def default_loss(task: Task, label_smoothing: float = 0.0) -> Loss:
    """Return the task's own loss, of classes with ``label_smoothing``."""
    return (replace(task, label_smoothing=label_smoothing) if isinstance(task, Classification) else task).loss


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
    return guarded(_OfTargets(function) if isinstance(function, nn.Module) else function, what)


@dataclass(frozen=True)
class _OfTargets:
    """A module as a loss of outputs and a batch."""

    module: nn.Module

    def __call__(self, outputs: Any, batch: Batch) -> Any:
        return self.module(answer(outputs), batch.targets)


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

    return _Guarded(function, what)


@dataclass(frozen=True)
class _Guarded:
    """A user's function, whose failures come as one line. No closures here: a loss goes to the other ranks of a training."""

    function: Callable[..., Any]
    what: str

    def __call__(self, *given: Any) -> Tensor:
        try:
            value: Tensor = self.function(*given)
        except PrunusError:
            raise
        except Exception as failure:
            raise_if_out_of_memory(failure)
            raise ModelError(f"{self.what} failed: {one_line(failure)}; correct it there") from failure
        return value


def bound(training_step: TrainingStep, model: nn.Module) -> Loss:
    """Return a training step of ``model`` as a loss: it runs the model anew and doesn't look at the outputs."""
    return _Bound(training_step, model)


@dataclass(frozen=True)
class _Bound:
    training_step: TrainingStep
    model: nn.Module

    def __call__(self, outputs: Any, batch: Batch) -> Tensor:
        return self.training_step(self.model, batch)
