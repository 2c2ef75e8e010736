"""Does a layer compute what its type says: its weight times its inputs, and its bias on top?

A subclass may do something else (pad inside, standardise its weight, compute it from other parameters), so nobody is believed: the
formula is compared with what the layer gave, and a weight that was written is read back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from prunus.core.errors import raise_if_out_of_memory
from prunus.recover.refit.layer_inputs import channel_dim, from_matrices, is_flipped, is_matrix_layer

__all__ = ["Saved", "adds_its_bias", "computed", "multiplies", "why_weight_is_fixed", "write_matrices"]


class Saved:
    """The numbers of a module as they were; ``restore`` puts them back bit for bit."""

    def __init__(self, module: nn.Module) -> None:
        self._tensors = [(t, t.detach().clone()) for t in (*module.parameters(), *module.buffers())]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the numbers back."""
        for tensor, values in self._tensors:
            tensor.copy_(values)

    @property
    def unchanged(self) -> bool:
        """Whether every number is what it was."""
        return all(torch.equal(tensor, values) for tensor, values in self._tensors)


@torch.no_grad()
def multiplies(module: Any, inputs: Tensor, outputs: Tensor) -> bool:
    """Return whether ``outputs`` are the layer's weight (convolved) with ``inputs``, plus its bias, up to rounding.

    >>> class Scaled(nn.Linear):
    ...     def forward(self, x):
    ...         return 2 * super().forward(x)
    >>> x = torch.ones(1, 2)
    >>> [multiplies(layer, x, layer(x)) for layer in (nn.Linear(2, 3), Scaled(2, 3))]
    [True, False]
    """
    if not is_matrix_layer(module) or not isinstance(module.weight, Tensor):
        return False
    expected = computed(module, inputs, module.weight, module.bias)
    return _equal(expected, outputs)


def computed(module: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return what a layer of ``module``'s type gives with another weight and bias."""
    if is_flipped(module):
        product = inputs @ weight
        return product if bias is None else product + bias
    if isinstance(module, nn.Linear):
        return functional.linear(inputs, weight, bias)
    kind = next(base for base in (nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(module, base))
    found: Tensor = kind._conv_forward(module, inputs, weight, bias)
    return found


@torch.no_grad()
def adds_its_bias(module: Any, inputs: Tensor, outputs: Tensor) -> bool:
    """Return whether what is added to the layer's bias is added to its outputs, whatever else it does; it stays as it is."""
    bias = module._parameters.get("bias")
    if bias is None or bias.dim() != 1:
        return False
    before = bias.detach().clone()
    # As large as the outputs, and another number for every unit.
    shift = torch.linspace(0.5, 1.5, len(bias), device=bias.device).to(bias.dtype) * outputs.abs().amax()
    bias.add_(shift)
    try:
        moved = module.forward(inputs)
    finally:
        bias.copy_(before)
    dim = channel_dim(module, outputs.dim())
    shape = [-1 if place == dim else 1 for place in range(outputs.dim())]
    return moved.shape == outputs.shape and _equal(moved, outputs + shift.view(shape))


def why_weight_is_fixed(module: nn.Module) -> str | None:
    """Return why nobody can give the layer another weight; None where one can."""
    if parametrize.is_parametrized(module, "weight"):
        parts = module.parametrizations.weight  # type: ignore[union-attr]
        if all(hasattr(part, "right_inverse") for part in parts):  # type: ignore[union-attr]
            return None
        return "its weight is computed by a parametrization without a right inverse"
    if module._parameters.get("weight") is None:
        return "its weight is computed anew at every call, from other parameters"
    return None


@torch.no_grad()
def write_matrices(module: Any, weight: Tensor) -> bool:
    """Write matrices into the layer's weight, through its parametrization if it has one; return whether they read back.

    Where they don't, the layer is as it was.
    """
    new = from_matrices(module, weight)
    if not parametrize.is_parametrized(module, "weight"):
        module.weight.copy_(new)
        return True
    saved = Saved(module)
    try:
        module.weight = new.contiguous()
        if _equal(module.weight, new):
            return True
    except (NotImplementedError, RuntimeError, ValueError) as error:  # no inverse of that weight
        raise_if_out_of_memory(error)
    saved.restore()
    return False


def _equal(found: Tensor, wanted: Tensor) -> bool:
    """Compare up to rounding: of half precision, or of a GPU's short multiplications."""
    if found.shape != wanted.shape:
        return False
    share = 1e-3 if min(torch.finfo(t.dtype).bits for t in (found, wanted)) > 16 else 3e-2
    size = wanted.abs().amax() if wanted.numel() else 0.0
    return bool((found - wanted).abs().amax() <= share * size) if wanted.numel() else True
