"""Which arguments of an operation must agree in size, beyond what torch checks when it runs on shapes alone?

Many kernels trust their callers: a batch norm reads as many statistics as there are channels, however many it is given. Each
function here gets the arguments of one call by name and returns what is wrong with them, or nothing. Tensors are on the meta
device: what hangs on values must be refused, or be checked by the kernel itself. ``SHAPES`` gives results where torch's own
functions for shapes take another precision, or run step by step what is one call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["MOST_PIECES", "RELATIONS", "SHAPES"]

MOST_PIECES = 16_384
"""Into so many tensors one may be split."""

Arguments = Mapping[str, Any]
Relation = Callable[[Arguments], str]
_HALF = (torch.float16, torch.bfloat16)


def _vectors(given: Arguments, names: Sequence[str], shape: Sequence[int], of: Tensor) -> str:
    """Statistics and factors: of that shape, one type among themselves, and of the input's (or wider than half precision)."""
    held = {name: given[name] for name in names if given.get(name) is not None}
    for name, value in held.items():
        if tuple(value.shape) != tuple(shape):
            return f"{name} must have the shape {tuple(shape)}, got {tuple(value.shape)}"
    types = {value.dtype for value in held.values()}
    wanted = (of.dtype, torch.float32) if of.dtype in _HALF else (of.dtype,)
    if not of.dtype.is_floating_point or len(types) > 1 or not types <= set(wanted):
        return f"{', '.join(names)} must be of the input's type {of.dtype}, got {', '.join(sorted(map(str, types)))}"
    return ""


def _batch_norm(given: Arguments) -> str:
    x = given["input"]
    if x.dim() < 2:
        return f"its input must have at least 2 dimensions, got {tuple(x.shape)}"
    if not given.get("training", given.get("use_input_stats", "running_mean" not in given)):
        missing = [name for name in ("running_mean", "running_var") if given.get(name) is None]
        if missing:
            return f"{missing[0]} is missing"
    return _vectors(given, ("weight", "bias", "running_mean", "running_var"), x.shape[1:2], x)


def _group_norm(given: Arguments) -> str:
    x, groups = given["input"], given["group"]
    sizes = given["N"], given["C"], given["HxW"]
    if x.dim() < 2 or sizes != (x.shape[0], x.shape[1], math.prod(x.shape[2:])):
        return f"N, C and HxW must be those of its input {tuple(x.shape)}, got {sizes}"
    if groups < 1 or x.shape[1] % groups:
        return f"its {x.shape[1]} channels must make {groups} groups"
    return _vectors(given, ("weight", "bias"), x.shape[1:2], x)


def _layer_norm(given: Arguments) -> str:
    x, shape = given["input"], list(given["normalized_shape"])
    if not shape or list(x.shape[-len(shape) :]) != shape:
        return f"normalized_shape must be the last sizes of its input {tuple(x.shape)}, got {shape}"
    return _vectors(given, ("weight", "bias"), shape, x)


def _weight_norm(given: Arguments) -> str:
    v, g, dim = given["v"], given["g"], given["dim"]
    if v.dim() == 0 or dim not in (0, v.dim() - 1):
        return f"dim must be the first or last of {v.dim()}, got {dim}"
    wanted = tuple(size if at == dim else 1 for at, size in enumerate(v.shape))
    if tuple(g.shape) != wanted or g.dtype != v.dtype or not v.dtype.is_floating_point:
        return f"g must be of v's type and of shape {wanted}, got {g.dtype} {tuple(g.shape)}"
    return ""


def _convolution(given: Arguments) -> str:
    x, weight, bias = given["input"], given["weight"], given["bias"]
    groups, transposed = given["groups"], given.get("transposed", False)
    spatial = x.dim() - 2
    if x.dim() != weight.dim() or not 1 <= spatial <= 3:
        return f"input and weight must have 3 to 5 dimensions each, got {tuple(x.shape)} and {tuple(weight.shape)}"
    if len({part.dtype for part in (x, weight, bias) if part is not None}) > 1:
        return "input, weight and bias must be of one type"
    for name, least in (("stride", 1), ("dilation", 1), ("padding", 0), ("output_padding", 0)):
        values = given.get(name, ())
        if isinstance(values, (list, tuple)) and (min(values, default=1) < least or len(values) not in (0, 1, spatial)):
            return f"{name} must be {spatial} numbers of at least {least}, got {list(values)}"
    if groups < 1 or min(weight.shape) < 1 or weight.shape[0] % groups:
        return f"a weight of shape {tuple(weight.shape)} can't be used in {groups} groups"
    takes, makes = weight.shape[:2] if transposed else (weight.shape[1] * groups, weight.shape[0])
    makes *= groups if transposed else 1
    if x.shape[1] != takes:
        return f"its input must have {takes} channels, got {x.shape[1]}"
    return "" if bias is None else _sized("bias", bias, (makes,))


def _sized(name: str, value: Tensor, shape: Sequence[int]) -> str:
    return (
        ""
        if tuple(value.shape) == tuple(shape)
        else f"{name} must have the shape {tuple(shape)}, got {tuple(value.shape)}"
    )


def _attention(given: Arguments) -> str:
    query, key, value = given["query"], given["key"], given["value"]
    mask = given.get("attn_mask")
    shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    if not 2 <= query.dim() == key.dim() == value.dim() or len({query.dtype, key.dtype, value.dtype}) > 1:
        return f"query, key and value must have as many dimensions (2 or more) and one type, got {shapes}"
    if not query.dtype.is_floating_point:
        return f"query, key and value must be floating point, got {query.dtype}"
    if key.shape[-2] != value.shape[-2] or query.shape[-1] != key.shape[-1]:
        return f"query, key and value don't fit each other: {shapes}"
    grouped = given.get("enable_gqa", False) and query.dim() >= 4
    for own in (key, value):
        for at, (many, few) in enumerate(zip(query.shape[:-2], own.shape[:-2], strict=True)):
            heads = grouped and at == query.dim() - 3 and few > 0 and many % few == 0
            if not (many == few or few == 1 or many == 1 or heads):
                return f"query, key and value don't fit each other: {shapes}"
    if mask is None:
        return ""
    if mask.dtype not in (torch.bool, query.dtype):
        return f"attn_mask must be of bool or the query's type {query.dtype}, got {mask.dtype}"
    wanted = (*query.shape[:-1], key.shape[-2])
    trailing = list(zip(reversed(mask.shape), reversed(wanted), strict=False))
    if not 2 <= mask.dim() <= query.dim() or any(own not in (1, size) for own, size in trailing):
        return f"attn_mask must broadcast to {wanted}, got {tuple(mask.shape)}"
    return ""


def _recurrent(gates: int) -> Relation:
    def check(given: Arguments) -> str:
        x, params, layers = given["input"], list(given["params"]), given["num_layers"]
        held = list(given["hx"]) if isinstance(given["hx"], (list, tuple)) else [given["hx"]]
        directions, each = 1 + given["bidirectional"], 4 if given["has_biases"] else 2
        if x.dim() != 3 or not held or held[0].dim() != 3 or layers < 1 or 0 in x.shape:
            return f"its input and states must have 3 dimensions, got {tuple(x.shape)}"
        if len(held) != (2 if gates == 4 else 1) or len(params) != layers * directions * each:
            return f"{layers} layers in {directions} directions need {layers * directions * each} parameters, got {len(params)}"
        hidden, taken = held[0].shape[2], x.shape[2]
        wanted = layers * directions, x.shape[0 if given["batch_first"] else 1], hidden
        if hidden < 1 or any(tuple(state.shape) != wanted for state in held):
            return f"its states must have the shape {wanted}, got {tuple(held[0].shape)}"
        if not x.dtype.is_floating_point or {part.dtype for part in (*held, *params)} != {x.dtype}:
            return f"states and parameters must be of the input's type {x.dtype}"
        for number in range(layers * directions):
            width = taken if number < directions else hidden * directions
            shapes = [(gates * hidden, width), (gates * hidden, hidden), (gates * hidden,), (gates * hidden,)]
            own = params[number * each : (number + 1) * each]
            for part, shape in zip(own, shapes, strict=False):
                if tuple(part.shape) != shape:
                    return f"a parameter of layer {number // directions} must have the shape {shape}, got {tuple(part.shape)}"
        return ""

    return check


def _grouped(given: Arguments) -> str:
    left, right, ends = given["self"], given["mat2"], given["offs"]
    if (left.dim(), right.dim()) != (2, 3) or ends is None or given["bias"] is not None:
        return f"it takes rows, stacked matrices and ends, got {tuple(left.shape)} and {tuple(right.shape)}"
    if ends.dtype != torch.int32 or tuple(ends.shape) != tuple(right.shape[:1]) or left.shape[1] != right.shape[1]:
        return (
            f"{tuple(left.shape)} and {tuple(right.shape)} need {right.shape[0]} ends of int32, got {tuple(ends.shape)}"
        )
    same = left.dtype == right.dtype and left.dtype.is_floating_point and given["out_dtype"] in (None, left.dtype)
    return "" if same else f"rows and matrices must be of one type, got {left.dtype} and {right.dtype}"


def _resampled(given: Arguments) -> str:
    """A kernel multiplies by the scale it is told to find the place it reads."""
    x, size = given["self"], given["output_size"]
    if x.dim() != len(size) + 2 or min(*x.shape, *size) < 1:
        return f"an input of {len(size)} spatial dimensions and sizes of at least 1 were expected, got {tuple(x.shape)} to {size}"
    names = ("scales",) if len(size) == 1 else ("scales_d", "scales_h", "scales_w")[-len(size) :]
    for name, old, new in zip(names, x.shape[2:], size, strict=True):
        scale = given.get(name)
        if scale is not None and not (math.isfinite(scale) and scale > 0 and abs(old * scale - new) <= 1):
            return f"{name} must lead from {old} to {new}, got {scale}"
    return ""


def _spectrum(given: Arguments) -> str:
    x, dims = given["self"], list(given["dim"])  # the kernels take them as they are: none may count from the end
    if not dims or len(set(dims)) != len(dims) or any(not 0 <= dim < x.dim() for dim in dims):
        return f"dim must name different dimensions of {tuple(x.shape)}, got {given['dim']}"
    if not 0 <= given["normalization"] <= 2 or 0 in x.shape:
        return f"normalization must be 0, 1 or 2 and nothing empty, got {given['normalization']} and {tuple(x.shape)}"
    length = given.get("last_dim_size")
    if length is not None and (length < 1 or x.shape[dims[-1]] != length // 2 + 1):
        return f"last_dim_size must fit the {x.shape[dims[-1]]} values of its last dimension, got {length}"
    return ""


def _whole_division(given: Arguments) -> str:
    """The least integer by -1 doesn't fit into its type, and the processor stops the program."""
    left, right = given["self"], given["other"]
    if any(isinstance(part, float) or (isinstance(part, Tensor) and not _is_whole(part)) for part in (left, right)):
        return ""
    if "rounding_mode" in given and given["rounding_mode"] is None:
        return ""
    if not isinstance(right, (int, bool)) or right in (0, -1):
        got = right if isinstance(right, int) else "a tensor"
        return f"integers can be divided by a number other than 0 and -1 only, got {got}"
    return ""


def _is_whole(value: Tensor) -> bool:
    return not (value.dtype.is_floating_point or value.dtype.is_complex)


def _grid(given: Arguments) -> str:
    modes = given["interpolation_mode"], given["padding_mode"]
    x, grid = given["input"], given["grid"]
    if not (0 <= modes[0] <= 2 and 0 <= modes[1] <= 2):
        return f"interpolation_mode and padding_mode must be 0, 1 or 2, got {modes}"
    fits = x.dim() == grid.dim() and x.dim() in (4, 5) and grid.shape[-1] == x.dim() - 2 and x.shape[0] == grid.shape[0]
    return "" if fits and x.dtype == grid.dtype else f"a grid of {tuple(grid.shape)} doesn't fit {tuple(x.shape)}"


def _triangle(given: Arguments) -> str:
    sizes = given["row"], given["col"], abs(given["offset"])
    return "" if min(sizes) >= 0 and max(sizes) <= 2**20 else f"row, col and offset must be 0 to 1048576, got {sizes}"


def _no_dimensions(given: Arguments) -> str:
    """Summed along none of them: torch's shapes keep them all, its kernel none."""
    return "dim must name a dimension, got none" if given["dim"] == [] else ""


def _pieces(given: Arguments) -> str:
    x, dim = given["self"], given.get("dim", 0)
    if not -x.dim() <= dim < x.dim():
        return f"dim must be one of {x.dim()}, got {dim}"
    size = x.shape[dim]
    by_size = given.get("split_size", size or 1)
    n = given.get(
        "chunks", given.get("sections", -(-size // by_size) if "split_size" in given and by_size > 0 else size)
    )
    if isinstance(n, int) and n > MOST_PIECES:
        return f"a tensor is split into at most {MOST_PIECES}, got {n}"
    return ""


_NORMS = ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "batch_norm")
_UPSAMPLE = (
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d"),
    *("upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa"),
    *("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d"),
)
RELATIONS: dict[str, Relation] = {
    **dict.fromkeys(_NORMS, _batch_norm),
    "native_group_norm": _group_norm,
    **dict.fromkeys(("native_layer_norm", "_fused_rms_norm"), _layer_norm),
    "_weight_norm_interface": _weight_norm,
    **dict.fromkeys(("convolution", "_convolution"), _convolution),
    **dict.fromkeys(
        (
            "scaled_dot_product_attention",
            "_scaled_dot_product_attention_math",
            "_scaled_dot_product_flash_attention_for_cpu",
        ),
        _attention,
    ),
    "lstm": _recurrent(4),
    "gru": _recurrent(3),
    **dict.fromkeys(("rnn_tanh", "rnn_relu"), _recurrent(1)),
    "_grouped_mm": _grouped,
    **dict.fromkeys(_UPSAMPLE, _resampled),
    **dict.fromkeys(("_fft_c2c", "_fft_c2r", "_fft_r2c"), _spectrum),
    **dict.fromkeys(("div", "floor_divide", "remainder", "fmod"), _whole_division),
    **dict.fromkeys(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), _grid),
    "nansum": _no_dimensions,
    **dict.fromkeys(("tril_indices", "triu_indices"), _triangle),
    **dict.fromkeys(
        ("unbind", "unbind_copy", "split", "split_copy", "unsafe_split", "chunk", "unsafe_chunk", "tensor_split"),
        _pieces,
    ),
}
"""By the operation's name, without the ``_`` of the variant in place."""


def _like_sequence(given: Arguments) -> Any:
    """A result for every position, and the states after the last one."""
    held = list(given["hx"]) if isinstance(given["hx"], (list, tuple)) else [given["hx"]]
    width = held[0].shape[-1] * (1 + given["bidirectional"])
    return given["input"].new_empty((*given["input"].shape[:-1], width)), *(torch.empty_like(state) for state in held)


def _like_norm(given: Arguments) -> Any:
    x = given["input"]
    used = given.get("training", "running_mean" not in given)
    kept = x.new_empty(x.shape[1] if used else 0)
    return torch.empty_like(x), kept, torch.empty_like(kept)


def _like_product(given: Arguments) -> Any:
    left, right = given["self"], given["mat2"]
    return left.new_empty((*left.shape[:-1], right.shape[-1]))


SHAPES: dict[str, Callable[[Arguments], Any]] = {
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _like_sequence),
    **dict.fromkeys(_NORMS[:3], _like_norm),
    "_grouped_mm": _like_product,
}
