"""Matrix products, convolutions and attention: contracted dimensions are the same axis."""

from __future__ import annotations

from prunus.graph.solver.axes import Atom, freeze, fresh, product, split_product, unify
from prunus.graph.solver.solve import Axes, Call, broadcast, rule


@rule("mm", "bmm", "dot", "vdot", "mv")
def matmul(call: Call) -> Axes:
    """``(..., n, k) @ (..., k, m)`` is ``(..., n, m)``."""
    return _product(*call.given)


def _product(left: Axes, right: Axes) -> Axes:
    *outer, contracted = left
    if len(right) == 1:
        unify(contracted, *right)
        return outer
    *batch, rows, columns = right
    unify(contracted, rows)
    return [*broadcast(outer[:-1], batch), outer[-1], columns]


@rule("_grouped_mm")
def grouped_matmul(call: Call) -> Axes:
    """Stretches of rows, each times the matrix of its expert: ``(rows, k) @ (experts, k, m)`` is ``(rows, m)``."""
    (rows, left), (experts, right, columns) = call.axes("self"), call.axes("mat2")
    unify(left, right)
    # Its kernel wants rows of 16 bytes, in half precision, too.
    call.solver.multiples += [(right, 8), (columns, 8)]
    call.freeze([experts], "its matrices are told apart by number")
    call.freeze([rows], "stretches of it belong to one matrix each")
    return [rows, columns]


@rule("addmm", "baddbmm", "addbmm", "addmv")
def add_matmul(call: Call) -> Axes:
    """A matrix product (or the sum of several) and something added to it."""
    added, left, right = call.given
    result = _product(left, right)
    return broadcast(result[1:] if call.name == "addbmm" else result, added)


@rule("linear")
def linear(call: Call) -> Axes:
    """``x @ weight.T + bias``."""
    (*outer, contracted), (made, read) = call.axes("input"), call.axes("weight")
    unify(contracted, read)
    if call.has("bias"):
        unify(made, *call.axes("bias"))
    return [*outer, made]


@rule("convolution", "_convolution")
def convolution(call: Call) -> Axes:
    """Channels are contracted group by group: g x (in/g) against g x (out/g). A kernel of one position leaves positions alone."""
    (examples, channels, *positions), (first, second, *kernel) = call.axes("input"), call.axes("weight")
    call.freeze(kernel, "it is a side of the kernel")
    grouped = _grouped(first, second, int(call["groups"]))
    contracted, made = (first, grouped) if call["transposed"] else (grouped, first)
    unify(channels, contracted)
    if call.has("bias"):
        unify(made, *call.axes("bias"))
    if any(atom.size != 1 for atom in kernel) or [atom.size for atom in positions] != list(call.shape[2:]):
        call.freeze(positions, "it is a position in space")
        positions = [call.new(n, "it is a position in space") for n in call.shape[2:]]
    return [examples, made, *positions]


def _grouped(whole: Atom, per_group: Atom, groups: int) -> Atom:
    """Return the axis of all groups of ``per_group`` channels on one side, where ``whole`` has as many groups on the other."""
    halves = split_product(whole, groups)
    if halves is None:
        freeze(whole, "its groups cut across parts")
        return product([fresh(groups, "its groups cut across parts"), per_group])
    return product([halves[0], per_group])


@rule(
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_attention_math_for_mps",
    "_scaled_dot_product_fused_attention_overrideable",
)
def attention(call: Call) -> list[Axes | None]:
    """``query`` and ``key`` share the head dimension, ``key`` and ``value`` the sequence, all three the heads."""
    *outer, queries, read = call.axes("query")
    *outer_key, keys, width = call.axes("key")
    *outer_value, values, made = call.axes("value")
    unify(read, width)
    unify(keys, values)
    broadcast(outer_key, outer_value)
    for query, key in zip(outer, outer_key, strict=True):
        # Every key head serves a row of query heads.
        halves = split_product(query, key.size)
        if halves is None or not unify(halves[0], key):
            call.freeze([query, key], "its query heads don't group by key heads")
    for name in ("attn_mask", "attn_bias"):
        if call.has(name):
            broadcast([*outer, queries, keys], call.axes(name))
    if call["is_causal"]:
        call.freeze([queries, keys], "its order matters to the causal mask")
    return call.with_side_results([*outer, queries, made])


@rule("_trilinear")
def trilinear(call: Call) -> Axes:
    """The sum over some dimensions of a product of three operands, each with dimensions of one put in."""
    operands = call.given
    for axes, places in zip(operands, ("expand1", "expand2", "expand3"), strict=True):
        for place in sorted(call[places]):
            axes.insert(place, fresh(1))
    return [atom for dim, atom in enumerate(broadcast(*operands)) if dim not in call["sumdim"]]


@rule("_euclidean_dist", "_cdist_forward")
def distances(call: Call) -> Axes:
    """Rows against rows; the columns are compared one by one."""
    (*batch, rows, compared), (*other_batch, other_rows, other) = call.given
    unify(compared, other)
    return [*broadcast(batch, other_batch), rows, other_rows]


@rule("addr")
def outer(call: Call) -> Axes:
    """One dimension of each operand."""
    return broadcast(call.axes("self"), [*call.axes("vec1"), *call.axes("vec2")])


@rule("_weight_norm_interface")
def weight_norm(call: Call) -> list[Axes]:
    """A weight divided by its norm over all dimensions but one, times a gain for each of that one."""
    weight, gain = call.given
    return [broadcast(weight, gain), gain]
