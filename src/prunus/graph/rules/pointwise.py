"""Operations that work on each element by itself: aligned dimensions are the same axis."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from prunus.graph.axes import Atom, fresh
from prunus.graph.solve import Axes, Call, join, rule


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
    rank = max((len(call.solver.axes(node)) for node in call.operands), default=0)
    result: list[Atom] = [fresh(1) for _ in range(rank)]
    for node in call.operands:
        axes = call.solver.axes(node)
        for position, atom in enumerate(axes, start=rank - len(axes)):
            result[position] = join(result[position], atom)
    value = call.node.meta["val"]
    return [list(result) for _ in value] if isinstance(value, list | tuple) else result


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
    value = call.node.meta.get("val")
    axes = list(call.solver.axes(call.operands[0]))
    if isinstance(value, list | tuple):
        return [axes if part.dim() == len(axes) else [fresh(n) for n in part.shape] for part in value]
    if not isinstance(value, Tensor):
        return []
    if call.name.rstrip("_") in ("triu", "tril"):
        call.freeze(axes[-2:], "its order matters to a triangle")
    return axes


@rule("as_strided")
def as_strided(call: Call) -> Axes | list[Axes]:
    """Another memory layout of the same shape is the same; anything else is not understood."""
    axes = call.solver.axes(call.operands[0])
    if call.shape == tuple(atom.size for atom in axes):
        return list(axes)
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
    for node in call.operands:
        call.freeze(call.solver.axes(node), why)

    def outputs(value: object) -> object:
        if isinstance(value, Tensor):
            return [call.new(int(n), why) for n in value.shape]
        return [outputs(item) for item in value] if isinstance(value, list | tuple) else None

    return outputs(call.node.meta.get("val"))
