"""Operations that work on positions in space and leave the channels alone."""

from __future__ import annotations

from prunus.graph.solver.axes import product, split_product
from prunus.graph.solver.solve import Axes, Call, broadcast, join, rule

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
    n = int(next(character for character in reversed(call.name) if character.isdecimal()))
    return call.alike([*call.first[:-n], *_places(call, call.first[-n:], n)])


def _places(call: Call, old: Axes, n: int) -> Axes:
    """Freeze positions, and return those of the result, its last ``n`` dimensions."""
    call.freeze(old, "it is a position in space")
    return [call.new(size, "it is a position in space") for size in call.shape[-n:]]


@rule("grid_sampler_2d", "grid_sampler_3d")
def sample(call: Call) -> Axes:
    """Positions are looked up, channels stay."""
    (examples, channels, *positions), (other, *grid) = call.given
    return [join(examples, other), channels, *_places(call, [*positions, *grid], len(positions))]


@rule("max_unpool2d", "max_unpool3d")
def unpool(call: Call) -> Axes:
    """Positions go back to where they were; what stands before them stays."""
    axes, where = call.given
    n = int(call.name[-2])
    return [*broadcast(axes[:-n], where[:-n]), *_places(call, [*axes[-n:], *where[-n:]], n)]


@rule("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(call: Call) -> Axes:
    """Channels are (rest, r, r): the two factors become space, or come from it."""
    *outer, channels, height, width = call.first
    positions = _places(call, [height, width], 2)
    n_channels = call.shape[-3]
    if call.name == "pixel_unshuffle":
        offset = call.new(n_channels // channels.size, "it was a position in space")
        return [*outer, product([channels, offset]), *positions]
    halves = split_product(channels, n_channels)
    if halves is None:
        call.freeze([channels], "it is a position in space")
        return [*outer, call.new(n_channels, "it is a position in space"), *positions]
    call.freeze([halves[1]], "it becomes a position in space")
    return [*outer, halves[0], *positions]


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call) -> Axes:
    """Channels g x n are read as n x g."""
    examples, channels, *positions = call.first
    halves = split_product(channels, call["groups"])
    if halves is None:
        call.freeze([channels], "its shuffle cuts across parts")
        return call.first
    return [examples, product(halves[::-1]), *positions]


@rule("im2col")
def unfold(call: Call) -> Axes:
    """Channels x kernel positions, then the places of the kernel."""
    *outer, channels, height, width = call.first
    places = _places(call, [height, width], 1)
    kernel = call.new(call.shape[-2] // channels.size, "it is a position in the kernel")
    return [*outer, product([channels, kernel]), *places]


@rule("col2im")
def fold(call: Call) -> Axes:
    """The reverse of unfolding."""
    *outer, columns, places = call.first
    positions, n_channels = _places(call, [places], 2), call.shape[-3]
    halves = split_product(columns, n_channels)
    if halves is None:
        call.freeze([columns], "it folds across parts")
        return [*outer, call.new(n_channels, "it folds across parts"), *positions]
    call.freeze([halves[1]], "it is a position in the kernel")
    return [*outer, halves[0], *positions]
