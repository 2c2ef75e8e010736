"""Operations that look entries up by number: the order of what is looked up matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


@rule("linalg_cross")
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
    axes, given, masks = call.axes("self"), *_numbers(call["indices"], call.axes("self"))
    looked = [d for d, item in enumerate(given) if isinstance(item, fx.Node)]
    call.freeze([axes[d] for d in looked], "its entries are looked up by number")
    kept = [a for d, a in enumerate(axes) if d not in looked]
    n_new = len(call.shape) - len(kept)
    at = _place(looked)
    new = [call.new(n, "its entries are looked up by number") for n in call.shape[at : at + n_new]]
    for d in looked if not masks else ():
        numbers = call.solver.axes(given[d])
        for place, atom in enumerate(numbers, start=n_new - len(numbers)):
            new[place] = join(new[place], atom)
        if (counted := _counted(given[d])) is not None and counted.meta["val"].numel() == axes[d].size:
            unify(axes[d], call.solver.axes(counted)[0])  # every entry, in order: nothing is chosen
    return [*kept[:at], *new, *kept[at:]]


def _numbers(indices: Sequence[Any], axes: Axes) -> tuple[list[Any], bool]:
    """Return what each dimension is looked up by (None where it isn't), and whether there is a mask among it."""
    given: list[Any] = []
    masks = False
    for item in indices:
        value = item.meta.get("val") if isinstance(item, fx.Node) else None
        # A mask of k dimensions stands for k of them.
        mask = isinstance(value, Tensor) and value.dtype in (torch.bool, torch.uint8)
        masks = masks or mask
        given += [item] * (value.dim() if mask and value is not None else 1)
    return given + [None] * (len(axes) - len(given)), masks


def _place(looked: Sequence[int]) -> int:
    """Return where the dimensions that are looked up lie in the result: in their place if they are neighbours, else in front."""
    contiguous = bool(looked) and list(looked) == list(range(looked[0], looked[-1] + 1))
    return looked[0] if contiguous else 0


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


@rule("index_put", "_index_put_impl", "_unsafe_index_put")
def put(call: Call) -> Axes:
    """Entries of some dimensions are written by number; the others are aligned with the values."""
    axes, values = call.axes("self"), call.axes("values")
    given, _ = _numbers(call["indices"], axes)
    looked = [d for d, item in enumerate(given) if isinstance(item, fx.Node)]
    call.freeze([axes[d] for d in looked], "its entries are written by number")
    kept = [a for d, a in enumerate(axes) if d not in looked]
    after = len(kept) - _place(looked)  # so many dimensions lie behind those of the numbers
    tail = values[max(len(values) - after, 0) :]
    for a, b in zip(kept[::-1], tail[::-1], strict=False):
        join(a, b)
    # Dimensions in front of the numbers are aligned only where the values have all dimensions.
    ranks = [1 if _is_mask(given[d]) else len(call.solver.axes(given[d])) for d in looked]
    front = len(kept) - after
    whole = len(values) == len(kept) + max(ranks, default=0)
    for a, b in zip(kept[:front], values[:front] if whole else [], strict=False):
        join(a, b)
    call.freeze(values[front if whole else 0 : len(values) - len(tail)], "its entries are written by number")
    if not whole:
        call.freeze(kept[:front], "its entries are written by number")
    return list(axes)


def _is_mask(node: fx.Node) -> bool:
    return node.meta["val"].dtype in (torch.bool, torch.uint8)


@rule("scatter", "scatter_add", "scatter_reduce", "index_add", "index_reduce", "index_copy", "index_fill")
def write(call: Call) -> Axes:
    """Entries of one dimension are written by number; in the others what is written is aligned with what it is written to.

    A sum (or a product, or the largest) of entries doesn't depend on their order, as long as each keeps its number.
    """
    axes, numbers = call.axes("self"), call.axes("index")
    if not axes:
        return []
    dim = call["dim"] % len(axes)
    source = next((call.axes(name) for name in ("src", "source", "value") if call.has(name)), [])
    why = "its entries are written by number"
    call.freeze([axes[dim]], why)
    along = call.name.startswith("index")  # numbers for whole slices, or for single entries
    written = [(d, atom) for d, atom in enumerate(source)] if len(source) == len(axes) else []
    written += [(dim, numbers[0])] if along and numbers else list(enumerate(numbers)) if not along else []
    for d, atom in written:
        if d != dim and atom.size == axes[d].size:
            unify(axes[d], atom)
        elif d != dim:
            call.freeze([axes[d], atom], why)  # only the first entries are written
    here = [atom for d, atom in written if d == dim]
    order = "add" not in call.name and "reduce" not in call.name and call.arguments.get("reduce") is None
    if order or len({atom.size for atom in here}) > 1:
        call.freeze(here, why)
    for atom in here[1:] if len({atom.size for atom in here}) == 1 else ():
        unify(here[0], atom)
    return list(axes)


@rule("segment_reduce")
def segments(call: Call) -> Axes:
    """Stretches of one dimension are reduced, each to one entry."""
    axes = list(call.axes("data"))
    dim = call["axis"] % len(axes)
    call.freeze([axes[dim]], "stretches of it are reduced")
    axes[dim] = call.new(call.shape[dim], "stretches of another dimension")
    return axes


@rule("masked_scatter")
def write_all(call: Call) -> Axes:
    """Entries are written one after the other, wherever the mask says."""
    for node in call.operands:
        call.freeze(call.solver.axes(node), "its entries are written in their order")
    return list(call.axes("self"))


@rule("repeat_interleave")
def repeat_interleave(call: Call) -> Axes:
    """The number of each entry, as often as the entry says."""
    call.freeze(call.axes("repeats"), "it is repeated by number")
    return [call.new(n, "it is a number of an entry") for n in call.shape]


@rule("gather")
def gather(call: Call) -> Axes:
    """Entries are looked up along one dimension, aligned in the others."""
    axes, where = call.axes("self"), call.axes("index")
    dim = call["dim"] % len(axes)
    call.freeze([axes[dim], where[dim]], "its entries are looked up by number")
    return [
        where[d] if d == dim else (join(a, w) if a.size == w.size else w)
        for d, (a, w) in enumerate(zip(axes, where, strict=True))
    ]
