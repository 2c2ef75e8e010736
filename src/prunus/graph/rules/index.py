"""Operations that look entries up by number: the order of what is looked up matters."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from prunus.graph.axes import unify
from prunus.graph.solve import Axes, Call, join, rule


@rule("embedding")
def embedding(call: Call) -> Axes:
    """Rows are looked up, columns stay."""
    weight, index = call.axes("weight"), call.axes("indices")
    call.freeze([weight[0]], "its rows are looked up by number")
    return [*index, weight[1]]


@rule("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(call: Call) -> list[Axes]:
    """Rows are looked up and summed, columns stay."""
    weight = call.axes("weight")
    call.freeze([weight[0]], "its rows are looked up by number")
    why = "it is a bag of rows that are looked up"
    out, *rest = call.node.meta["val"]
    return [[call.new(int(out.shape[0]), why), weight[1]], *([call.new(int(n), why) for n in v.shape] for v in rest)]


@rule("linalg_cross", "cross")
def cross(call: Call) -> Axes:
    """Three coordinates, each with a place of its own."""
    left, right = (call.solver.axes(node) for node in call.operands[:2])
    result = [join(a, b) for a, b in zip(left, right, strict=True)]
    call.freeze([result[call["dim"] % len(result)]], "its entries are coordinates")
    return result


@rule("_fft_r2c", "_fft_c2r", "_fft_c2c")
def fourier(call: Call) -> Axes:
    """Positions become frequencies; other dimensions stay."""
    axes = list(call.axes("self"))
    for dim in call["dim"]:
        call.freeze([axes[dim % len(axes)]], "a Fourier transform runs along it")
    return [a if a.size == n else call.new(n, "it is a frequency") for a, n in zip(axes, call.shape, strict=True)]


@rule("index_select")
def index_select(call: Call) -> Axes:
    """Entries of one dimension are looked up."""
    axes = list(call.solver.axes(call.operands[0]))
    dim = call["dim"] % len(axes)
    call.freeze([axes[dim]], "its entries are looked up by number")
    axes[dim] = call.new(call.shape[dim], "its entries are looked up by number")
    return axes


@rule("index", "_unsafe_index")
def index(call: Call) -> Axes:
    """Some dimensions are looked up, those with None stay."""
    axes, given, masks = call.axes("self"), [], False
    for item in call["indices"]:
        value = item.meta.get("val") if isinstance(item, fx.Node) else None
        # A mask of k dimensions stands for k of them.
        mask = isinstance(value, Tensor) and value.dtype in (torch.bool, torch.uint8)
        masks = masks or mask
        given += [item] * (value.dim() if mask and value is not None else 1)
    given += [None] * (len(axes) - len(given))
    looked = [d for d, item in enumerate(given) if isinstance(item, fx.Node)]
    call.freeze([axes[d] for d in looked], "its entries are looked up by number")
    kept = [a for d, a in enumerate(axes) if d not in looked]
    n_new = len(call.shape) - len(kept)
    contiguous = looked == list(range(looked[0], looked[-1] + 1)) if looked else True
    at = looked[0] if looked and contiguous else 0
    new = [call.new(n, "its entries are looked up by number") for n in call.shape[at : at + n_new]]
    for d in looked if not masks else ():
        numbers = call.solver.axes(given[d])
        for place, atom in enumerate(numbers, start=n_new - len(numbers)):
            new[place] = join(new[place], atom)
        if (counted := _counted(given[d])) is not None and counted.meta["val"].numel() == axes[d].size:
            unify(axes[d], call.solver.axes(counted)[0])  # every entry, in order: nothing is chosen
    return [*kept[:at], *new, *kept[at:]]


def _counted(node: fx.Node) -> fx.Node | None:
    """Return the ``arange`` from 0 that a node passes on with other dimensions; None where its numbers are others."""
    while isinstance(node.target, torch._ops.OpOverload):
        name = node.target.overloadpacket.__name__
        if name == "arange":
            start = node.args[0] if node.target._overloadname != "default" else 0
            return node if start == 0 and len(node.args) < 3 else None
        nothing_added = name == "add" and node.args[1] == 0
        if not (nothing_added or name in ("unsqueeze", "view", "detach", "alias", "_to_copy")):
            return None
        node = node.args[0]  # type: ignore[assignment]
    return None


@rule(
    "index_put",
    "_index_put_impl",
    "_unsafe_index_put",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "index_add",
    "index_copy",
    "masked_scatter",
)
def write(call: Call) -> Axes:
    """Entries are written by number; dimensions that no index touches stay together."""
    axes = call.solver.axes(call.operands[0])
    if call.name.rstrip("_").startswith("index") and "dim" in call.arguments:
        dim = call["dim"] % len(axes)
        call.freeze([axes[dim]], "its entries are written by number")
        source = call.solver.axes(call.operands[2])
        call.freeze([source[dim]], "its entries are written by number")
        for d, (a, b) in enumerate(zip(axes, source, strict=True)):
            if d != dim:
                join(a, b)
        return list(axes)
    if call.name.rstrip("_").endswith("index_put") or call.name == "_index_put_impl":
        given = list(call["indices"])
        n = len(given)
        call.freeze(axes[:n], "its entries are written by number")
        values = call.axes("values")
        rest = axes[n:]
        for a, b in zip(rest[::-1], values[::-1], strict=False):
            join(a, b)
        call.freeze(values[: max(len(values) - len(rest), 0)], "its entries are written by number")
        return list(axes)
    for node in call.operands:
        call.freeze(call.solver.axes(node), "its entries are written by number")
    return list(axes)


@rule("gather", "take_along_dim")
def gather(call: Call) -> Axes:
    """Entries are looked up along one dimension, aligned in the others."""
    axes, where = call.axes("self"), call.axes("index")
    dim = call["dim"] % len(axes)
    call.freeze([axes[dim], where[dim]], "its entries are looked up by number")
    return [
        where[d] if d == dim else (join(a, w) if a.size == w.size else w)
        for d, (a, w) in enumerate(zip(axes, where, strict=True))
    ]
