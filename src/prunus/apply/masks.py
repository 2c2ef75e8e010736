"""How do zeros stay zero while a model goes on training?

A mask is True where a weight stays. Masks never replace parameters: they set numbers to zero in place, so that optimizers, tied
weights and state dicts see the model that they know. They look a parameter up where it lies whenever they touch it: one that
``fully_shard`` put into parts since (FSDP2) is held in its parts.
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
from prunus.core.structures.tensor_parts import is_sharded, local, part_like

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

    shards = True

    def __init__(self, model: nn.Module, keep: Mapping[str, Tensor]) -> None:
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._held: dict[str, tuple[nn.Module, str, Tensor]] = {}
        self._parts: dict[str, tuple[Tensor, Tensor]] = {}
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
            path, _, last = name.rpartition(".")
            self._held[name] = (model.get_submodule(path), last, ~mask.to(parameter.device))
        self._handles: list[RemovableHandle] = []

    @torch.no_grad()
    def enforce(self) -> None:
        """Set every weight that doesn't stay to zero, whatever it is (NaN too)."""
        for name in self._held:
            parameter, gone = self._now(name)
            local(parameter).masked_fill_(gone, 0)

    def guard(self, optimizer: Optimizer) -> None:
        """Hold the zeros through every step of ``optimizer``: neither momentum nor weight decay brings a weight back.

        Gradients of what is gone are set to zero as they arrive, so that gradient clipping measures only what lives. All hooks
        go when the optimizer does, or with :meth:`bake`.
        """
        self.enforce()
        handles = [optimizer.register_step_post_hook(self._after_step)]
        handles += [
            parameter.register_post_accumulate_grad_hook(_GradientMask(gone))
            for parameter, gone in map(self._now, self._held)
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
        return {name: (gone.numel() - int(gone.sum()), gone.numel()) for name, (_, _, gone) in self._held.items()}

    @property
    def keep_fraction(self) -> float:
        """The share of the masked parameters' weights that stays; 1 when there are no masks."""
        kept, total = (sum(column) for column in zip(*self.counts.values(), strict=True)) if self._held else (1, 1)
        return kept / total if total else 1.0

    def _now(self, name: str) -> tuple[Any, Tensor]:
        """Return the parameter that has this name now, and what is gone of the part of it that lies here."""
        module, last, gone = self._held[name]
        parameter = module._parameters[last]
        assert parameter is not None
        if not is_sharded(parameter):
            return parameter, gone.to(parameter.device)
        known = self._parts.get(name)
        if known is None or known[0] is not parameter:
            known = self._parts[name] = parameter, part_like(gone, parameter)
        return known

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.enforce()


class _GradientMask:
    """Set the gradient of what is gone to zero."""

    def __init__(self, gone: Tensor) -> None:
        self.gone = gone

    def __call__(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            gradient = local(parameter.grad)
            gradient.masked_fill_(self.gone.to(gradient.device), 0)


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
