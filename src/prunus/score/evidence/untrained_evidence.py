"""What is measured on a network before it is trained: its flow, and what its gradient does to itself?

The Hessian-gradient product is the one piece of evidence that takes a second pass over the calibration set: the mean gradient
must be known before it is multiplied. The flow reads no example at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from prunus.core.calls import answers, arguments, call, map_tensors
from prunus.score.evidence.pieces import Sums

if TYPE_CHECKING:
    from prunus.data import Batch, Batched, Examples

    Loss = Callable[[Any, Batch], Tensor]

__all__ = ["hessian_gradient", "synaptic_flow"]


def hessian_gradient(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    gradient: Mapping[str, Tensor],
    batches: Iterable[Batch],
    loss: Loss,
) -> Sums:
    """Return the Hessian of the loss, summed over the examples, times the mean gradient: one double backward pass per batch.

    Raises:
        RuntimeError: an operation of the model has no second derivative.
    """
    wanted = tuple(parameters.values())
    direction = [gradient[name].to(p.dtype) for name, p in parameters.items()]
    sums = {name: torch.zeros_like(g) for name, g in gradient.items()}
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        for batch in batches:
            value = loss(call(model, batch.inputs), batch).reshape(())
            first = torch.autograd.grad(value, wanted, create_graph=True, allow_unused=True)
            slope = [(g * d).sum() for g, d in zip(first, direction, strict=True) if g is not None and g.requires_grad]
            if not slope:
                continue
            second = torch.autograd.grad(torch.stack(slope).sum(), wanted, materialize_grads=True)
            for total, found in zip(sums.values(), second, strict=True):
                total.add_(found, alpha=len(batch.index))
    return sums


def synaptic_flow(model: nn.Module, parameters: Mapping[str, nn.Parameter], examples: Batched) -> dict[str, Tensor]:
    """Return the derivative of the summed outputs by the absolute values of the weights, for one input of ones.

    All parameters and buffers stand as their absolute values, in double precision: the flow of a deep network grows beyond single
    precision.
    """
    empty = len(examples) == 0
    first = torch.ones(1, *cast("Examples", examples).input_shape) if empty else next(iter(examples.batches(1))).inputs
    given, named = arguments(map_tensors(_ones, first))
    states = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    absolute_values = {
        name: state.detach().double().abs() if state.is_floating_point() else state for name, state in states.items()
    }
    wanted = [absolute_values[name].requires_grad_(True) for name in parameters]
    with sdpa_kernel(SDPBackend.MATH):
        outputs = answers(functional_call(model, absolute_values, given, named))
    found = torch.autograd.grad(torch.stack([each.sum() for each in outputs]).sum(), wanted, materialize_grads=True)
    return dict(zip(parameters, found, strict=True))


def _ones(value: Tensor) -> Tensor:
    return torch.ones_like(value, dtype=torch.float64 if value.is_floating_point() else value.dtype)
