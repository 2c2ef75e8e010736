"""What does a model cost: parameters, multiplications, memory?

MACs explain; they are no claim about speed. Speed is measured in ``latency``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prunus.core.calls import call, tensors

__all__ = ["Cost", "measure_cost"]


@dataclass(frozen=True)
class Cost:
    """Sizes of one model; ``macs`` are multiply-adds of matrix products, convolutions and attention, for one example."""

    parameters: int
    nonzero_parameters: int
    macs: int
    memory_bytes: int

    def to_dict(self) -> dict[str, int]:
        """Return plain values for JSON."""
        return asdict(self)


def measure_cost(model: nn.Module, inputs: Any) -> Cost:
    """Return what ``model`` costs, counted while it runs once on ``inputs`` (whose first dimension is the batch)."""
    parameters = list(model.parameters())
    states = [*parameters, *model.buffers()]
    modes = {module: module.training for module in model.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    # The counter asks what a module is given for its gradient function, which a parameter that is handed around hasn't got here.
    trained = [parameter for parameter in parameters if parameter.requires_grad and parameter.is_leaf]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        model.eval()
        # The fused attention fast path hides its products from the counter.
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_uncounted()) as counter:
            call(model, inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for parameter in trained:
            parameter.requires_grad_(True)
        for module, training in modes.items():
            module.training = training
    batch = len(inputs) if isinstance(inputs, list) else next((len(v) for _, v in tensors(inputs) if v.dim()), 1)
    return Cost(
        sum(p.numel() for p in parameters),
        sum(int(torch.count_nonzero(p)) for p in parameters),
        counter.get_total_flops() // (2 * batch),
        sum(t.numel() * t.element_size() for t in states),
    )


def _uncounted() -> dict[Any, Any]:
    """Return counts (two per multiply-add) for operations that torch's own counter passes over; they get shapes for tensors."""
    aten = torch.ops.aten
    return {
        aten.mv: lambda matrix, *_, **__: 2 * prod(matrix),
        aten.addmv: lambda _, matrix, *__, **___: 2 * prod(matrix),
        aten.dot: lambda left, *_, **__: 2 * prod(left),
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._trilinear: _bilinear,
        aten.mkldnn_rnn_layer: lambda inputs, *weights, **_: _recurrence(inputs, weights[:2]),
        aten._cudnn_rnn: lambda inputs, weights, *_, **__: _recurrence(inputs, weights),
    }


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Count query x key and weights x value; each is ``(batch, heads, length, features)``."""
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _recurrence(inputs: Sequence[int], weights: Sequence[Sequence[int]]) -> int:
    """Count what a recurrent layer does at each step: one product per matrix. ``inputs`` is ``(length, batch, features)``."""
    return 2 * prod(inputs[:-1]) * sum(prod(weight) for weight in weights if len(weight) == 2)


def _bilinear(*shapes_and_dims: Any, **_: Any) -> int:
    """Count the products of three tensors, each stretched along its own new dimensions."""
    stretched = []
    for shape, dims in zip(shapes_and_dims[:3], shapes_and_dims[3:6], strict=True):
        sizes = list(shape)
        for dim in sorted(dims):
            sizes.insert(dim, 1)
        stretched.append(sizes)
    return 2 * prod(int(max(sizes)) for sizes in zip(*stretched, strict=True))
