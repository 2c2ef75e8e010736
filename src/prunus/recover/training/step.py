"""What is one optimizer step: which batches, which loss, which gradients?

A step may be worth several batches (``accumulate``): their losses are weighted by what each is a mean over (examples, tokens), so
the gradient is that of all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.core.calls import answers, call, map_tensors
from prunus.core.errors import ModelError
from prunus.core.recipes.recipe import Train
from prunus.recover.training.losses import Loss, TrainingStep, share_of
from prunus.recover.training.mixed_precision import Precision
from prunus.recover.training.ranks.together import Alone
from prunus.recover.training.training_batches import parts_of

if TYPE_CHECKING:
    from prunus.data import Batch

    See = Callable[[Batch, Any, int], None]
else:
    See = Callable[..., None]

__all__ = ["Stepper", "check_loss", "parts_named"]


@dataclass
class Stepper:
    """How one step is taken: by ``training_step`` if there is one, else by ``loss`` of the model's outputs."""

    model: nn.Module
    config: Train
    stage: str
    loss: Loss
    training_step: TrainingStep | None
    parameters: Sequence[nn.Parameter]
    optimizer: Optimizer
    precision: Precision
    ranks: Alone = field(default_factory=Alone)
    still: tuple[str, ...] = ()

    def begin(self) -> None:
        """Put the model into training mode, but for the parts that stay in evaluation mode."""
        self.model.train()
        for module in parts_named(self.model, self.still):
            module.eval()

    def take(self, batch: Batch, rate: float, see: See, *, check: bool) -> Tensor:
        """Take one step at learning rate ``rate``, and return this process's share of its loss, the mean over ``batch``.

        Args:
            see: gets each part of the batch, its detached outputs (a training step of the user's shows none), and how many of its
                examples count: 0 where others have them all.
            check: look whether the loss is one number that has a gradient.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        seen: list[tuple[Batch, Any, int]] = []
        losses = []
        for whole in parts_of(batch, self.config.batch_size):
            part, n = self.ranks.own(whole)
            with self.precision.autocast(), self.ranks.forward(self.model, counts=n > 0):
                value, outputs = self._value(part)
            if check:
                check_loss(value, self.stage)
            weighted = value * share_of(self.loss, part, batch) if n else _nothing(value, outputs)
            self.precision.backward(weighted if self.ranks.scale == 1 else weighted * self.ranks.scale)
            losses.append(weighted.detach())
            if outputs is not None:
                seen.append((part, map_tensors(lambda value: value.detach(), outputs), n))
        for parameter in self.parameters:
            if (
                parameter.grad is not None and parameter.grad.is_sparse
            ):  # of an embedding that says so; no optimizer here does
                parameter.grad = parameter.grad.to_dense()
        self.ranks.add_up(self.parameters)
        total = self.ranks.total if self.ranks.sharded else None
        self.precision.step(self.optimizer, self.parameters, self.config.clip_norm, total)
        for part, shown, n in seen:
            see(part, shown, n)
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum(dim=0)

    @torch.no_grad()
    def look(self, batch: Batch) -> float:
        """Return the loss of a batch as a step would see it, which moves nothing: statistics, too, are as they were."""
        held = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        seen = next(parts_of(batch, self.config.batch_size))
        part, n = self.ranks.own(seen)
        with self.precision.autocast(), self.ranks.forward(self.model, counts=n > 0):
            value, _ = self._value(part)
        for buffer, before in held:
            buffer.copy_(before)
        return float(self.ranks.total(value * share_of(self.loss, part, seen) if n else torch.zeros_like(value)))

    def _value(self, batch: Batch) -> tuple[Tensor, Any]:
        if self.training_step is not None:
            return self.training_step(self.model, batch), None
        outputs = map_tensors(self.precision.whole, self._forward(batch))
        return self.loss(outputs, batch), outputs

    def _forward(self, batch: Batch) -> Any:
        try:
            outputs = call(self.model, batch.inputs)
        except ValueError as error:
            if "more than 1 value per channel" in str(error):
                raise ModelError(
                    f"{self.stage}: batch norm can't train on a batch of one example: got batch_size {self.config.batch_size}; "
                    "use a batch_size of at least 2 and more examples"
                ) from error
            raise
        return outputs


def parts_named(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Return the parts of a model that have these names, also where its input features were cut, so that it lies in another."""
    return [module for name, module in model.named_modules() if name.removeprefix("inner.") in names]


def _nothing(value: Tensor, outputs: Any) -> Tensor:
    """Return zero, with the gradients of ``value``: a loss of examples that don't count may be none (0 / 0)."""
    if outputs is None:
        return value * 0
    return torch.stack([one.sum().to(value.dtype) * 0 for one in answers(outputs)]).sum()


def check_loss(value: object, stage: str) -> None:
    """Refuse what training can't minimise.

    Raises:
        ModelError: ``value`` isn't one number, or has no gradient.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ModelError(f"{stage}: the loss must be one number (a tensor with one element), got {got}")
    if not value.requires_grad:
        raise ModelError(
            f"{stage}: the loss doesn't depend on any parameter that can be trained (it has no gradient): "
            "look for a detach(), no_grad() or argmax in the model or the loss"
        )
