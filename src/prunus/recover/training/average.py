"""How are parameters averaged over a training, so that the result varies less?

An average follows the parameters step by step or epoch by epoch and replaces them at the end. Buffers aren't averaged: the
running statistics of batch norm belong to the old parameters, so they are measured anew on the training examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunus.core.calls import call
from prunus.core.recipes import recipe
from prunus.recover.training.step import parts_named
from prunus.recover.training.training_batches import training_batches

if TYPE_CHECKING:
    from prunus.data import Examples

__all__ = ["ExponentialAverage", "NoAverage", "Running", "StochasticAverage", "make_average", "recompute_batch_norm"]


class Running(Protocol):
    """What the training loop asks of an average; ``state`` goes through a checkpoint."""

    def after_step(self) -> None:
        """Take the parameters in after an optimizer step."""

    def after_epoch(self, epoch: int) -> None:
        """Take the parameters in after ``epoch`` (0, 1, ...)."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep."""

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""

    def finish(self) -> bool:
        """Write the average into the parameters; return whether they changed."""


def make_average(parameters: Sequence[Tensor], config: recipe.Average, epochs: int) -> Running:
    """Return the average that ``config`` names, over ``parameters``, for a training of ``epochs``."""
    if config.kind == "ema":
        return ExponentialAverage(parameters, config.decay)
    if config.kind == "swa":
        return StochasticAverage(parameters, first=max(0, epochs - config.last))
    return NoAverage()


class NoAverage:
    """The last parameters, as they are."""

    def after_step(self) -> None:
        """Do nothing."""

    def after_epoch(self, epoch: int) -> None:
        """Do nothing."""

    def state(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Do nothing."""

    def finish(self) -> bool:
        """Leave the parameters."""
        return False


class _Kept:
    """The averaged copies, and how many times they were updated."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = [parameter.detach() for parameter in parameters]
        self.averages = [parameter.clone() for parameter in self.parameters]
        self.n_updates = 0

    def _move(self, share: float) -> None:
        torch._foreach_lerp_(self.averages, self.parameters, share)
        self.n_updates += 1

    def state(self) -> dict[str, Any]:
        """Return the averages and the count."""
        return {"averages": self.averages, "n_updates": self.n_updates}

    def load(self, state: dict[str, Any]) -> None:
        """Copy the averages and the count back."""
        torch._foreach_copy_(self.averages, state["averages"])
        self.n_updates = int(state["n_updates"])

    def finish(self) -> bool:
        """Copy the averages into the parameters."""
        if self.n_updates == 0:
            return False
        torch._foreach_copy_(self.parameters, self.averages)
        return True


class ExponentialAverage(_Kept):
    """``average = d * average + (1 - d) * parameters`` after every step.

    The decay ``d`` rises as ``min(decay, (1 + step) / (10 + step))``, so that a short training isn't held back by its start.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        super().__init__(parameters)
        self.decay = decay

    def after_step(self) -> None:
        """Move the average towards the parameters."""
        step = self.n_updates + 1
        self._move(1 - min(self.decay, (1 + step) / (10 + step)))

    def after_epoch(self, epoch: int) -> None:
        """Do nothing: every step was taken in."""


class StochasticAverage(_Kept):
    """The plain mean of the parameters at the end of each epoch from ``first`` on.

    References:
        Izmailov et al., UAI 2018, arXiv:1803.05407. The learning rate keeps its own schedule here.
    """

    def __init__(self, parameters: Sequence[Tensor], *, first: int) -> None:
        super().__init__(parameters)
        self.first = first

    def after_step(self) -> None:
        """Do nothing: only the ends of epochs count."""

    def after_epoch(self, epoch: int) -> None:
        """Take the parameters into the mean."""
        if epoch >= self.first:
            self._move(1 / (self.n_updates + 1))


def recompute_batch_norm(
    model: nn.Module,
    examples: Examples,
    *,
    batch_size: int = 256,
    generator: torch.Generator | None = None,
    still: Sequence[str] = (),
) -> int:
    """Measure the running statistics of every batch norm anew over ``examples``; return how many layers there were.

    Each layer's statistics become the plain mean over the batches; all other layers are in evaluation mode meanwhile, and the
    model is left in it. Give a ``generator`` for shuffled batches: batches of one class each would understate the variance.
    The parts that ``still`` names keep theirs.
    """
    kept = {id(module) for part in parts_named(model, still) for module in part.modules()}
    layers = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats and id(module) not in kept
    ]
    model.eval()
    if not layers or len(examples) < 2:
        return len(layers)
    with _cumulative(layers), torch.no_grad():
        for layer in layers:
            layer.reset_running_stats()
            layer.train()
        for batch in training_batches(examples, max(2, batch_size), generator):
            call(model, batch.inputs)
    model.eval()
    return len(layers)


@contextmanager
def _cumulative(layers: Sequence[_BatchNorm]) -> Iterator[None]:
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = None
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
