"""Operations that work on each element by itself: aligned dimensions are the same axis."""

from __future__ import annotations

from torch import Tensor

from prunus.graph.axes import Atom, fresh
from prunus.graph.solve import Axes, Call, join, rule


@rule("pointwise", "copy", "masked_fill", "native_dropout", "bernoulli", "clamp", "where", "lerp", "addcmul", "addcdiv")
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
    "to",
    "contiguous",
    "detach",
    "alias",
    "lift_fresh",
    "lift_fresh_copy",
    "dropout",
    "_conj",
    "resolve_conj",
    "fill",
    "zero",
    "zeros_like",
    "ones_like",
    "empty_like",
    "rand_like",
    "randn_like",
    "full_like",
    "new_empty_strided_like",
    "view_as_real_copy",
    "bernoulli_",
    "nan_to_num",
    "_softmax",
    "softmax",
    "_log_softmax",
    "log_softmax",
    "_safe_softmax",
    "positive",
    "triu",
    "tril",
    "_assert_tensor_metadata",
)
def same(call: Call) -> Axes:
    """Keep every axis. Softmax is here, too: reordering its entries reorders its results."""
    if not isinstance(call.node.meta.get("val"), Tensor):
        return []
    axes = list(call.solver.axes(call.operands[0]))
    if call.name.rstrip("_") in ("triu", "tril"):
        call.freeze(axes[-2:], "its order matters to a triangle")
    return axes


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
def no_rule(call: Call) -> object:
    """Freeze everything that goes in; nothing is known of what comes out."""
    why = "prunus has no rule for this operation"
    for node in call.operands:
        call.freeze(call.solver.axes(node), why)

    def outputs(value: object) -> object:
        if isinstance(value, Tensor):
            return [call.new(int(n), why) for n in value.shape]
        return [outputs(item) for item in value] if isinstance(value, list | tuple) else None

    return outputs(call.node.meta.get("val"))
