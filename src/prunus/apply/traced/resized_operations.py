"""Which numbers of an operation follow the sizes of what it reads and gives, and how?"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from prunus.apply.traced.trace_rewriter import Resize, Rewriter
from prunus.graph.solver.axes import Atom, cut, find

__all__ = ["RESIZE"]

aten = torch.ops.aten


def _restride(rewriter: Rewriter, old: Any, new: Any) -> None:
    new.target, new.args, new.kwargs = aten.alias.default, new.args[:1], {}


def _at(node: Any, position: int, value: Any) -> None:
    if position < len(node.args):
        node.update_arg(position, value)


def _all_of_shape(position: int) -> Resize:
    def resize(rewriter: Rewriter, old: Any, new: Any) -> None:
        _at(new, position, rewriter.shape(old))

    return resize


def _repeat(rewriter: Rewriter, old: Any, new: Any) -> None:
    """What was one becomes as many as there are; several copies of more than one are a factor that nothing cuts."""
    source, out = rewriter.axes(old.args[0]), rewriter.axes(old)
    new_dims = len(out) - len(source)
    counts = [
        rewriter.size(atom) if dim < new_dims or source[dim - new_dims].size == 1 else count
        for dim, (atom, count) in enumerate(zip(out, new.args[1], strict=True))
    ]
    _at(new, 1, counts)


def _view(rewriter: Rewriter, old: Any, new: Any) -> None:
    """A view that the strides allowed may not be one at other sizes: a reshape is the same view where it can be one."""
    new.target = aten.reshape.default
    new.args, new.kwargs = (new.args[0], rewriter.shape(old)), {}


def _split(rewriter: Rewriter, old: Any, new: Any) -> None:
    dim = old.args[2] if len(old.args) > 2 else old.kwargs.get("dim", 0)
    sizes = [rewriter.size(axes[dim]) for axes in rewriter.solver.values[old]]
    unsafe = old.target.overloadpacket.__name__.startswith("unsafe")  # results that may be written in place
    new.target = aten.unsafe_split_with_sizes.default if unsafe else aten.split_with_sizes.default
    new.args = (new.args[0], sizes, dim)
    new.kwargs = {}


def _slice(rewriter: Rewriter, old: Any, new: Any) -> None:
    """A stretch starts after what is left of the parts before it."""
    dim = old.args[1] if len(old.args) > 1 else 0
    step = old.args[4] if len(old.args) > 4 else 1
    source, out = rewriter.axes(old.args[0])[dim], rewriter.axes(old)[dim]
    if find(source) is find(out) or step != 1:
        if find(source) is find(out):
            new.args = (new.args[0], dim, 0, 2**63 - 1, 1)
        return
    if rewriter.untouched(source):
        return
    start = slice(old.args[2], old.args[3], 1).indices(source.size)[0]
    before = _prefix(find(source), start)
    begin: Any = 0
    for atom in before:
        begin = rewriter.combine(operator.add, begin, rewriter.size(atom))
    new.args = (new.args[0], dim, begin, rewriter.combine(operator.add, begin, rewriter.size(out)), 1)


def _prefix(root: Atom, start: int) -> list[Atom]:
    """Return the atoms that fill the first ``start`` positions of a sum."""
    found: list[Atom] = []
    pending = [root]
    while start and pending:
        part = find(pending.pop())
        if part.size <= start:
            found.append(part)
            start -= part.size
        elif part.kind == "product":
            # A stretch of the slowest factor: so many whole copies of the rest.
            pieces = cut(part, [start, part.size - start])
            return [*found, pieces[0]] if pieces else found
        else:
            pending.extend(reversed(part.parts))
    return found


def _group_norm(rewriter: Rewriter, old: Any, new: Any) -> None:
    batch, channels, *rest = rewriter.shape(old.args[0])
    area: Any = 1
    for size in rest:
        area = rewriter.combine(operator.mul, area, size)
    for position, value in zip((3, 4, 5), (batch, channels, area), strict=True):
        _at(new, position, value)
    if old.args[6] == rewriter.axes(old.args[0])[1].size:  # a group for each channel goes with its channel
        _at(new, 6, channels)


def _layer_norm(rewriter: Rewriter, old: Any, new: Any) -> None:
    n = len(old.args[1])
    _at(new, 1, [rewriter.size(atom) for atom in rewriter.axes(old.args[0])[-n:]])


def _convolution(rewriter: Rewriter, old: Any, new: Any) -> None:
    groups = old.args[8]
    if groups == 1:
        return
    x, weight, transposed = old.args[0], old.args[1], old.args[6]
    channels = rewriter.size(rewriter.axes(old if transposed else x)[1])
    per_group = rewriter.size(rewriter.axes(weight)[1])
    if isinstance(channels, int) and isinstance(per_group, int):
        _at(new, 8, channels // per_group)


def _attention(rewriter: Rewriter, old: Any, new: Any) -> None:
    """The scale defines the function: where it follows from the head dimension, it stays what it was.

    Fused kernels want one head dimension for all three operands; the plain one doesn't. Those of a GPU also want certain sizes and
    no double precision, and aren't there elsewhere. All read a mask of another type than the query's as garbage: a trace in
    single precision made it, and the graph may run in another one.
    """
    query, value = (rewriter.axes(node)[-1] for node in old.args[:3:2])
    named = {argument.name: argument.default_value for argument in old.target._schema.arguments}
    named |= dict(zip(named, new.args, strict=False)) | dict(new.kwargs)
    if named["scale"] is None:
        named["scale"] = query.size**-0.5
        new.kwargs = {**new.kwargs, "scale": named["scale"]}
    mask = named.get("attn_mask", named.get("attn_bias"))
    if isinstance(mask, fx.Node) and mask.meta["val"].is_floating_point():
        cast = rewriter.graph.call_function(aten.type_as.default, (mask, named["query"]))
        cast.meta = mask.meta
        new.replace_input_with(mask, cast)
        mask = cast
    packet = old.target.overloadpacket
    if packet is not _PLAIN and (packet is not _FOR_CPU or rewriter.size(query) != rewriter.size(value)):
        new.target = _PLAIN.default
        new.args = (named["query"], named["key"], named["value"])
        new.kwargs = {
            "attn_mask": mask,
            "dropout_p": named["dropout_p"],
            "is_causal": named["is_causal"],
            "scale": named["scale"],
        }


def _arange(rewriter: Rewriter, old: Any, new: Any) -> None:
    """Count as far as the dimension goes that the numbers stand for: the batch, or a sequence."""
    axis = find(rewriter.axes(old)[0])
    size = rewriter.size(axis) if axis in rewriter.of_input else axis.size
    if isinstance(size, int):
        return
    name = str(old.target._overloadname)
    if name == "default":
        _at(new, 0, size)
    elif name == "start" or (name == "start_step" and (old.args[2] if len(old.args) > 2 else 1) == 1):
        _at(new, 1, rewriter.combine(operator.add, old.args[0], size) if old.args[0] else size)


def _recurrent(rewriter: Rewriter, old: Any, new: Any) -> None:
    """A first state that the trace made in single precision goes along with what the layer reads."""

    def cast(state: Any) -> Any:
        return rewriter.graph.call_function(aten.type_as.default, (state, new.args[0]))

    held = new.args[1]
    _at(new, 1, [cast(state) for state in held] if isinstance(held, list | tuple) else cast(held))


def _embedding_bag(rewriter: Rewriter, old: Any, new: Any) -> None:
    """The traced variant has no gradient."""
    new.target = aten._embedding_bag.default


_PLAIN = aten._scaled_dot_product_attention_math
_FOR_CPU = aten._scaled_dot_product_flash_attention_for_cpu
RESIZE: dict[str, Resize] = {
    **dict.fromkeys(
        ("expand", "new_zeros", "new_ones", "new_empty", "new_full"),
        _all_of_shape(1),
    ),
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), _view),
    **dict.fromkeys(("zeros", "ones", "full", "empty", "rand", "randn"), _all_of_shape(0)),
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"), _split),
    "repeat": _repeat,
    "slice": _slice,
    "as_strided_": _restride,
    "as_strided": _restride,
    "native_group_norm": _group_norm,
    "native_layer_norm": _layer_norm,
    "convolution": _convolution,
    "arange": _arange,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    "_embedding_bag_forward_only": _embedding_bag,
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_attention_math",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_fused_attention_overrideable",
        ),
        _attention,
    ),
}
