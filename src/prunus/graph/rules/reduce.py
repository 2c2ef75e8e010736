"""Operations that drop, order or accumulate along dimensions."""

from __future__ import annotations

from torch import Tensor

from prunus.graph.axes import fresh
from prunus.graph.rules.pointwise import pointwise
from prunus.graph.solve import Axes, Call, rule


def _dims(call: Call, rank: int) -> set[int]:
    given = call.arguments.get("dim", call.arguments.get("dims"))
    if given is None or (isinstance(given, list | tuple) and not given):
        return set(range(rank))
    return {d % max(rank, 1) for d in (given if isinstance(given, list | tuple) else [given])}


def _reduced(call: Call) -> Axes:
    axes = call.solver.axes(call.operands[0])
    dims = _dims(call, len(axes))
    if call.arguments.get("keepdim", False):
        return [fresh(1) if d in dims else a for d, a in enumerate(axes)]
    return [a for d, a in enumerate(axes) if d not in dims]


@rule("histc", "bincount", "unique_consecutive", "_unique2")
def counted(call: Call) -> Axes | list[Axes]:
    """What is counted may come in any order; the counts have an order of their own."""
    ordered_too = call.name == "unique_consecutive"  # neighbours that are equal are one
    for node in call.operands[0 if ordered_too else 1 :]:
        call.freeze(call.solver.axes(node), "its order matters")
    value = call.node.meta["val"]
    if isinstance(value, list | tuple):
        return [[call.new(int(n), "its order matters") for n in part.shape] for part in value]
    return [call.new(int(n), "its order matters") for n in value.shape]


@rule(
    "sum",
    "mean",
    "amax",
    "amin",
    "prod",
    "any",
    "all",
    "var",
    "std",
    "logsumexp",
    "norm",
    "linalg_vector_norm",
    "var_mean",
    "std_mean",
    "nansum",
    "count_nonzero",
    "aminmax",
)
def symmetric(call: Call) -> Axes | list[Axes]:
    """The result doesn't depend on the order: the dimension is gone."""
    out = _reduced(call)
    value = call.node.meta["val"]
    return [list(out) for _ in value] if isinstance(value, list | tuple) else out


@rule("argmax", "argmin", "max", "min", "median", "nanmedian", "mode", "kthvalue")
def positional(call: Call) -> Axes | list[Axes]:
    """The result may say *where* something was, so the order matters; where only the value is used, it doesn't."""
    axes = call.solver.axes(call.operands[0])
    if call.arguments.get("other") is not None and len(call.operands) == 2:
        aligned: Axes | list[Axes] = pointwise(call)
        return aligned
    value = call.node.meta["val"]
    if isinstance(value, Tensor) and call.name in ("max", "min", "median", "nanmedian"):
        return []
    if isinstance(value, list | tuple) and call.name != "kthvalue" and not _is_used(call, 1):
        reduced: Axes | list[Axes] = symmetric(call)
        return reduced
    call.freeze([axes[d] for d in _dims(call, len(axes))], "a position in it is looked up")
    out = _reduced(call)
    return [list(out) for _ in value] if isinstance(value, list | tuple) else out


def _is_used(call: Call, position: int) -> bool:
    """Tell whether anything reads the result at ``position`` of an operation with several results."""
    return any(user.args[1] == position and bool(user.users) for user in call.node.users)


@rule("cumsum", "cumprod", "sort", "topk", "flip", "roll", "logcumsumexp", "cummax", "cummin")
def ordered(call: Call) -> Axes | list[Axes]:
    """The order along the dimension matters."""
    axes = list(call.solver.axes(call.operands[0]))
    value = call.node.meta["val"]
    dims = _dims(call, len(axes)) if len(axes) else set()
    call.freeze([axes[d] for d in dims], "its order matters")
    shape = call.shape
    out = [a if a.size == n else call.new(n, "its order matters") for a, n in zip(axes, shape, strict=True)]
    return [list(out) for _ in value] if isinstance(value, list | tuple) else out
