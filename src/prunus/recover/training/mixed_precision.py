"""In which number format does training compute, and which machine can do it?

Parameters, their averages and the optimizer's state stay as they are (single precision, as a rule); only the forward and the
backward pass run in the shorter format. Half precision underflows in the gradients, so there the loss is scaled up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from prunus.core.errors import RecipeError
from prunus.recover.training.optimizers import clip_gradients

__all__ = ["Precision", "Scaled", "check_precision", "make_precision"]

Name = Literal["float32", "bfloat16", "float16"]


def check_precision(name: Name, device: torch.device, *, key: str = "train.precision") -> None:
    """Refuse a format that ``device`` can't train in; ``key`` is where the recipe says so.

    Raises:
        RecipeError: it names what would do.
    """
    if name == "float16" and device.type != "cuda":
        raise RecipeError(
            f"{key}: float16 trains on CUDA only, where its loss is scaled: got device {device}; use bfloat16 or float32"
        )
    able = device.type == "cpu" or (device.type == "cuda" and torch.cuda.is_bf16_supported())
    if name == "bfloat16" and not able:
        raise RecipeError(f"{key}: bfloat16 isn't there on device {device}; use float32, or float16 on CUDA")


def make_precision(name: Name, device: torch.device) -> Precision:
    """Return how to train in the format ``name``; ask ``check_precision`` before."""
    if name == "float16":
        return Scaled(device.type)
    return Precision(device.type, None if name == "float32" else torch.bfloat16)


class Precision:
    """Single precision, or a shorter format with the same range of exponents: no scaling."""

    def __init__(self, device: str, dtype: torch.dtype | None) -> None:
        self.device, self.dtype = device, dtype

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the block that a forward pass and its loss belong in."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device, self.dtype)

    def whole(self, outputs: Tensor) -> Tensor:
        """Return the outputs in single precision, which a loss needs."""
        return outputs if self.dtype is None or outputs.dtype != self.dtype else outputs.float()

    def backward(self, value: Tensor) -> None:
        """Add the gradients of ``value`` to those that are there."""
        value.backward()  # type: ignore[no-untyped-call]

    def step(
        self,
        optimizer: Optimizer,
        parameters: Sequence[Tensor],
        clip_norm: float | None,
        total: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Clip the gradients, and let ``optimizer`` take its step; see :func:`clip_gradients` for ``total``."""
        self.unscale(optimizer)
        if clip_norm is not None:
            clip_gradients(parameters, clip_norm, total)
        self.advance(optimizer)

    def unscale(self, optimizer: Optimizer) -> None:
        """Bring the gradients to their scale."""

    def advance(self, optimizer: Optimizer) -> None:
        """Let ``optimizer`` take its step."""
        optimizer.step()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""


class Scaled(Precision):
    """Half precision: the loss is scaled up, the gradients down; a step whose gradients overflowed is left out.

    References:
        Micikevicius et al., ICLR 2018, arXiv:1710.03740; the scale adapts as in ``torch.amp.GradScaler``.
    """

    def __init__(self, device: str) -> None:
        super().__init__(device, torch.float16)
        self.scaler = torch.amp.GradScaler(device)

    def backward(self, value: Tensor) -> None:
        """Add the scaled gradients of ``value`` to those that are there."""
        self.scaler.scale(value).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: Optimizer) -> None:
        """Bring the gradients back to their scale."""
        self.scaler.unscale_(optimizer)

    def advance(self, optimizer: Optimizer) -> None:
        """Take the step unless the gradients overflowed."""
        self.scaler.step(optimizer)
        self.scaler.update()

    def state(self) -> dict[str, Any]:
        """Return the scale and how long it has held."""
        return self.scaler.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Go on with a scale."""
        if state:
            self.scaler.load_state_dict(state)
