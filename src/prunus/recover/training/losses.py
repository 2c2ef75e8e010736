"""What does training minimise?

A loss is a function of the model's outputs and the batch that gives one number; it never sees the model. A training step is a
user's own way from the model and a batch to that number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
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

__all__ = [
    "Loss",
    "Shares",
    "TrainingStep",
    "bound",
    "default_loss",
    "given_loss",
    "guarded",
    "named_loss",
    "share_of",
    "unlearnt",
]


class Shares:
    """A loss that says how much of a batch's loss each of its parts is."""

    def share(self, part: Batch, whole: Batch) -> Tensor | float:
        """Return the part's share: the losses of all parts times their shares add up to the loss of the whole batch."""
        return len(part.index) / len(whole.index)


def share_of(loss: Any, part: Batch, whole: Batch) -> Tensor | float:
    """Return how much of a batch's loss that of a part is; a function that says nothing gives a mean over examples."""
    if len(part.index) == len(whole.index):
        return 1.0
    return (loss if isinstance(loss, Shares) else Shares()).share(part, whole)


def _ratio(part: Tensor | float, whole: Tensor | float) -> Tensor | float:
    """Return the ratio of two weights, 0 of nothing; nothing waits for the device."""
    if not isinstance(part, Tensor) or not isinstance(whole, Tensor):
        return float(part) / float(whole)
    exact = torch.float32 if whole.device.type == "mps" else torch.float64
    return part.to(exact) / whole.to(exact).clamp(min=torch.finfo(torch.float32).tiny)


@dataclass(frozen=True)
class _OfTask(Shares):
    """The loss of a task itself."""

    task: Task

    def __call__(self, outputs: Any, batch: Batch) -> Tensor:
        return self.task.loss(outputs, batch)

    def share(self, part: Batch, whole: Batch) -> Tensor | float:
        return _ratio(self.task.weight_of(part), self.task.weight_of(whole))


def default_loss(task: Task, label_smoothing: float = 0.0) -> Loss:
    """Return the task's own loss, of classes with ``label_smoothing``."""
    return _OfTask(replace(task, label_smoothing=label_smoothing) if isinstance(task, Classification) else task)


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
class _OfTargets(Shares):
    """A module as a loss of outputs and a batch."""

    module: nn.Module

    def __call__(self, outputs: Any, batch: Batch) -> Any:
        return self.module(answer(outputs), batch.targets)

    def share(self, part: Batch, whole: Batch) -> Tensor | float:
        if getattr(self.module, "reduction", None) == "sum":
            return 1.0
        if isinstance(self.module, nn.CrossEntropyLoss | nn.NLLLoss) and not whole.targets.is_floating_point():
            return _ratio(*(self._weight(batch.targets) for batch in (part, whole)))
        return super().share(part, whole)

    def _weight(self, targets: Tensor) -> Tensor:
        """Return what PyTorch takes the mean over: the weights of the targets' classes, without what is ignored."""
        counted: Tensor = torch.ne(targets, self.module.ignore_index)  # type: ignore[arg-type]
        weight = self.module.weight
        if not isinstance(weight, Tensor):
            return counted.sum()
        return weight[targets.where(counted, 0)].where(counted, 0).sum()


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
class _Guarded(Shares):
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

    def share(self, part: Batch, whole: Batch) -> Tensor | float:
        return share_of(self.function, part, whole)


def unlearnt(loss: Any) -> list[str]:
    """Return the names of a loss module's own parameters, which no training here moves."""
    while isinstance(loss, _Guarded | _OfTargets):
        loss = loss.function if isinstance(loss, _Guarded) else loss.module
    return (
        [name for name, value in loss.named_parameters() if value.requires_grad] if isinstance(loss, nn.Module) else []
    )


def bound(training_step: TrainingStep, model: nn.Module) -> Loss:
    """Return a training step of ``model`` as a loss: it runs the model anew and doesn't look at the outputs."""
    return _Bound(training_step, model)


@dataclass(frozen=True)
class _Bound:
    training_step: TrainingStep
    model: nn.Module

    def __call__(self, outputs: Any, batch: Batch) -> Tensor:
        return self.training_step(self.model, batch)
