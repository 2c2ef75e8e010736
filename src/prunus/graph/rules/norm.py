"""Normalisations: one scale, shift and statistic per channel."""

from __future__ import annotations

from prunus.graph.solver.axes import split_product, unify
from prunus.graph.solver.solve import Axes, Call, broadcast, rule


@rule(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
    "miopen_batch_norm",
    "_batch_norm_with_update",
    "_batch_norm_no_update",
    "_native_batch_norm_legit_functional",
)
def batch_norm(call: Call) -> list[Axes | None]:
    """Everything is per channel, dimension 1."""
    x, *per_channel = call.given
    for axes in per_channel:
        unify(x[1], *axes)
    return call.with_side_results(x)


@rule("native_layer_norm", "_fused_rms_norm")
def layer_norm(call: Call) -> list[Axes | None]:
    """Scale and shift lie along the last dimensions."""
    x, *others = call.given
    broadcast(x, *others)
    return call.with_side_results(x)


@rule("native_group_norm")
def group_norm(call: Call) -> list[Axes | None]:
    """Channels are groups x rest. The number of groups is a setting and stays; every group loses the same channels."""
    x, *per_channel = call.given
    for axes in per_channel:
        unify(x[1], *axes)
    halves = split_product(x[1], int(call["group"]))
    if halves is None:
        call.freeze([x[1]], "its normalisation groups cut across parts")
    elif halves[1].size > 1:  # a group for each channel goes with its channel
        call.freeze([halves[0]], "the number of normalisation groups is a setting")
    return call.with_side_results(x)
