"""Kernels of GPUs and other devices, which never run here: what they are meant to compute stands in for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["KERNELS", "Kernel"]

A = torch.ops.aten


class Kernel(NamedTuple):
    """An operation, what it computes, its operands (or their shapes), its settings, and how many axes it leaves free.

    Of the results only the first ``n_results`` are compared: the others serve a backward pass.
    """

    target: Any
    reference: Callable[..., Any]
    operands: tuple[Any, ...]
    free: int
    settings: dict[str, Any] = {}  # noqa: RUF012 - never changed
    n_results: int = 1


def _attention(query: Tensor, key: Tensor, value: Tensor, *masks: Any, n_more: int = 1, **settings: Any) -> Any:
    mask = next((mask for mask in (*masks, settings.get("attn_mask")) if isinstance(mask, Tensor)), None)
    repeats = max(1, query.shape[1] // key.shape[1])
    key, value = (tensor.repeat_interleave(repeats, 1) for tensor in (key, value))
    causal = settings.get("is_causal", False)
    out = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
    more = [query.sum(-1), None, None, 5, 7, torch.zeros(2), torch.zeros(0), torch.zeros(0)]
    return (out, *more[: settings.pop("n_more", n_more)])


def _of_gpus(query: Tensor, key: Tensor, value: Tensor, *masks: Any, **settings: Any) -> Any:
    return _attention(query, key, value, *masks, n_more=8, **settings)


def _lstm_cell(one: Tensor, two: Tensor, cell: Tensor, *biases: Tensor) -> Any:
    gates = one + two + sum(biases)
    i, f, g, o = gates.chunk(4, 1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell, torch.cat([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()], 1)


def _gru_cell(one: Tensor, two: Tensor, state: Tensor, first: Any = 0.0, second: Any = 0.0) -> Any:
    (r, z, n), (hr, hz, hn) = (one + first).chunk(3, 1), (two + second).chunk(3, 1)
    r, z = (r + hr).sigmoid(), (z + hz).sigmoid()
    n = (n + r * hn).tanh()
    return n + z * (state - n), torch.cat([r, z, n, state, hn], 1)


def _rms_norm(x: Tensor, sizes: list[int], weight: Tensor | None, eps: float) -> Any:
    return functional.rms_norm(x, sizes, weight, eps), x.sum(-1, keepdim=True)


def _batch_norm(
    x: Tensor, weight: Tensor, bias: Any, mean: Tensor, var: Tensor, training: bool, *numbers: float
) -> Any:
    out = functional.batch_norm(x, mean.clone(), var.clone(), weight, bias, training)
    return out, torch.zeros(0), torch.zeros(0), torch.zeros(0)


_QKV = (2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4)
_SQUARE = ((2, 3, 5, 8),) * 3
_GROUPED = (2, 6, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4)
_BATCH_NORM = ((2, 3, 5), (3,), (3,), (3,), (3,), True, 0.1, 1e-5)
_CAUSAL = {"is_causal": True}

KERNELS: dict[str, Kernel] = {
    "linear": Kernel(A.linear.default, functional.linear, ((2, 3, 5), (7, 5), (7,)), 4),
    "linear: no bias": Kernel(A.linear.default, functional.linear, ((3, 5), (7, 5)), 3),
    "_scaled_dot_product_flash_attention": Kernel(A._scaled_dot_product_flash_attention.default, _of_gpus, _QKV, 6),
    "_scaled_dot_product_efficient_attention": Kernel(
        A._scaled_dot_product_efficient_attention.default,
        lambda q, k, v, mask, _: _attention(q, k, v, mask, n_more=3),
        (*_QKV, (1, 3, 5, 7), False), 6,
    ),
    "_scaled_dot_product_cudnn_attention": Kernel(
        A._scaled_dot_product_cudnn_attention.default,
        lambda q, k, v, mask, _, **s: _of_gpus(q, k, v, mask, **s),
        (*_QKV, (5, 7), False), 6,
    ),
    "_scaled_dot_product_cudnn_attention: no mask": Kernel(
        A._scaled_dot_product_cudnn_attention.default,
        lambda q, k, v, mask, _, **s: _of_gpus(q, k, v, mask, **s),
        (*_SQUARE, None, False), 4, _CAUSAL,
    ),
    "_scaled_dot_product_attention_math_for_mps": Kernel(
        A._scaled_dot_product_attention_math_for_mps.default, _attention, (*_QKV, (2, 1, 5, 7)), 6
    ),
    "_scaled_dot_product_fused_attention_overrideable": Kernel(
        A._scaled_dot_product_fused_attention_overrideable.default, _of_gpus, _GROUPED, 7
    ),
    "_scaled_dot_product_attention_math_for_mps: one key head": Kernel(
        A._scaled_dot_product_attention_math_for_mps.default, _attention, ((2, 3, 5, 8), (2, 1, 7, 8), (2, 1, 7, 4)), 6
    ),
    "_thnn_fused_lstm_cell": Kernel(
        A._thnn_fused_lstm_cell.default, _lstm_cell, ((2, 20), (2, 20), (2, 5), (20,), (20,)), 2, n_results=3
    ),
    "_thnn_fused_lstm_cell: no biases": Kernel(
        A._thnn_fused_lstm_cell.default, lambda *a: _lstm_cell(*a, torch.zeros(())), ((2, 20), (2, 20), (2, 5)), 2, n_results=3
    ),
    "_thnn_fused_gru_cell": Kernel(
        A._thnn_fused_gru_cell.default, _gru_cell, ((2, 15), (2, 15), (2, 5), (15,), (15,)), 2, n_results=2
    ),
    "_thnn_fused_gru_cell: no biases": Kernel(
        A._thnn_fused_gru_cell.default, _gru_cell, ((2, 15), (2, 15), (2, 5)), 2, n_results=2
    ),
    "_fused_rms_norm": Kernel(A._fused_rms_norm.default, _rms_norm, ((2, 3, 5), [5], (5,), 1e-5), 3),
    "_fused_rms_norm: no scale": Kernel(A._fused_rms_norm.default, _rms_norm, ((2, 3, 5), [3, 5], None, 1e-5), 3),
    "cudnn_batch_norm": Kernel(A.cudnn_batch_norm.default, _batch_norm, _BATCH_NORM, 3),
    "miopen_batch_norm": Kernel(A.miopen_batch_norm.default, _batch_norm, _BATCH_NORM, 3),
}  # fmt: skip
"""By the name of the operation, and what is special about the call."""
