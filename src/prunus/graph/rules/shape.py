"""Views and copies that change the shape: refine, permute, join and cut axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prunus.graph.solver.axes import Atom, cut, fresh, product, split_product, sum_of
from prunus.graph.solver.solve import Axes, Call, broadcast, join, rule


@rule("view", "_unsafe_view", "_reshape_alias", "view_copy")
def view(call: Call) -> Axes:
    """Read the same row-major elements in another grid: the factors are the same, from left to right.

    Dimensions before and after that hold as many elements stand by themselves: what cuts across an axis is of no matter to others.
    """
    shape = call.shape
    if 0 in shape:
        return [call.new(n, "it is empty") for n in shape]
    result = [fresh(1) for _ in shape]
    for axes, dims in _beside(call.first, shape):
        read = _read_as(axes, [shape[dim] for dim in dims])
        if read is None:
            why = "it is cut across by a reshape"
            call.freeze(axes, why)
            read = [call.new(shape[dim], why) for dim in dims]
        for dim, atom in zip(dims, read, strict=True):
            result[dim] = atom
    return result


def _beside(axes: Axes, shape: Sequence[int]) -> Iterator[tuple[Axes, list[int]]]:
    """Yield the shortest runs of axes, and of the new dimensions, that hold as many elements; those of one are left out."""
    old = [atom for atom in axes if atom.size != 1]
    new = [dim for dim, n in enumerate(shape) if n != 1]
    taken: Axes = []
    dims: list[int] = []
    before = after = 1
    while old or new:
        if before <= after:
            taken.append(old.pop(0))
            before *= taken[-1].size
        else:
            dims.append(new.pop(0))
            after *= shape[dims[-1]]
        if before == after and dims:
            yield taken, dims
            taken, dims, before, after = [], [], 1, 1


def _read_as(axes: Axes, sizes: list[int]) -> Axes | None:
    """Return axes of these sizes over the factors of ``axes``; None where a size cuts across a factor."""
    pending, result = axes[::-1], []
    for need in sizes:
        taken: list[Atom] = []
        while need > 1:
            atom = pending.pop()
            if need % atom.size:  # it goes on in the next dimension
                halves = split_product(atom, need)
                if halves is None:
                    return None
                atom, rest = halves
                pending.append(rest)
            taken.append(atom)
            need //= atom.size
        result.append(product(taken))
    return result


@rule("permute", "transpose", "t", "permute_copy")
def permute(call: Call) -> Axes:
    """Reorder the dimensions."""
    axes = call.first
    if call.name == "t":
        return axes[::-1]
    if "dims" in call.arguments:
        return [axes[dim] for dim in call["dims"]]
    one, other = call["dim0"], call["dim1"]
    axes[one], axes[other] = axes[other], axes[one]
    return axes


@rule("squeeze", "squeeze_copy", "unsqueeze", "unsqueeze_copy")
def squeeze(call: Call) -> Axes:
    """Put dimensions of one in, or leave them out."""
    rest = iter([atom for atom in call.first if atom.size != 1])
    return [fresh(1) if n == 1 else next(rest) for n in call.shape]


@rule("expand", "expand_copy")
def expand(call: Call) -> Axes:
    """Repeat along dimensions of one; the copies are an axis of their own."""
    return broadcast(call.first, [fresh(n) for n in call.shape])


@rule("repeat")
def repeat(call: Call) -> Axes:
    """Lay copies side by side: copies x dimension."""
    axes = broadcast(call.first, [fresh(1) for _ in call.shape])
    return [product([fresh(int(call["repeats"][d])), atom]) for d, atom in enumerate(axes)]


@rule("cat")
def cat(call: Call) -> Axes:
    """One dimension is the sum of its parts, the others are the same."""
    parts = [axes for axes in call.given if [atom.size for atom in axes] != [0]]
    dim = call["dim"] % len(parts[0])
    whole = sum_of([axes.pop(dim) for axes in parts])
    others = broadcast(*parts)
    return [*others[:dim], whole, *others[dim:]]


@rule("stack")
def stack(call: Call) -> Axes:
    """A new dimension, along which every entry has its own place."""
    result = broadcast(*call.given)
    dim = call["dim"] % len(call.shape)
    result.insert(dim, call.new(call.shape[dim], "it is stacked from separate tensors"))
    return result


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "split_copy", "split_with_sizes_copy")
def split(call: Call) -> list[Axes]:
    """Consecutive pieces: the dimension is the sum of them."""
    axes, dim = call.first, call.dim
    sizes = [int(value.shape[dim]) for value in call.node.meta["val"]]
    return [_with(axes, dim, piece) for piece in _pieces(call, axes[dim], sizes)]


def _pieces(call: Call, atom: Atom, sizes: list[int]) -> list[Atom]:
    pieces = cut(atom, sizes)
    if pieces is None:
        why = "it is cut across its parts"
        call.freeze([atom], why)
        return [call.new(n, why) for n in sizes]
    filled = iter(pieces)
    return [next(filled) if n else fresh(0) for n in sizes]


def _with(axes: Axes, dim: int, atom: Atom) -> Axes:
    return [*axes[:dim], atom, *axes[dim + 1 :]]


@rule("slice", "slice_copy")
def slice_(call: Call) -> Axes:
    """A stretch of a dimension, or every n-th of its entries."""
    axes, dim = call.first, call.dim
    atom, size, step = axes[dim], call.shape[dim], call["step"]
    start, _, _ = slice(call["start"], call["end"], step).indices(atom.size)
    if size == 0:
        return _with(axes, dim, fresh(0))
    if step == 1:
        return _with(axes, dim, _pieces(call, atom, [start, size, atom.size - start - size])[1])
    if atom.size == size * step:
        halves = split_product(atom, size)
        if halves is not None:
            call.freeze([halves[1]], "every entry of it is picked by its place")
            return _with(axes, dim, halves[0])
    call.freeze([atom], "single entries of it are picked")
    return _with(axes, dim, call.new(size, "single entries of it are picked"))


@rule("select", "select_copy")
def select(call: Call) -> Axes:
    """One entry of a dimension."""
    axes = call.first
    call.freeze([axes.pop(call["dim"])], "one entry of it is picked")
    return axes


@rule("unbind", "unbind_copy")
def unbind(call: Call) -> Axes | list[Axes]:
    """Every entry of a dimension, one by one."""
    axes = call.first
    call.freeze([axes.pop(call["dim"])], "its entries are taken apart")
    return call.alike(axes)


@rule("constant_pad_nd")
def pad(call: Call) -> Axes:
    """What is padded stays where it is: a sum of fixed padding and the dimension."""
    axes, why = call.first, "it is padding"
    for dim, before, after in zip(reversed(range(len(axes))), call["pad"][::2], call["pad"][1::2], strict=False):
        if before < 0 or after < 0:
            call.freeze([axes[dim]], "it is cropped")
            axes[dim] = call.new(call.shape[dim], "it is cropped")
        else:
            axes[dim] = sum_of([call.new(before, why), axes[dim], call.new(after, why)])
    return axes


@rule("glu")
def glu(call: Call) -> Axes:
    """The first half times the sigmoid of the second: they are the same axis twice."""
    axes, dim = call.first, call.dim
    return _with(axes, dim, join(*_pieces(call, axes[dim], [call.shape[dim]] * 2)))


@rule("diagonal", "diagonal_copy")
def diagonal(call: Call) -> Axes:
    """The entries at which two dimensions meet: both are one axis, which comes last."""
    axes = call.first
    dims = {call[name] % len(axes) for name in ("dim1", "dim2")}
    one, other = (axes[dim] for dim in dims)
    rest = [atom for dim, atom in enumerate(axes) if dim not in dims]
    if call["offset"] == 0 and one.size == other.size:
        return [*rest, join(one, other)]
    call.freeze([one, other], "its order matters to a diagonal")
    return [*rest, call.new(call.shape[-1], "it is a diagonal")]


@rule("diag_embed")
def diag_embed(call: Call) -> Axes:
    """One axis becomes two dimensions."""
    *axes, last = call.first
    if call["offset"]:
        call.freeze([last], "its order matters to a diagonal")
        last = call.new(last.size + abs(call["offset"]), "it is a diagonal")
    for dim in sorted(call[name] % len(call.shape) for name in ("dim1", "dim2")):
        axes.insert(dim, last)
    return axes


@rule("view_as_real", "view_as_complex", "view_as_real_copy", "view_as_complex_copy")
def complex_view(call: Call) -> Axes:
    """A complex number is a last dimension of two."""
    part = "it is the real and the imaginary part"
    if call.name.startswith("view_as_real"):
        return [*call.first, call.new(2, part)]
    *axes, parts = call.first
    call.freeze([parts], part)
    return axes
