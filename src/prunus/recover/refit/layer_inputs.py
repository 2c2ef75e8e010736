"""What do the inputs of a layer look like, as far as its weights can tell: their second moments and their mean?

A linear layer and a convolution are the same thing here: a matrix per group of channels that maps rows of inputs (patches, for a
convolution) to outputs. Everything that compensates for a cut reads these matrices and moments, and never the layer itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = [
    "Moments",
    "Squares",
    "channel_dim",
    "from_matrices",
    "input_rows",
    "is_flipped",
    "is_matrix_layer",
    "matrices",
    "observed",
    "output_rows",
    "rows_in_parts",
    "set_matrices",
]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_STRIP = 128
"""Rows of the second moments that are summed in one product."""
_PART_BYTES = 1 << 28
"""Patches of a convolution are made for as many examples at once as fit into this."""


@dataclass
class Moments:
    """Running sums over rows of inputs ``x`` and, where there is one, of what should be added to the outputs, ``r``.

    Shapes:
        ``gram`` is ``(groups, fan_in, fan_in)``, of which the upper triangle is filled; ``total`` ``(groups, fan_in)``; ``cross``
        ``(groups, units, fan_in)`` and ``residual`` ``(groups, units)`` hold the sums of ``r xᵀ`` and of ``r``.
    """

    gram: Tensor
    total: Tensor
    count: int = 0
    cross: Tensor | None = None
    residual: Tensor | None = None

    @classmethod
    def of(cls, module: nn.Module) -> Moments:
        """Return empty moments for ``module``, in single precision at least."""
        weight = matrices(module)
        kind = torch.promote_types(weight.dtype, torch.float32)
        groups, _, fan_in = weight.shape
        return cls(weight.new_zeros(groups, fan_in, fan_in, dtype=kind), weight.new_zeros(groups, fan_in, dtype=kind))

    def add(self, rows: Tensor, residual: Tensor | None = None) -> None:
        """Take in rows of inputs ``(groups, rows, fan_in)`` and residuals ``(groups, rows, units)``."""
        rows = rows.to(self.gram.dtype)
        for first in range(0, rows.shape[2], _STRIP):  # on and right of the diagonal: it is symmetric
            strip = rows[..., first : first + _STRIP]
            self.gram[:, first : first + _STRIP, first:].baddbmm_(strip.mT, rows[..., first:])
        self.total += rows.sum(dim=1)
        self.count += rows.shape[1]
        if residual is not None:
            residual = residual.to(self.gram.dtype)
            cross, sums = residual.mT @ rows, residual.sum(dim=1)
            self.cross = cross if self.cross is None else self.cross + cross
            self.residual = sums if self.residual is None else self.residual + sums

    def add_to(self, group: int, rows: Tensor) -> None:
        """Take in rows of inputs ``(rows, fan_in)`` of one group alone."""
        here = slice(group, group + 1)
        Moments(self.gram[here], self.total[here]).add(rows.unsqueeze(0))  # sums up in place
        self.count += len(rows)

    @property
    def mean_gram(self) -> Tensor:
        """The mean of ``x xᵀ``: ``(groups, fan_in, fan_in)``."""
        upper = self.gram.triu()
        return (upper + upper.triu(1).mT).div_(max(self.count, 1))

    @property
    def mean_squares(self) -> Tensor:
        """The mean of each input's square: ``(groups, fan_in)``."""
        return self.gram.diagonal(dim1=1, dim2=2) / max(self.count, 1)


@dataclass
class Squares:
    """Running sums of the squares of inputs: the diagonal of :class:`Moments`, for what needs no more. ``(groups, fan_in)``."""

    total: Tensor
    count: int = 0

    @classmethod
    def of(cls, module: nn.Module) -> Squares:
        """Return empty sums for ``module``, in single precision at least."""
        weight = matrices(module)
        kind = torch.promote_types(weight.dtype, torch.float32)
        return cls(weight.new_zeros(weight.shape[0], weight.shape[2], dtype=kind))

    def add(self, rows: Tensor) -> None:
        """Take in rows of inputs ``(groups, rows, fan_in)``."""
        self.total += rows.to(self.total.dtype).square().sum(dim=1)
        self.count += rows.shape[1]

    def add_to(self, group: int, rows: Tensor) -> None:
        """Take in rows of inputs ``(rows, fan_in)`` of one group alone."""
        Squares(self.total[group : group + 1]).add(rows.unsqueeze(0))  # sums up in place
        self.count += len(rows)

    @property
    def mean_squares(self) -> Tensor:
        """The mean of each input's square: ``(groups, fan_in)``."""
        return self.total / max(self.count, 1)


class Stacked(nn.Module):
    """A parameter that holds a matrix for each expert, as a layer whose groups are the experts.

    ``summed`` is the dimension of the inputs: 2 in ``(experts, outputs, inputs)``, 1 in ``(experts, inputs, outputs)``.
    """

    def __init__(self, weight: nn.Parameter, summed: int) -> None:
        super().__init__()
        self.weight, self.summed = weight, summed


def is_matrix_layer(module: nn.Module) -> bool:
    """Return whether ``module`` is a linear layer or a convolution (not transposed), or transformers' ``Conv1D``."""
    return isinstance(module, (nn.Linear, *_CONVOLUTIONS)) or is_flipped(module)


def is_flipped(module: nn.Module) -> bool:
    """Return whether the layer holds its weight as (inputs, outputs), like GPT-2's."""
    return type(module).__name__ == "Conv1D" and isinstance(getattr(module, "nf", None), int)


def matrices(module: Any, tensor: Tensor | None = None) -> Tensor:
    """Return the layer's weight (or a tensor of its shape, like a mask) as ``(groups, units, fan_in)``.

    >>> matrices(nn.Conv2d(4, 6, 3, groups=2)).shape
    torch.Size([2, 3, 18])
    """
    weight = module.weight.detach() if tensor is None else tensor
    if is_flipped(module):
        return weight.t().unsqueeze(0)
    if isinstance(module, Stacked):
        return weight if module.summed == 2 else weight.mT
    return weight.reshape(getattr(module, "groups", 1), -1, math.prod(weight.shape[1:]))


@torch.no_grad()
def set_matrices(module: Any, weight: Tensor) -> None:
    """Write matrices of :func:`matrices`'s shape into the layer's weight."""
    module.weight.copy_(from_matrices(module, weight))


def from_matrices(module: Any, weight: Tensor) -> Tensor:
    """Return matrices of :func:`matrices`'s shape in the shape of the layer's weight."""
    if isinstance(module, Stacked):
        return weight if module.summed == 2 else weight.mT
    return weight[0].t() if is_flipped(module) else weight.reshape(module.weight.shape)


def input_rows(module: Any, inputs: Tensor) -> Tensor:
    """Return what the rows of the layer's matrices are multiplied with: ``(groups, rows, fan_in)``.

    A convolution's rows are the patches that it slides over, padding included, one per output position.

    >>> input_rows(nn.Linear(3, 1), torch.zeros(2, 5, 3)).shape
    torch.Size([1, 10, 3])
    """
    if not isinstance(module, _CONVOLUTIONS):
        return inputs.reshape(1, -1, inputs.shape[-1])
    n_dims = module.weight.dim() - 2
    inputs = inputs.reshape(-1, *inputs.shape[-n_dims - 1 :])
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    inputs = functional.pad(inputs, _padding(module, n_dims), mode=mode)
    for dim in range(n_dims):
        reach = module.dilation[dim] * (module.kernel_size[dim] - 1) + 1
        inputs = inputs.unfold(2 + dim, reach, module.stride[dim])
    strides = (slice(None),) * (2 + n_dims) + tuple(slice(None, None, step) for step in module.dilation)
    patches = inputs[strides]  # (examples, channels, *positions, *kernel)
    grouped = patches.reshape(patches.shape[0], module.groups, -1, *patches.shape[2:])
    positions = tuple(range(3, 3 + n_dims))
    kernel = tuple(range(3 + n_dims, 3 + 2 * n_dims))
    rows = grouped.permute(1, 0, *positions, 2, *kernel)
    return rows.reshape(module.groups, -1, math.prod(module.weight.shape[1:]))


def output_rows(module: Any, outputs: Tensor) -> Tensor:
    """Return the layer's outputs in the order of :func:`input_rows`: ``(groups, rows, units)``."""
    if not isinstance(module, _CONVOLUTIONS):
        return outputs.reshape(1, -1, outputs.shape[-1])
    n_dims = module.weight.dim() - 2
    outputs = outputs.reshape(-1, module.groups, module.out_channels // module.groups, *outputs.shape[-n_dims:])
    positions = tuple(range(3, 3 + n_dims))
    return outputs.permute(1, 0, *positions, 2).reshape(module.groups, -1, module.out_channels // module.groups)


def _padding(module: Any, n_dims: int) -> list[int]:
    """Return the padding as ``functional.pad`` wants it: from the last dimension, before and after."""
    if module.padding == "valid":
        return [0] * (2 * n_dims)
    sides: list[int] = []
    for dim in reversed(range(n_dims)):
        if module.padding == "same":
            whole = module.dilation[dim] * (module.kernel_size[dim] - 1)
            sides += [whole // 2, whole - whole // 2]
        else:
            sides += [module.padding[dim]] * 2
    return sides


def rows_in_parts(module: Any, inputs: Tensor, outputs: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield :func:`input_rows` and, for outputs, :func:`output_rows`, of a few examples at a time: patches take much memory."""
    parts: list[tuple[Tensor, Tensor | None]] = [(inputs, outputs)]
    if isinstance(module, _CONVOLUTIONS) and inputs.dim() == module.weight.dim():
        # Overlapping patches hold each number as often as the kernel reaches it.
        size = inputs[:1].numel() * math.prod(module.kernel_size) / math.prod(module.stride) * inputs.element_size()
        n = max(1, int(_PART_BYTES / max(size, 1)))
        pieces = torch.split(inputs, n)
        parts = list(zip(pieces, torch.split(outputs, n) if outputs is not None else [None] * len(pieces), strict=True))
    for given, result in parts:
        yield input_rows(module, given), None if result is None else output_rows(module, result)


def channel_dim(module: Any, n_dims: int) -> int:
    """Return the dimension that the units lie along, of a layer's outputs of so many dimensions.

    >>> channel_dim(nn.Conv2d(1, 1, 1), 4), channel_dim(nn.Linear(1, 1), 3), channel_dim(nn.BatchNorm1d(1), 3)
    (1, 2, 1)
    """
    return 1 if isinstance(module, _BatchNorm) else n_dims - 1 - len(getattr(module, "kernel_size", ()))


@contextmanager
def observed(modules: Sequence[nn.Module], see: Callable[[nn.Module, Tensor, Tensor], None]) -> Iterator[None]:
    """Call ``see(module, inputs, outputs)`` after every call of one of ``modules``, for a block.

    What it is given is the layer's at that moment: an operation that works in place may write over it later.
    """

    def hook(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], outputs: Any) -> None:
        inputs = given[0] if given else next(iter(named.values()), None)
        if isinstance(inputs, Tensor) and isinstance(outputs, Tensor):
            see(module, inputs.detach(), outputs.detach())

    handles = [module.register_forward_hook(hook, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
