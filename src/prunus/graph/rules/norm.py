"""Normalisations: one scale, shift and statistic per channel."""

from __future__ import annotations

from prunus.graph.axes import split_product, unify
from prunus.graph.solve import Axes, Call, join, rule

_PER_CHANNEL = ("weight", "bias", "running_mean", "running_var")


def _side_results(call: Call, out: Axes) -> list[Axes | None]:
    rest = call.node.meta["val"][1:]
    return [
        out,
        *([call.new(int(n), "a side result") for n in value.shape] if value is not None else None for value in rest),
    ]


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
    x = call.axes("input")
    for name in _PER_CHANNEL:
        if call.has(name):
            unify(x[1], call.axes(name)[0])
    return _side_results(call, list(x))


@rule("native_layer_norm", "_fused_rms_norm")
def layer_norm(call: Call) -> list[Axes | None]:
    """Scale and shift lie along the last dimensions."""
    x = call.axes("input")
    for name in ("weight", "bias"):
        if call.has(name):
            axes = call.axes(name)
            for atom, own in zip(axes, x[len(x) - len(axes) :], strict=True):
                join(own, atom)
    return _side_results(call, list(x))


@rule("native_group_norm")
def group_norm(call: Call) -> list[Axes | None]:
    """Channels are groups x rest. The number of groups is a setting and stays; every group loses the same channels."""
    x = call.axes("input")
    for name in ("weight", "bias"):
        if call.has(name):
            unify(x[1], call.axes(name)[0])
    groups = int(call["group"])
    if 1 < groups < x[1].size:  # with a group per channel, the number of groups follows the channels
        halves = split_product(x[1], groups)
        if halves is None:
            call.freeze([x[1]], "its normalisation groups cut across parts")
        elif halves[1].size > 1:  # a group for each channel goes with its channel
            call.freeze([halves[0]], "the number of normalisation groups is a setting")
    return _side_results(call, list(x))
