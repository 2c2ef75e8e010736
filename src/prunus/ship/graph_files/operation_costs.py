"""How much arithmetic is one call of an operation, at most, as far as its sizes tell?

In multiplications and additions of a matrix product in single precision, which is what processors do fastest: a value that is read
or written one by one counts as several of them, a sort as many. Only the order of magnitude is meant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["cost_of"]

Arguments = Mapping[str, Any]

_EACH = 16
_SORTED = 128
_SLOW_TYPES = 32
"""A product of other types than single and double precision may be done without a library."""


def cost_of(name: str, given: Arguments, made: Any, *, is_view: bool) -> float:
    """Return the cost of one call.

    Args:
        name: the operation's, without the ``_`` of the variant in place.
        given: its arguments by name; tensors on the meta device.
        made: what it returns.
    """
    if is_view:
        return 1.0
    results = [leaf for leaf in pytree.tree_leaves(made) if isinstance(leaf, Tensor)]
    taken = [leaf for leaf in pytree.tree_leaves(list(given.values())) if isinstance(leaf, Tensor)]
    n_out = sum(result.numel() for result in results)
    n_values = n_out + sum(value.numel() for value in taken)
    special = _COSTS.get(name)
    if special is None:
        return float(_EACH * n_values)
    type_of = taken[0].dtype if taken else torch.float32
    factor = 1 if type_of in (torch.float32, torch.float64) else _SLOW_TYPES
    return float(_EACH * n_values + factor * special(given, results))


def _product(left: str, axis: int = -1) -> Callable[[Arguments, list[Tensor]], Any]:
    """Every value of the result is a sum over one axis of ``left``."""

    def cost(given: Arguments, results: list[Tensor]) -> Any:
        source = given[left]
        return 2.0 * results[0].numel() * (source.shape[axis] if source.dim() else 1)

    return cost


def _summed_batches(given: Arguments, results: list[Tensor]) -> Any:
    return 2.0 * results[0].numel() * given["batch1"].shape[0] * given["batch1"].shape[-1]


def _convolution(given: Arguments, results: list[Tensor]) -> Any:
    source, weight = given["input"], given["weight"]
    if given.get("transposed", False):
        return 2.0 * source.numel() * weight.numel() / max(weight.shape[0], 1)
    return 2.0 * results[0].numel() * weight.numel() / max(weight.shape[0], 1)


def _attention(given: Arguments, results: list[Tensor]) -> Any:
    query, key, value = given["query"], given["key"], given["value"]
    rows = query.numel() / max(query.shape[-1], 1)
    batch = max(1, math.prod(key.shape[:-2]) // max(math.prod(query.shape[:-2]), 1))
    return 2.0 * batch * rows * key.shape[-2] * (query.shape[-1] + value.shape[-1] + _EACH)


def _recurrent(given: Arguments, results: list[Tensor]) -> Any:
    positions = given["input"].numel() / max(given["input"].shape[-1], 1)
    return 2.0 * positions * sum(part.numel() for part in given["params"])


def _trilinear(given: Arguments, results: list[Tensor]) -> Any:
    sizes = []
    for name in ("1", "2", "3"):
        size = list(given["i" + name].shape)
        for dim in given["expand" + name]:
            size.insert(dim, 1)
        sizes.append(size)
    return 4.0 * math.prod(max(dims) for dims in zip(*sizes, strict=False))


def _distances(given: Arguments, results: list[Tensor]) -> Any:
    return 64.0 * results[0].numel() * given["x1"].shape[-1]


def _pool(given: Arguments, results: list[Tensor]) -> Any:
    kernel, dims = given["kernel_size"], max(results[0].dim() - 2, 1)
    sizes = list(kernel) if isinstance(kernel, (list, tuple)) else [kernel]
    return 4.0 * results[0].numel() * (math.prod(sizes) if len(sizes) > 1 else sizes[0] ** dims)


def _sorted(given: Arguments, results: list[Tensor]) -> Any:
    return float(_SORTED * given["self"].numel())


def _resampled(given: Arguments, results: list[Tensor]) -> Any:
    shrinks = sum(
        max(old / max(new, 1), 1.0) for old, new in zip(given["self"].shape[2:], results[0].shape[2:], strict=False)
    )
    return 64.0 * max(results[0].numel(), given["self"].numel()) * shrinks


def _sampled(given: Arguments, results: list[Tensor]) -> Any:
    return 128.0 * results[0].numel()


_COSTS: dict[str, Callable[[Arguments, list[Tensor]], Any]] = {
    **dict.fromkeys(("mm", "mv", "dot", "vdot", "_grouped_mm"), _product("self")),
    "bmm": _product("self"),
    "addmm": _product("mat1"),
    "addmv": _product("mat"),
    "baddbmm": _product("batch1"),
    "addbmm": _summed_batches,
    **dict.fromkeys(("convolution", "_convolution"), _convolution),
    **dict.fromkeys(
        (
            "scaled_dot_product_attention",
            "_scaled_dot_product_attention_math",
            "_scaled_dot_product_flash_attention_for_cpu",
        ),
        _attention,
    ),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    "_trilinear": _trilinear,
    **dict.fromkeys(("_cdist_forward", "_euclidean_dist"), _distances),
    **dict.fromkeys(
        (
            *("avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d"),
            *("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices"),
        ),
        _pool,
    ),
    **dict.fromkeys(
        (
            *("sort", "argsort", "msort", "topk", "kthvalue", "median", "nanmedian", "mode", "histc", "bucketize"),
            *("_fft_c2c", "_fft_c2r", "_fft_r2c"),
        ),
        _sorted,
    ),
    **dict.fromkeys(
        (
            *(
                "upsample_nearest1d",
                "upsample_nearest2d",
                "upsample_nearest3d",
                "upsample_linear1d",
                "upsample_bilinear2d",
            ),
            *("upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa"),
            *("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d"),
        ),
        _resampled,
    ),
    **dict.fromkeys(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), _sampled),
}
