"""Matrix products, convolutions and attention: contracted dimensions are the same axis."""

from __future__ import annotations

from prunus.graph.axes import Atom, freeze, fresh, product, split_product, unify
from prunus.graph.solve import Axes, Call, join, rule


@rule("mm", "bmm", "dot", "vdot", "mv")
def matmul(call: Call) -> Axes:
    """``(..., n, k) @ (..., k, m)`` is ``(..., n, m)``."""
    left, right = (call.solver.axes(node) for node in call.operands[:2])
    return _product(left, right)


def _product(left: Axes, right: Axes) -> Axes:
    if len(right) == 1:
        unify(left[-1], right[0])
        return left[:-1]
    if len(left) == 1:
        unify(left[0], right[-2])
        return [*right[:-2], right[-1]]
    unify(left[-1], right[-2])
    batch = [join(a, b) for a, b in zip(left[:-2], right[:-2], strict=True)]
    return [*batch, left[-2], right[-1]]


@rule("_grouped_mm")
def grouped_matmul(call: Call) -> Axes:
    """Stretches of rows, each times the matrix of its expert: ``(rows, k) @ (experts, k, m)`` is ``(rows, m)``."""
    rows, experts = (call.solver.axes(node) for node in call.operands[:2])
    unify(rows[-1], experts[-2])
    call.solver.multiples += [
        (atom, 8) for atom in experts[1:]
    ]  # its kernel wants rows of 16 bytes, in half precision, too
    call.freeze(experts[:1], "its matrices are told apart by number")
    call.freeze(rows[:1], "stretches of it belong to one matrix each")
    return [rows[0], experts[-1]]


@rule("addmm", "baddbmm", "addbmm", "addmv")
def add_matmul(call: Call) -> Axes:
    """A matrix product (or the sum of several) and something added to it."""
    added, left, right = (call.solver.axes(node) for node in call.operands[:3])
    result = _product(left, right)
    result = result[1:] if call.name == "addbmm" else result
    for position, atom in enumerate(added, start=len(result) - len(added)):
        result[position] = join(result[position], atom)
    return result


@rule("linear")
def linear(call: Call) -> Axes:
    """``x @ weight.T + bias``."""
    weight = call.axes("weight")
    x = call.axes("input")
    unify(x[-1], weight[1])
    if call.has("bias"):
        unify(weight[0], call.axes("bias")[0])
    return [*x[:-1], weight[0]]


@rule("convolution", "_convolution")
def convolution(call: Call) -> Axes:
    """Channels are contracted group by group: g x (in/g) against g x (out/g). A kernel of one position leaves positions alone."""
    x, weight, groups = call.axes("input"), call.axes("weight"), int(call["groups"])
    transposed = bool(call.arguments.get("transposed", False))
    call.freeze(weight[2:], "it is a side of the kernel")
    batched = len(x) == len(weight)
    channels = x[1] if batched else x[0]
    if transposed:
        contracted, made = weight[0], _grouped_out(weight[0], weight[1], groups)
    else:
        contracted, made = _grouped_in(weight[0], weight[1], groups), weight[0]
    if groups == 1 or contracted.size == channels.size:
        unify(channels, contracted)
    if call.has("bias"):
        unify(made, call.axes("bias")[0])
    positions, left = x[2 if batched else 1 :], call.shape[2 if batched else 1 :]
    if any(atom.size != 1 for atom in weight[2:]) or tuple(atom.size for atom in positions) != left:
        call.freeze(positions, "it is a position in space")
        positions = [call.new(n, "it is a position in space") for n in left]
    return [*x[: 1 if batched else 0], made, *positions]


def _grouped_in(out: Atom, per_group: Atom, groups: int) -> Atom:
    """Return the axis of the input channels of a grouped convolution, whose output has the same groups."""
    if groups == 1:
        return per_group
    halves = split_product(out, groups)
    if halves is None:
        freeze(out, "its groups cut across parts")
        return product([fresh(groups, "its groups cut across parts"), per_group])
    return product([halves[0], per_group])


def _grouped_out(channels: Atom, per_group: Atom, groups: int) -> Atom:
    """Return the axis of the output channels of a grouped transposed convolution."""
    return _grouped_in(channels, per_group, groups)


@rule(
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_attention_math_for_mps",
    "_scaled_dot_product_fused_attention_overrideable",
)
def attention(call: Call) -> Axes | list[Axes | None]:
    """``query`` and ``key`` share the head dimension, ``key`` and ``value`` the sequence, all three the heads."""
    query, key, value = call.axes("query"), call.axes("key"), call.axes("value")
    unify(query[-1], key[-1])
    unify(key[-2], value[-2])
    for q, k, v in zip(query[:-2], key[:-2], value[:-2], strict=True):
        join(k, v)
        if q.size == k.size:
            unify(q, k)
        elif k.size != 1:
            _grouped_query(call, q, k)
    if call.has("attn_mask"):
        mask = call.axes("attn_mask")
        scores = [*query[:-1], key[-2]]
        for atom, other in zip(mask, scores[len(scores) - len(mask) :], strict=True):
            join(atom, other)
    if call.arguments.get("is_causal"):
        call.freeze([query[-2], key[-2]], "its order matters to the causal mask")
    out = [*query[:-1], value[-1]]
    result = call.node.meta["val"]
    if not isinstance(result, list | tuple):
        return out
    rest = [
        [call.new(int(n), "a side result of attention") for n in tensor.shape] if tensor is not None else None
        for tensor in result[1:]
    ]
    return [out, *rest]


@rule("_trilinear")
def trilinear(call: Call) -> Axes:
    """The sum over some dimensions of a product of three operands, each with dimensions of one put in."""
    aligned: Axes = []
    for name, places in (("i1", "expand1"), ("i2", "expand2"), ("i3", "expand3")):
        axes = list(call.axes(name))
        for place in sorted(call[places]):
            axes.insert(place, fresh(1))
        aligned = [join(a, b) for a, b in zip(aligned, axes, strict=True)] if aligned else axes
    return [atom for dim, atom in enumerate(aligned) if dim not in set(call["sumdim"])]


@rule("_euclidean_dist", "_cdist_forward")
def distances(call: Call) -> Axes:
    """Rows against rows; the columns are compared one by one."""
    left, right = (call.solver.axes(node) for node in call.operands[:2])
    unify(left[-1], right[-1])
    batch = [join(a, b) for a, b in zip(left[:-2], right[:-2], strict=True)]
    return [*batch, left[-2], right[-2]]


@rule("addr")
def outer(call: Call) -> Axes:
    """One dimension of each operand."""
    left, right, added = call.axes("vec1")[0], call.axes("vec2")[0], call.axes("self")
    left, right = join(left, added[-2]) if len(added) > 1 else left, join(right, added[-1]) if added else right
    return [left, right]


@rule("_weight_norm_interface")
def weight_norm(call: Call) -> list[Axes]:
    """A weight divided by its norm over all dimensions but one, times a gain for each of that one."""
    weight, gain = list(call.axes("v")), call.axes("g")
    weight = [join(a, b) for a, b in zip(weight, gain, strict=True)] if len(gain) == len(weight) else weight
    norms = call.node.meta["val"][1]
    return [weight, [a if a.size == n else fresh(int(n)) for a, n in zip(weight, norms.shape, strict=True)]]


def _grouped_query(call: Call, query: Atom, key: Atom) -> None:
    """Every key head serves a row of query heads."""
    halves = split_product(query, key.size)
    if halves is None or not unify(halves[0], key):
        call.freeze([query, key], "its query heads don't group by key heads")
