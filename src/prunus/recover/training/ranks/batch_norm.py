"""How does batch norm see the whole batch, when each process computes a part of it?

Mean and variance are sums over all processes, with their gradients; so are the running statistics. ``nn.SyncBatchNorm`` does the
same on GPUs alone, for equal parts and for modules of one class; here every call of ``batch_norm`` in the forward pass is met.

References:
    Ioffe and Szegedy, ICML 2015, arXiv:1502.03167 (the normalisation); two sums, so that nothing cancels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["WholeBatchNorm"]


class WholeBatchNorm(TorchFunctionMode):
    """Inside the block batch norm in training normalises over the parts of all processes.

    ``counts`` False: this process only goes along, with examples that aren't in the batch.
    """

    def __init__(self, *, counts: bool) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is nn.functional.batch_norm:
            return _functional(func, self.counts, *args, **given)
        return func(*args, **given)


def _functional(
    func: Callable[..., Tensor],
    counts: bool,
    given: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return func(given, running_mean, running_var, weight, bias, training, momentum, eps)
    dims = [dim for dim in range(given.dim()) if dim != 1]
    shape = [1, -1, *[1] * (given.dim() - 2)]
    values = given.float() if given.dtype in (torch.float16, torch.bfloat16) else given
    share = 1.0 if counts else 0.0
    number = values.new_full((1,), share * (values.numel() // values.shape[1]))
    sums: Tensor = _Total.apply(torch.cat([values.sum(dim=dims) * share, number]))  # type: ignore[no-untyped-call]
    n = sums[-1].detach()
    if float(n) <= 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(given.shape)}")
    mean = sums[:-1] / n
    apart = values - mean.view(shape)
    squares: Tensor = _Total.apply(apart.square().sum(dim=dims) * share)  # type: ignore[no-untyped-call]
    variance = squares / n
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_var is not None:
            running_var.lerp_((variance * (n / (n - 1))).to(running_var.dtype), momentum)
    made = apart * (variance.view(shape) + eps).rsqrt()
    if weight is not None:
        made = made * weight.view(shape)
    if bias is not None:
        made = made + bias.view(shape)
    return made.to(given.dtype)


class _Total(torch.autograd.Function):
    """The sum over all processes; what each of them makes of it counts in its gradient."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total
