"""Operations that work on positions in space and leave the channels alone."""

from __future__ import annotations

from prunus.graph.axes import fresh, product, split_product
from prunus.graph.solve import Axes, Call, join, rule

_POOLS = [f"{kind}_pool{n}d" for kind in ("avg", "_adaptive_avg", "adaptive_max", "fractional_max") for n in (2, 3)]
_POOLS += [f"max_pool{n}d_with_indices" for n in (2, 3)]
_RESIZES = [
    f"upsample_{kind}"
    for kind in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "trilinear3d", "bicubic2d")
]
_RESIZES += [
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
]
_PADS = [f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)]


@rule(*_POOLS, *_RESIZES, *_PADS)
def spatial(call: Call) -> Axes | list[Axes]:
    """The last dimensions are positions: new ones come out. What stands before them stays."""
    axes, shape = call.solver.axes(call.operands[0]), call.shape
    n = int(next(character for character in reversed(call.name) if character.isdecimal()))
    out = [*axes[: len(axes) - n], *(call.new(size, "it is a position in space") for size in shape[len(shape) - n :])]
    call.freeze(axes[len(axes) - n :], "it is a position in space")
    value = call.node.meta["val"]
    return [list(out) for _ in value] if isinstance(value, list | tuple) else out


@rule("grid_sampler_2d", "grid_sampler_3d")
def sample(call: Call) -> Axes:
    """Positions are looked up, channels stay."""
    x, grid = (call.solver.axes(node) for node in call.operands[:2])
    call.freeze([*x[2:], *grid[1:]], "it is a position in space")
    return [join(x[0], grid[0]), x[1], *(call.new(n, "it is a position in space") for n in call.shape[2:])]


@rule("max_unpool2d", "max_unpool3d")
def unpool(call: Call) -> Axes:
    """Positions go back to where they were; what stands before them stays."""
    axes, where = call.axes("self"), call.axes("indices")
    n = int(call.name[-2])
    call.freeze([*axes[-n:], *where[-n:]], "it is a position in space")
    before = [join(a, b) for a, b in zip(axes[:-n], where[:-n], strict=True)]
    return [*before, *(call.new(size, "it is a position in space") for size in call.shape[-n:])]


@rule("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(call: Call) -> Axes:
    """Channels are (rest, r, r): the two factors become space, or come from it."""
    axes, shape = call.solver.axes(call.operands[0]), call.shape
    place = "it is a position in space"
    call.freeze(axes[-2:], place)
    if call.name == "pixel_shuffle":
        halves = split_product(axes[-3], shape[-3])
        if halves is None:
            call.freeze([axes[-3]], place)
            halves = call.new(shape[-3], place), fresh(1)
        call.freeze([halves[1]], "it becomes a position in space")
        channels = halves[0]
    else:
        channels = product([axes[-3], call.new(shape[-3] // axes[-3].size, "it was a position in space")])
    return [*axes[:-3], channels, *(call.new(n, place) for n in shape[-2:])]


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call) -> Axes:
    """Channels g x n are read as n x g."""
    axes = list(call.solver.axes(call.operands[0]))
    halves = split_product(axes[1], call["groups"])
    if halves is None:
        call.freeze([axes[1]], "its shuffle cuts across parts")
        return axes
    axes[1] = product([halves[1], halves[0]])
    return axes


@rule("im2col")
def unfold(call: Call) -> Axes:
    """Channels x kernel positions, then the places of the kernel."""
    axes, shape = call.solver.axes(call.operands[0]), call.shape
    call.freeze(axes[-2:], "it is a position in space")
    kernel = call.new(shape[-2] // axes[-3].size, "it is a position in the kernel")
    return [*axes[:-3], product([axes[-3], kernel]), call.new(shape[-1], "it is a position in space")]


@rule("col2im")
def fold(call: Call) -> Axes:
    """The reverse of unfolding."""
    axes, shape = call.solver.axes(call.operands[0]), call.shape
    halves = split_product(axes[-2], shape[-3])
    if halves is None:
        call.freeze([axes[-2]], "it folds across parts")
        return [call.new(n, "it folds across parts") for n in shape]
    call.freeze([halves[1]], "it is a position in the kernel")
    call.freeze([axes[-1]], "it is a position in space")
    return [*axes[:-2], halves[0], *(call.new(n, "it is a position in space") for n in shape[-2:])]
