"""Views and copies that change the shape: refine, permute, join and cut axes."""

from __future__ import annotations

from prunus.graph.axes import Atom, cut, fresh, product, split_product, sum_of
from prunus.graph.solve import Axes, Call, join, rule


@rule("view", "_unsafe_view", "_reshape_alias", "view_copy")
def view(call: Call) -> Axes:
    """Read the same row-major elements in another grid: the factors are the same, from left to right."""
    source, shape = call.solver.axes(call.operands[0]), call.shape
    if any(n == 0 for n in shape):
        return [call.new(n, "it is empty") for n in shape]
    return refine(call, source, shape)


def refine(call: Call, source: Axes, shape: tuple[int, ...]) -> Axes:
    """Return the axes of a row-major reshape."""
    result: Axes = []
    pending = [atom for atom in source if atom.size != 1][::-1]
    for size in shape:
        taken: list[Atom] = []
        filled = 1
        while filled < size:
            atom = pending.pop()
            need = size // filled
            if size % filled == 0 and need % atom.size == 0:
                taken.append(atom)
                filled *= atom.size
                continue
            halves = split_product(atom, need) if size % filled == 0 else None
            if halves is None:
                return _unreadable(call, source, shape)
            taken.append(halves[0])
            pending.append(halves[1])
            filled = size
        result.append(product(taken) if taken else fresh(1))
    return result


def _unreadable(call: Call, source: Axes, shape: tuple[int, ...]) -> Axes:
    why = "it is cut across by a reshape"
    call.freeze(source, why)
    return [call.new(n, why) for n in shape]


@rule("permute", "transpose", "t", "permute_copy")
def permute(call: Call) -> Axes:
    """Reorder the dimensions."""
    axes = call.solver.axes(call.operands[0])
    rank = len(axes)
    if call.name == "t":
        return axes[::-1]
    if "dims" in call.arguments:
        return [axes[d % rank] for d in call["dims"]]
    one, other = call["dim0"] % rank, call["dim1"] % rank
    result = list(axes)
    result[one], result[other] = axes[other], axes[one]
    return result


@rule("unsqueeze", "unsqueeze_copy")
def unsqueeze(call: Call) -> Axes:
    """Insert a dimension of one."""
    axes = list(call.solver.axes(call.operands[0]))
    axes.insert(call["dim"] % (len(axes) + 1), fresh(1))
    return axes


@rule("squeeze", "squeeze_copy")
def squeeze(call: Call) -> Axes:
    """Drop dimensions of one."""
    axes = call.solver.axes(call.operands[0])
    given = call.arguments.get("dim")
    rank = len(axes)
    dims = (
        set(range(rank))
        if given is None
        else {d % rank for d in (given if isinstance(given, list | tuple) else [given])}
    )
    return [atom for d, atom in enumerate(axes) if not (d in dims and atom.size == 1)]


@rule("expand", "expand_copy")
def expand(call: Call) -> Axes:
    """Repeat along dimensions of one; the copies are an axis of their own."""
    axes, shape = call.solver.axes(call.operands[0]), call.shape
    padded = [fresh(1)] * (len(shape) - len(axes)) + list(axes)
    return [atom if atom.size == n else fresh(n) for atom, n in zip(padded, shape, strict=True)]


@rule("repeat")
def repeat(call: Call) -> Axes:
    """Lay copies side by side: copies x dimension."""
    axes, shape = call.solver.axes(call.operands[0]), call.shape
    padded = [fresh(1)] * (len(shape) - len(axes)) + list(axes)
    return [a if a.size == n else product([fresh(n // a.size), a]) for a, n in zip(padded, shape, strict=True)]


@rule("cat")
def cat(call: Call) -> Axes:
    """One dimension is the sum of its parts, the others are the same."""
    parts = [
        axes
        for node in call.operands
        if (axes := call.solver.axes(node)) and not (len(axes) == 1 and axes[0].size == 0)
    ]
    dim = call.arguments.get("dim", 0) % len(parts[0])
    result = list(parts[0])
    for axes in parts[1:]:
        for position, atom in enumerate(axes):
            if position != dim:
                result[position] = join(result[position], atom)
    result[dim] = sum_of([axes[dim] for axes in parts])
    return result


@rule("stack")
def stack(call: Call) -> Axes:
    """A new dimension, along which every entry has its own place."""
    parts = [call.solver.axes(node) for node in call.operands]
    result = list(parts[0])
    for axes in parts[1:]:
        result = [join(a, b) for a, b in zip(result, axes, strict=True)]
    dim = call.arguments.get("dim", 0) % (len(result) + 1)
    result.insert(dim, call.new(len(parts), "it is stacked from separate tensors"))
    return result


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "split_copy", "split_with_sizes_copy")
def split(call: Call) -> list[Axes]:
    """Consecutive pieces: the dimension is the sum of them."""
    axes = call.solver.axes(call.operands[0])
    dim = call.arguments.get("dim", 0) % len(axes)
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
    axes = call.solver.axes(call.operands[0])
    dim = call.arguments.get("dim", 0) % len(axes)
    atom = axes[dim]
    step = call["step"]
    start, _, _ = slice(call["start"], call["end"], step).indices(atom.size)
    size = call.shape[dim]
    if size == atom.size:
        return list(axes)
    if size == 0:
        return _with(axes, dim, fresh(0))
    if step == 1:
        sizes = [start, size, atom.size - start - size]
        return _with(axes, dim, _pieces(call, atom, sizes)[1])
    if atom.size == size * step and start < step:
        halves = split_product(atom, size)
        if halves is not None:
            call.freeze([halves[1]], "every entry of it is picked by its place")
            return _with(axes, dim, halves[0])
    call.freeze([atom], "single entries of it are picked")
    return _with(axes, dim, call.new(size, "single entries of it are picked"))


@rule("select", "select_copy")
def select(call: Call) -> Axes:
    """One entry of a dimension."""
    axes = call.solver.axes(call.operands[0])
    dim = call.arguments.get("dim", 0) % len(axes)
    call.freeze([axes[dim]], "one entry of it is picked")
    return [*axes[:dim], *axes[dim + 1 :]]


@rule("unbind", "unbind_copy")
def unbind(call: Call) -> list[Axes]:
    """Every entry of a dimension, one by one."""
    axes = call.solver.axes(call.operands[0])
    dim = call.arguments.get("dim", 0) % len(axes)
    call.freeze([axes[dim]], "its entries are taken apart")
    return [[*axes[:dim], *axes[dim + 1 :]] for _ in call.node.meta["val"]]


@rule("constant_pad_nd")
def pad(call: Call) -> Axes:
    """What is padded stays where it is: a sum of fixed padding and the dimension."""
    axes = list(call.solver.axes(call.operands[0]))
    amounts = list(call["pad"])
    for step in range(len(amounts) // 2):
        dim = len(axes) - 1 - step
        before, after = amounts[2 * step], amounts[2 * step + 1]
        if before < 0 or after < 0:
            call.freeze([axes[dim]], "it is cropped")
            axes[dim] = call.new(call.shape[dim], "it is cropped")
        elif before or after:
            why = "it is padding"
            axes[dim] = sum_of([call.new(before, why), axes[dim], call.new(after, why)])
    return axes


@rule("glu")
def glu(call: Call) -> Axes:
    """The first half times the sigmoid of the second: they are the same axis twice."""
    axes = call.axes("self")
    dim = call["dim"] % len(axes)
    half = axes[dim].size // 2
    one, other = _pieces(call, axes[dim], [half, half])
    return _with(axes, dim, join(one, other))


@rule("diagonal", "diagonal_copy")
def diagonal(call: Call) -> Axes:
    """The entries at which two dimensions meet: both are one axis, which comes last."""
    axes = call.axes("self")
    one, other = (call[name] % len(axes) for name in ("dim1", "dim2"))
    rest = [atom for dim, atom in enumerate(axes) if dim not in (one, other)]
    if call["offset"] == 0 and axes[one].size == axes[other].size:
        return [*rest, join(axes[one], axes[other])]
    call.freeze([axes[one], axes[other]], "its order matters to a diagonal")
    return [*rest, call.new(call.shape[-1], "it is a diagonal")]


@rule("diag_embed")
def diag_embed(call: Call) -> Axes:
    """One axis becomes two dimensions."""
    axes = list(call.axes("self"))
    last = axes.pop()
    if call["offset"]:
        call.freeze([last], "its order matters to a diagonal")
    rank = len(axes) + 2
    for dim in sorted(call[name] % rank for name in ("dim1", "dim2")):
        size = call.shape[dim]
        axes.insert(dim, last if size == last.size else call.new(size, "it is a diagonal"))
    return axes


@rule("view_as_real", "view_as_complex", "view_as_real_copy", "view_as_complex_copy")
def complex_view(call: Call) -> Axes:
    """A complex number is a last dimension of two."""
    axes = call.axes("self")
    part = "it is the real and the imaginary part"
    if call.name.startswith("view_as_real"):
        return [*axes, call.new(2, part)]
    call.freeze(axes[-1:], part)
    return axes[:-1]
