"""How is a layer fitted by least squares whose inputs have too many second moments to hold?

The square of a wide convolution's fan-in is more than any memory. Conjugate gradients only multiply with that matrix, and the layer
itself does that: forward with the direction as its weight, and backward to it. So what it takes is the layer's inputs and a few
tensors of the size of its weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunus.recover.refit.formula import computed
from prunus.recover.refit.layer_inputs import channel_dim, from_matrices, matrices
from prunus.recover.refit.least_squares import conjugate_gradients

if TYPE_CHECKING:
    from prunus.recover.refit.sequential import Pair

__all__ = ["Solution", "too_few", "unformed"]

_STEPS = 30
"""Each costs two passes through the layer; what the last ones would still change is below the damping in most layers."""


@dataclass(frozen=True)
class Solution:
    """The change of a weight, the mean of the inputs and of what the outputs lack.

    Shapes:
        ``change`` is ``(groups, units, fan_in)``, ``mean`` ``(groups, fan_in)``, ``lacking`` ``(groups, units)``.
    """

    change: Tensor
    mean: Tensor
    lacking: Tensor


def too_few(needed: int, count: int) -> str:
    """Say that there are fewer inputs than a unit has weights."""
    return (
        f"least squares needs at least {needed} inputs to look at, one per weight of a unit: got {count}; give more "
        "(data.split.calibration, n_calibration)"
    )


@torch.no_grad()
def unformed(
    layer: Any, seen: Iterable[Pair], support: Tensor | None, *, damping: float, memory_bytes: int
) -> Solution | str:
    """Return what least squares says, as :func:`reconstruct` does, or why it can't be found in ``memory_bytes``.

    Args:
        support: which weights may change, as :func:`matrices` has them; None: all.

    Shapes:
        ``support`` is ``(groups, units, fan_in)``.
    """
    calls: list[tuple[Tensor, Tensor]] = []
    n_bytes = 0
    for pair in seen:
        calls.append((pair.inputs, pair.wanted - pair.outputs))
        n_bytes += sum(t.numel() * t.element_size() for t in calls[-1])
        if n_bytes > memory_bytes:
            return (
                f"its inputs take more than the {memory_bytes / 2**30:.3g} GiB allowed, and so would their second moments; bias "
                "needs only means"
            )
    weight = matrices(layer)
    groups, units, fan_in = weight.shape
    count = sum(lacking.numel() for _, lacking in calls) // (groups * units)
    if count < fan_in:
        return too_few(fan_in, count)
    kind = torch.promote_types(weight.dtype, torch.float32)

    def summed(both: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        """Return the mean over all positions of ``r xᵀ``, of what ``both`` makes of the inputs and lacking outputs of a call."""
        total = torch.zeros(groups, units, fan_in, dtype=kind, device=weight.device)
        for call in calls:
            inputs, outputs = both(*call)
            total += _cross(layer, inputs, outputs)
        return total / count

    mean = summed(lambda x, r: (x, torch.ones_like(r)))[:, :1]
    squares = summed(lambda x, r: (x.square(), torch.ones_like(r)))[:, :1]
    cross = summed(lambda x, r: (x, r))
    lacking = torch.stack([_by_unit(layer, r, groups) for _, r in calls]).sum(dim=0) / count
    if layer.bias is None:
        centre = torch.zeros_like(mean)
    else:
        centre, squares = mean, squares - mean.square()
        cross = cross - lacking.unsqueeze(2) * mean
    damped = damping * squares.mean(dim=2, keepdim=True)
    damped = torch.where(damped > 0, damped, torch.ones_like(damped))
    # Scaled to a diagonal of ones, inputs of very different sizes need far fewer steps.
    scale = (squares.clamp_min(0) + damped).rsqrt()
    if support is not None:
        scale = scale * support

    def times(change: Tensor) -> Tensor:
        moved = change * scale
        given = from_matrices(layer, moved).to(weight.dtype)
        image = summed(lambda x, r: (x, computed(layer, x, given)))
        image = image - (moved * centre).sum(dim=2, keepdim=True) * centre + moved * damped
        return image * scale

    return Solution(conjugate_gradients(cross * scale, times, steps=_STEPS) * scale, mean[:, 0], lacking)


def _cross(layer: Any, inputs: Tensor, outputs: Tensor) -> Tensor:
    """Return the sum of ``r xᵀ`` over a call's positions: what a gradient with respect to the weight is."""
    with torch.enable_grad():
        weight = torch.zeros_like(layer.weight.detach(), requires_grad=True)
        (found,) = torch.autograd.grad(computed(layer, inputs, weight), weight, outputs)
    return matrices(layer, found)


def _by_unit(layer: Any, outputs: Tensor, groups: int) -> Tensor:
    """Return the sum of a call's outputs by unit: ``(groups, units)``."""
    return outputs.movedim(channel_dim(layer, outputs.dim()), -1).flatten(end_dim=-2).sum(dim=0).view(groups, -1)
