"""What can be said of each example's gradient by the weights of some layers, without writing it out?

A linear layer's gradient for one example is the sum over positions of outer products: the loss's slope by what the layer gives
(its *error*) times what the layer reads. Inner products with a matrix, and norms, need the two factors and never the product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from prunus.core.batch import Batch
from prunus.core.calls import arguments, described
from prunus.core.errors import ModelError, NotFiniteError, ShapeError
from prunus.tasks import Task

__all__ = [
    "LayerGradients",
    "LayerWatch",
    "checked_losses",
    "has_closed_norms",
    "in_evaluation",
    "last_layers",
    "parameters_of",
]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MOST_NUMBERS = 2**24
"""Products between the positions of some examples, or outer products of some examples, that may be there at once."""


@dataclass(frozen=True)
class LayerGradients:
    """What one layer read in one call, and the slopes of each example's loss by what it gave.

    Shapes:
        ``inputs`` ``(n, ..., fan_in)`` and ``errors`` ``(n, ..., fan_out)`` of a linear layer; ``(n, channels, ...)`` of a
        convolution.
    """

    layer: nn.Module
    inputs: Tensor
    errors: Tensor

    def along(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the inner product of each example's gradient with a direction, ``(n,)``."""
        # The layer is linear in its weights, so with the direction in their place it gives the derivative of its outputs.
        moved = _given(self.layer, self.inputs, weight, bias)
        found: Tensor = torch.linalg.vecdot(moved.flatten(1), self.errors.flatten(1))
        return found

    def square_norms(self) -> Tensor:
        """Return the squared norm of each example's gradient, ``(n,)``."""
        inputs, errors = _positions(self.layer, self.inputs), _positions_of_errors(self.layer, self.errors)
        one = 0.0 if self.layer.bias is None else 1.0
        n, n_positions, fan_in = inputs.shape
        if n_positions == 1:
            return errors.square().sum(dim=(1, 2)) * (inputs.square().sum(dim=(1, 2)) + one)
        fan_out = errors.shape[2]
        by_pairs = n_positions**2 <= fan_in * fan_out
        at_once = max(_MOST_NUMBERS // (n_positions**2 if by_pairs else fan_in * fan_out), 1)
        found = []
        for a, e in zip(torch.split(inputs, at_once), torch.split(errors, at_once), strict=True):
            if by_pairs:
                found.append(((a @ a.mT + one) * (e @ e.mT)).sum(dim=(1, 2)))
            else:
                found.append((e.mT @ a).square().sum(dim=(1, 2)) + one * e.sum(dim=1).square().sum(dim=1))
        return torch.cat(found) if found else inputs.new_zeros(n)


class LayerWatch:
    """Runs a model and tells the gradients of each example's loss by the weights of some of its layers, factor by factor."""

    def __init__(self, model: nn.Module, layers: Sequence[str], task: Task) -> None:
        self._model, self._task = model, task
        self._layers = {name: model.get_submodule(name) for name in layers}
        self._weights = {name: value.detach() for name, value in model.named_parameters()}
        self._copies = False

    def at(self, batch: Batch) -> list[tuple[str, LayerGradients]]:
        """Return what each call of a layer read and its errors, with the layer's name.

        Raises:
            ModelError: the loss doesn't hang on these layers, or isn't one number for each example.
            NotFiniteError: a loss isn't finite.
        """
        found = self._run(batch)
        if found is None:
            # The model writes into what a layer has read: it must be kept as it was.
            self._copies = True
            found = self._run(batch)
            assert found is not None
        return found

    def _run(self, batch: Batch) -> list[tuple[str, LayerGradients]] | None:
        calls: list[tuple[str, nn.Module, Tensor, int, Tensor]] = []

        def hook(name: str) -> Any:
            def keep(layer: nn.Module, given: tuple[Any, ...], outputs: Tensor) -> Tensor:
                read = given[0].detach()
                outputs = outputs if outputs.requires_grad else outputs.detach().requires_grad_()
                calls.append((name, layer, read.clone() if self._copies else read, read._version, outputs))
                return outputs.clone()  # which what follows may write into

            return keep

        handles = [layer.register_forward_hook(hook(name)) for name, layer in self._layers.items()]
        try:
            with torch.enable_grad():
                given, named = arguments(batch.inputs)
                losses = checked_losses(self._task, functional_call(self._model, self._weights, given, named), batch)
                if not losses.requires_grad or not calls:
                    raise ModelError(
                        f"the loss has no gradient by {', '.join(self._layers)}: they didn't run, or what follows can't be "
                        "differentiated"
                    )
                errors = torch.autograd.grad(losses.sum(), [call[-1] for call in calls], materialize_grads=True)
        finally:
            for handle in handles:
                handle.remove()
        if not self._copies and any(read._version != version for _, _, read, version, _ in calls):
            return None
        for name, _, read, _, _ in calls:
            if len(read) != len(batch.index):
                raise ModelError(
                    f"the layer {name} reads {len(read)} rows for {len(batch.index)} examples, and which are whose can't be told: "
                    "say layers=None for all weights of the model"
                )
        return [
            (name, LayerGradients(layer, read, error))
            for (name, layer, read, _, _), error in zip(calls, errors, strict=True)
        ]


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a block, so that no example hangs on the others of its batch."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def last_layers(model: nn.Module, batch: Batch, n_layers: int) -> tuple[str, ...]:
    """Return the names of the last so many linear and convolutional layers that run, first to last.

    Raises:
        ModelError: fewer run.
    """
    ran: list[str] = []

    def remember(name: str) -> Any:
        def note(layer: nn.Module, given: tuple[Any, ...], outputs: Any) -> None:
            if name in ran:
                ran.remove(name)
            ran.append(name)

        return note

    kinds = (nn.Linear, *_CONVOLUTIONS)
    handles = [
        module.register_forward_hook(remember(name))
        for name, module in model.named_modules()
        if isinstance(module, kinds) and isinstance(module._parameters.get("weight"), nn.Parameter)
    ]
    try:
        with torch.no_grad():
            given, named = arguments(batch.inputs)
            model(*given, **named)
    finally:
        for handle in handles:
            handle.remove()
    if n_layers < 1 or len(ran) < n_layers:
        raise ModelError(
            f"gradients of the last {n_layers} layers need so many linear or convolutional layers that run: the model ran "
            f"{len(ran)}; say layers=None for all of its weights"
        )
    return tuple(ran[-n_layers:])


def parameters_of(model: nn.Module, layers: Sequence[str] | None) -> dict[str, Tensor]:
    """Return the weights of some layers by their names, or all that are trained (all of a model that is frozen), detached."""
    if layers is not None:
        own = {
            f"{name}.{key}": value for name in layers for key, value in model.get_submodule(name)._parameters.items()
        }
        return {name: value.detach() for name, value in own.items() if value is not None}
    floating = {name: value for name, value in model.named_parameters() if value.is_floating_point()}
    trained = {name: value for name, value in floating.items() if value.requires_grad}
    return {name: value.detach() for name, value in (trained or floating).items()}


def has_closed_norms(layer: nn.Module) -> bool:
    """Tell whether the norm of a layer's gradient is told from its two factors."""
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear)


def checked_losses(task: Task, outputs: Any, batch: Batch) -> Tensor:
    """Return the loss of each example.

    Raises:
        ModelError: the task's model tells one loss for the batch.
        ShapeError: it isn't one number for each example.
        NotFiniteError: one isn't finite.
    """
    if task.told_by_model:
        raise ModelError(
            f"the task {task.name} has no loss of each example, because its model gives that of the batch: gradients of "
            "examples can't be told"
        )
    losses = task.losses(outputs, batch)
    if tuple(losses.shape) != (len(batch.index),):
        raise ShapeError(f"expected one loss for each of {len(batch.index)} examples: got {described(losses)}")
    bad = (~losses.detach().isfinite()).nonzero().flatten()
    if len(bad):
        raise NotFiniteError(
            f"the loss of example {int(batch.index[int(bad[0])])} is {losses[int(bad[0])].item():g}: look for NaN in its "
            "inputs or in the weights"
        )
    return losses


def _given(layer: nn.Module, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return what a layer would give with other weights."""
    if isinstance(layer, nn.Linear):
        linear: Tensor = functional.linear(inputs, weight, bias)
        return linear
    assert isinstance(layer, _CONVOLUTIONS)
    convolved: Tensor = layer._conv_forward(inputs, weight, bias)
    return convolved


def _positions(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return ``(n, positions, fan_in)``."""
    if isinstance(layer, nn.Conv2d):
        windows = functional.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
        return windows.mT
    return inputs.reshape(len(inputs), -1, inputs.shape[-1])


def _positions_of_errors(layer: nn.Module, errors: Tensor) -> Tensor:
    """Return ``(n, positions, fan_out)``."""
    if isinstance(layer, nn.Conv2d):
        return errors.flatten(2).mT
    return errors.reshape(len(errors), -1, errors.shape[-1])
