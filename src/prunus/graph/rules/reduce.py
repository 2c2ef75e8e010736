"""Operations that drop, order or accumulate along dimensions."""

from __future__ import annotations

from prunus.graph.solver.axes import fresh
from prunus.graph.solver.solve import Axes, Call, rule


def _dims(call: Call) -> set[int]:
    """Return the dimensions that an operation names; all, if it names none."""
    rank = len(call.first)
    given = call.arguments.get("dim", call.arguments.get("dims"))
    named = given if isinstance(given, list | tuple) else [] if given is None else [given]
    return {d % rank for d in named or range(rank)} if rank else set()


def _reduced(call: Call) -> Axes:
    axes, dims = call.first, _dims(call)
    if call.arguments.get("keepdim"):
        return [fresh(1) if d in dims else a for d, a in enumerate(axes)]
    return [a for d, a in enumerate(axes) if d not in dims]


@rule("histc", "bincount", "unique_consecutive", "_unique2")
def counted(call: Call) -> Axes | list[Axes]:
    """What is counted may come in any order; the counts have an order of their own."""
    what, *weights = call.given
    value, why = call.node.meta["val"], "its order matters"
    several = isinstance(value, list | tuple)
    # Neighbours that are equal are one; the second result says which one each entry is.
    in_order = call.name == "unique_consecutive" or (several and _is_used(call, 1))
    for axes in [what, *weights] if in_order else weights:
        call.freeze(axes, why)
    if several:
        return [[call.new(n, why) for n in part.shape] for part in value]
    return [call.new(n, why) for n in value.shape]


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
    return call.alike(_reduced(call))


@rule("argmax", "argmin", "max", "min", "median", "nanmedian", "mode", "kthvalue")
def positional(call: Call) -> Axes | list[Axes]:
    """The result may say *where* something was, so the order matters; where only the value is used, it doesn't."""
    several = isinstance(call.node.meta["val"], list | tuple)
    if not several and call.name in ("max", "min", "median", "nanmedian"):
        return []
    if not several or call.name == "kthvalue" or _is_used(call, 1):
        call.freeze([call.first[d] for d in _dims(call)], "a position in it is looked up")
    return call.alike(_reduced(call))


def _is_used(call: Call, position: int) -> bool:
    """Tell whether anything reads the result at ``position`` of an operation with several results."""
    return any(user.args[1] == position and bool(user.users) for user in call.node.users)


@rule("cumsum", "cumprod", "sort", "topk", "flip", "roll", "logcumsumexp", "cummax", "cummin")
def ordered(call: Call) -> Axes | list[Axes]:
    """The order along the dimension matters."""
    call.freeze([call.first[d] for d in _dims(call)], "its order matters")
    return call.alike(call.resized(call.first, "its order matters"))
