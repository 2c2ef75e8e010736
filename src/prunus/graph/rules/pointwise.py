"""Operations that work on each element by itself: aligned dimensions are the same axis."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from prunus.graph.solver.axes import fresh
from prunus.graph.solver.solve import Axes, Call, broadcast, rule


@rule(
    "pointwise",
    "copy",
    "masked_fill",
    "native_dropout",
    "bernoulli",
    "clamp",
    "floor_divide",
    "where",
    "lerp",
    "addcmul",
    "addcdiv",
    "_prelu_kernel",
    "polar",
    "complex",
)
def pointwise(call: Call) -> Axes | list[Axes]:
    """Align the operands from the right, as broadcasting does."""
    return call.alike(broadcast(*call.given))


@rule(
    "clone",
    "_to_copy",
    "detach",
    "alias",
    "lift_fresh",
    "lift_fresh_copy",
    "_conj",
    "fill",
    "zero",
    "zeros_like",
    "ones_like",
    "empty_like",
    "rand_like",
    "randn_like",
    "full_like",
    "bernoulli_",
    "nan_to_num",
    "_softmax",
    "_log_softmax",
    "_safe_softmax",
    "hardswish",
    "log_sigmoid_forward",
    "fake_quantize_per_tensor_affine_cachemask",
    "renorm",
    "bucketize",
    "triu",
    "tril",
    "_assert_tensor_metadata",
)
def same(call: Call) -> Axes | list[Axes]:
    """Keep every axis. Softmax is here, too: reordering its entries reorders its results."""
    value, axes = call.node.meta.get("val"), call.first
    if isinstance(value, list | tuple):  # some kernels make a buffer of another shape
        return [axes if part.dim() == len(axes) else [fresh(n) for n in part.shape] for part in value]
    if call.name.rstrip("_") in ("triu", "tril"):
        call.freeze(axes[-2:], "its order matters to a triangle")
    return axes if isinstance(value, Tensor) else []


@rule("as_strided")
def as_strided(call: Call) -> Axes | list[Axes]:
    """The same entries in the same places are the same, whatever is said of dimensions of one; anything else is not understood."""
    value, offset = call.operands[0].meta["val"], call["storage_offset"]
    alike = call.shape == tuple(value.shape) and offset in (None, value.storage_offset())
    steps = zip(call.shape, call["stride"], value.stride(), strict=False)
    if alike and all(one == other for size, one, other in steps if size != 1):
        return call.first
    unknown: Axes | list[Axes] = no_rule(call)
    return unknown


@rule(
    "empty",
    "zeros",
    "ones",
    "full",
    "rand",
    "randn",
    "new_zeros",
    "new_ones",
    "new_empty",
    "new_full",
    "empty_strided",
    "scalar_tensor",
    "new_empty_strided",
)
def created(call: Call) -> Axes:
    """A constant filled with one value fits any axis: it takes the axes of what it meets."""
    return [fresh(n) for n in call.shape]


@rule("arange", "linspace", "eye", "randperm", "tril_indices", "triu_indices", "hann_window")
def numbered(call: Call) -> Axes:
    """A constant whose values depend on the position: its order matters."""
    return [call.new(n, "its values depend on the position") for n in call.shape]


@rule("no rule")
def no_rule(call: Call) -> Any:
    """Freeze everything that goes in; nothing is known of what comes out."""
    why = "prunus has no rule for this operation"
    for axes in call.given:
        call.freeze(axes, why)

    def outputs(value: object) -> object:
        if isinstance(value, Tensor):
            return [call.new(n, why) for n in value.shape]
        return [outputs(item) for item in value] if isinstance(value, list | tuple) else None

    return outputs(call.node.meta.get("val"))
