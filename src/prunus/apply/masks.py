"""How do zeros stay zero while a model goes on training?

A mask is True where a weight stays. Masks never replace parameters: they set numbers to zero in place, so that optimizers, tied
weights and state dicts see the model that they know.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from prunus.core.errors import ModelError, ShapeError, near

__all__ = ["Masks"]


class Masks:
    """Which weights of a model stay, by parameter name; all others are held at zero.

    Args:
        model: its parameters are changed in place by :meth:`enforce` and by guarded optimizers.
        keep: True where a weight stays; of the parameter's shape.

    Raises:
        ModelError: the model has no such parameter.
        ShapeError: a mask isn't boolean, or has another shape than its parameter.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> masks = Masks(layer, {"weight": torch.tensor([[True, False]])})
    >>> masks.enforce()
    >>> bool(layer.weight[0, 1] == 0), masks.keep_fraction
    (True, 0.5)
    """

    def __init__(self, model: nn.Module, keep: Mapping[str, Tensor]) -> None:
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._held: dict[str, tuple[nn.Parameter, Tensor]] = {}
        for name, mask in keep.items():
            if name not in parameters:
                raise ModelError(
                    f"a mask names the parameter {name!r}, which the model doesn't have; {near(name, parameters)}"
                )
            parameter = parameters[name]
            if mask.dtype != torch.bool or mask.shape != parameter.shape:
                raise ShapeError(
                    f"the mask of {name!r} must be boolean of shape {tuple(parameter.shape)}: "
                    f"got {mask.dtype} of shape {tuple(mask.shape)}"
                )
            self._held[name] = (parameter, ~mask.to(parameter.device))
        self._handles: list[RemovableHandle] = []

    @torch.no_grad()
    def enforce(self) -> None:
        """Set every weight that doesn't stay to zero, whatever it is (NaN too)."""
        for parameter, gone in self._held.values():
            parameter.masked_fill_(gone.to(parameter.device), 0)

    def guard(self, optimizer: Optimizer) -> None:
        """Hold the zeros through every step of ``optimizer``: neither momentum nor weight decay brings a weight back.

        Gradients of what is gone are set to zero as they arrive, so that gradient clipping measures only what lives. All hooks
        go when the optimizer does, or with :meth:`bake`.
        """
        self.enforce()
        handles = [optimizer.register_step_post_hook(self._after_step)]
        handles += [
            parameter.register_post_accumulate_grad_hook(_GradientMask(gone))  # type: ignore[no-untyped-call]
            for parameter, gone in self._held.values()
            if parameter.requires_grad
        ]
        self._handles += handles
        weakref.finalize(optimizer, _remove, handles[1:])

    def bake(self) -> None:
        """Set the zeros for good and take all hooks away: what is left is a plain model."""
        self.enforce()
        _remove(self._handles)
        self._handles.clear()

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """How many weights stay, of how many, by parameter name."""
        return {name: (gone.numel() - int(gone.sum()), gone.numel()) for name, (_, gone) in self._held.items()}

    @property
    def keep_fraction(self) -> float:
        """The share of the masked parameters' weights that stays; 1 when there are no masks."""
        kept, total = (sum(column) for column in zip(*self.counts.values(), strict=True)) if self._held else (1, 1)
        return kept / total if total else 1.0

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.enforce()


class _GradientMask:
    """Set the gradient of what is gone to zero."""

    def __init__(self, gone: Tensor) -> None:
        self.gone = gone

    def __call__(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            parameter.grad.masked_fill_(self.gone.to(parameter.grad.device), 0)


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
