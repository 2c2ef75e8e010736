"""Operations that look entries up by number: the order of what is looked up matters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise

import torch
from torch import fx

from prunus.graph.solver.axes import fresh, unify
from prunus.graph.solver.solve import Axes, Call, arguments_of, broadcast, rule


@rule("embedding")
def embedding(call: Call) -> Axes:
    """Rows are looked up, columns stay."""
    rows, columns = call.axes("weight")
    call.freeze([rows], "its rows are looked up by number")
    return [*call.axes("indices"), columns]


@rule("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(call: Call) -> list[Axes | None]:
    """Rows are looked up and summed, columns stay."""
    (rows, columns), *numbers = call.given
    call.freeze([rows], "its rows are looked up by number")
    for axes in numbers:
        call.freeze(axes, "it is cut into bags")
    bags = call.new(call.shape[0], "it is a bag of rows that are looked up")
    return call.with_side_results([bags, columns])


@rule("linalg_cross")
def cross(call: Call) -> Axes:
    """Three coordinates, each with a place of its own."""
    result = broadcast(*call.given)
    call.freeze([result[call["dim"]]], "its entries are coordinates")
    return result


@rule("_fft_r2c", "_fft_c2r", "_fft_c2c")
def fourier(call: Call) -> Axes:
    """Positions become frequencies; other dimensions stay."""
    call.freeze([call.first[dim] for dim in call["dim"]], "a Fourier transform runs along it")
    return call.resized(call.first, "it is a frequency")


@rule("index_select")
def index_select(call: Call) -> Axes:
    """Entries of one dimension are looked up."""
    axes, dim = call.first, call["dim"]
    call.freeze([axes[dim]], "its entries are looked up by number")
    axes[dim] = call.new(call.shape[dim], "its entries are looked up by number")
    return axes


@rule("index", "_unsafe_index")
def index(call: Call) -> Axes:
    """Some dimensions are looked up, those with None stay."""
    axes, numbers = call.axes("self"), _numbers(call)
    call.freeze([axes[d] for d in numbers], "its entries are looked up by number")
    kept = [a for d, a in enumerate(axes) if d not in numbers]
    at, n_new = _place(list(numbers)), len(call.shape) - len(kept)
    new = [call.new(n, "its entries are looked up by number") for n in call.shape[at : at + n_new]]
    for d, node in numbers.items():
        broadcast(new, _axes_of(call, node))
        counted = _counted(node)
        if counted is not None and counted.meta["val"].numel() == axes[d].size:
            unify(axes[d], *call.solver.axes(counted))  # every entry, in order: nothing is chosen
    return [*kept[:at], *new, *kept[at:]]


def _numbers(call: Call) -> dict[int, fx.Node]:
    """Return what looks dimensions up; a mask of k dimensions stands for k of them."""
    given = [[item] * (item.meta["val"].dim() if _is_mask(item) else 1) for item in call["indices"]]
    return {d: node for d, node in enumerate(chain(*given)) if node is not None}


def _is_mask(node: fx.Node | None) -> bool:
    return node is not None and node.meta["val"].dtype in (torch.bool, torch.uint8)


def _axes_of(call: Call, node: fx.Node) -> Axes:
    """Return the axes of numbers; what a mask chooses is one dimension, and the mask's own are frozen."""
    axes = call.solver.axes(node)
    if not _is_mask(node):
        return axes
    call.freeze(axes, "it is a mask")
    return [fresh(1)]


def _place(looked: Sequence[int]) -> int:
    """Return where the dimensions that are looked up lie in the result: in their place if they are neighbours, else in front."""
    return looked[0] if looked[-1] - looked[0] < len(looked) else 0


def _counted(node: fx.Node) -> fx.Node | None:
    """Return the ``arange`` from 0 that a node passes on with other dimensions; None where its numbers are others."""
    while isinstance(node.target, torch._ops.OpOverload):
        name = node.target.overloadpacket.__name__
        if name == "arange":
            given = arguments_of(node)
            return node if given.get("start", 0) == 0 and given.get("step", 1) == 1 else None
        nothing_added = name == "add" and node.args[1] == 0
        if not (nothing_added or name in ("unsqueeze", "view", "detach", "alias", "_to_copy")):
            return None
        node = node.args[0]  # type: ignore[assignment]
    return None


@rule("index_put", "_index_put_impl", "_unsafe_index_put")
def put(call: Call) -> Axes:
    """Entries of some dimensions are written by number; the others are aligned with the values."""
    axes, values, numbers = call.axes("self"), call.axes("values"), _numbers(call)
    why = "its entries are written by number"
    call.freeze([axes[d] for d in numbers], why)
    kept = [a for d, a in enumerate(axes) if d not in numbers]
    looked = [_axes_of(call, node) for node in numbers.values()]
    at, n_new = _place(list(numbers)), max(map(len, looked))
    written = [fresh(1) for _ in range(len(kept) + n_new - len(values))] + values
    new = written[at : at + n_new]
    call.freeze(new, why)
    broadcast(new, *looked)
    broadcast(kept, [*written[:at], *written[at + n_new :]])
    return axes


@rule("scatter", "scatter_add", "scatter_reduce", "index_add", "index_reduce", "index_copy", "index_fill")
def write(call: Call) -> Axes:
    """Entries of one dimension are written by number; in the others what is written is aligned with what it is written to.

    A sum (or a product, or the largest) of entries doesn't depend on their order, as long as each keeps its number.
    """
    axes, numbers = call.axes("self"), call.axes("index")
    if not axes:
        return []
    dim, why = call.dim, "its entries are written by number"
    call.freeze([axes[dim]], why)
    source = next((call.axes(name) for name in ("src", "source", "value") if call.has(name)), [])
    along = call.name.startswith("index")  # numbers for whole slices, or for single entries
    aligned = [other for other in (source, [] if along else numbers) if other]
    together = [[other[d] for other in aligned] for d in range(len(axes))]
    together[dim] += numbers if along else []
    if "add" not in call.name and "reduce" not in call.name and call.arguments.get("reduce") is None:
        call.freeze(together[dim], why)
    for d, atoms in enumerate(together):
        _as_one(call, atoms if d == dim else [axes[d], *atoms], why)
    return list(axes)


def _as_one(call: Call, atoms: Axes, why: str) -> None:
    """Say that axes are the same; where their sizes differ only the first entries of the larger ones are met."""
    if len({atom.size for atom in atoms}) > 1:
        call.freeze(atoms, why)
    else:
        for one, other in pairwise(atoms):
            unify(one, other)


@rule("segment_reduce")
def segments(call: Call) -> Axes:
    """Stretches of one dimension are reduced, each to one entry."""
    axes, dim = call.axes("data"), call["axis"]
    call.freeze(axes[: dim + 1], "stretches of it are reduced")  # each entry of those in front may have its own
    return [*axes[:dim], call.new(call.shape[dim], "stretches of another dimension"), *axes[dim + 1 :]]


@rule("masked_scatter")
def write_all(call: Call) -> Axes:
    """Entries are written one after the other, wherever the mask says."""
    for axes in call.given:
        call.freeze(axes, "its entries are written in their order")
    return call.axes("self")


@rule("repeat_interleave")
def repeat_interleave(call: Call) -> Axes:
    """The number of each entry, as often as the entry says."""
    call.freeze(call.axes("repeats"), "it is repeated by number")
    return [call.new(n, "it is a number of an entry") for n in call.shape]


@rule("gather")
def gather(call: Call) -> Axes:
    """Entries are looked up along one dimension, aligned in the others."""
    axes, where, why = call.axes("self"), call.axes("index"), "its entries are looked up by number"
    for d, atom in enumerate(axes):
        if d == call.dim:
            call.freeze([atom, where[d]], why)
        else:
            _as_one(call, [atom, where[d]], why)
    return where
