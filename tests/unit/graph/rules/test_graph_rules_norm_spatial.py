"""Normalisations, and operations on positions in space that leave the channels alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from graph_cases import Net, holds, images
from prunus.apply import shrink
from prunus.graph.tracing.states import canonical_states
from prunus.graph.tracing.trace import trace

NORMS = {
    "batch": (nn.BatchNorm2d(8), {"a": 8}, True),
    "batch without parameters": (nn.BatchNorm2d(8, affine=False), {"a": 8}, True),
    "batch without statistics": (nn.BatchNorm2d(8, track_running_stats=False), {"a": 8}, True),
    "instance": (nn.InstanceNorm2d(8, affine=True), {"a": 8}, True),
    "instance with statistics": (nn.InstanceNorm2d(8, affine=True, track_running_stats=True), {"a": 8}, True),
    "one group": (nn.GroupNorm(1, 8), {"a": 8}, False),
    "two groups": (nn.GroupNorm(2, 8), {"a#2": 4}, False),
    "a group each": (nn.GroupNorm(8, 8), {"a": 8}, True),
    "layer, all dimensions": (nn.LayerNorm((8, 6, 6)), {"a": 8}, False),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_has_one_scale_for_each_channel(name):
    norm, groups, masks = NORMS[name]
    net = Net(lambda net, x: net.b(net.n(net.a(x))), a=nn.Conv2d(3, 8, 3), n=norm, b=nn.Conv2d(8, 2, 1))
    graph = holds(net, images(), groups, masks=masks)
    keep = {group.name: torch.arange(group.size) < 3 for group in graph.groups}
    assert shrink(net, (images(),), graph, keep).kind == "eager"


def test_a_norm_over_the_last_dimension_follows_a_permutation():
    net = Net(
        lambda net, x: net.b(net.n(net.a(x).permute(0, 2, 3, 1))), a=nn.Conv2d(3, 8, 3), n=nn.LayerNorm(8), b=nn.Linear(8, 2)
    )  # fmt: skip
    holds(net, images(), {"a": 8}, masks=False)


@pytest.mark.parametrize(("groups", "found"), [(3, {"a": 4}), (6, {"a": 2}), (2, {"a": 2, "a#2": 4})])
def test_a_group_norm_over_a_concatenation_takes_the_same_from_every_group(groups, found):
    net = Net(
        lambda net, x: net.c(net.n(torch.cat([net.a(x), net.d(x)], 1))),
        a=nn.Conv2d(3, 8, 1),
        d=nn.Conv2d(3, 4, 1),
        n=nn.GroupNorm(groups, 12),
        c=nn.Conv2d(12, 2, 1),
    )
    graph = holds_any(net, sorted(found.values()))
    assert any("normalisation groups" in frozen.reason or "side by side" in frozen.reason for frozen in graph.frozen)


def holds_any(net, sizes):
    from prunus.graph import analyze

    groups = {group.name: group.size for group in analyze(net, (images(),)).groups}
    assert sorted(groups.values()) == sizes
    return holds(net, images(), groups, masks=False)


SPATIAL = {
    "average pool": lambda x: functional.avg_pool2d(x, 2),
    "maximum pool": lambda x: functional.max_pool2d(x, 2),
    "adaptive pool": lambda x: functional.adaptive_avg_pool2d(x, 3),
    "adaptive maximum": lambda x: functional.adaptive_max_pool2d(x, 1),
    "power pool": lambda x: functional.lp_pool2d(x.abs() + 0.1, 2, 2),
    "unpool": lambda x: functional.max_unpool2d(*functional.max_pool2d(x, 2, return_indices=True), 2),
    "crop": lambda x: x[:, :, 1:-1, ::2],
    "roll": lambda x: torch.roll(x, (1, 1), (2, 3)),
    "grid sample": lambda x: functional.grid_sample(x, x.new_zeros(x.shape[0], 4, 4, 2), align_corners=False),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "spatial attention": lambda x: x * x.mean(1, keepdim=True).sigmoid(),
    "affinity": lambda x: (x.flatten(2).transpose(1, 2) @ x.flatten(2)).softmax(-1).mean(-1).view(-1, 1, 6, 6) * x,
    **{f"upsample {mode}": lambda x, mode=mode: functional.interpolate(x, scale_factor=2, mode=mode)
       for mode in ("nearest", "bilinear", "bicubic", "area", "nearest-exact")},
    **{f"pad {mode}": lambda x, mode=mode: functional.pad(x, (1, 1, 1, 1), mode=mode)
       for mode in ("reflect", "replicate", "circular", "constant")},
}  # fmt: skip


@pytest.mark.parametrize("name", SPATIAL)
def test_an_operation_in_space_leaves_the_channels_alone(name):
    net = Net(lambda net, x: net.b(SPATIAL[name](net.a(x))), a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(8, 2, 1))
    holds(net, images(), {"a": 8}, masks=name not in ("spatial attention", "affinity", "power pool"))


REARRANGED = {
    "pixel shuffle": (nn.PixelShuffle(2), 2, {"a": 2}),
    "pixel unshuffle": (nn.PixelUnshuffle(2), 32, {"a": 8}),
    "channel shuffle": (nn.ChannelShuffle(2), 8, {"a": 2, "a#2": 4}),
    "unfold": (nn.Unfold(3), 72, {"a": 8}),
}


@pytest.mark.parametrize("name", REARRANGED)
def test_channels_that_become_space_or_come_from_it_are_counted_right(name):
    move, width, groups = REARRANGED[name]
    net = Net(
        lambda net, x: net.b(net.m(net.a(x)).flatten(2).transpose(1, 2)), a=nn.Conv2d(3, 8, 3), m=move, b=nn.Linear(width, 2)
    )  # fmt: skip
    holds(net, images(), groups)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (0, 2, 1, 3)])
def test_a_flatten_in_any_order_finds_the_columns_of_a_channel(order):
    net = Net(lambda net, x: net.b(net.a(x).permute(order).flatten(1)), a=nn.Conv2d(3, 8, 5), b=nn.Linear(8 * 16, 2))
    holds(net, images(), {"a": 8})


def test_a_convolution_across_channels_freezes_them_as_positions():
    def forward(net, x):
        y = net.a(x)
        weight = net.m(y.mean((2, 3))[:, None]).sigmoid().transpose(1, 2)[..., None]
        return net.b(y * weight)

    net = Net(forward, a=nn.Conv2d(3, 8, 1), m=nn.Conv1d(1, 1, 3, padding=1), b=nn.Conv2d(8, 2, 1))
    graph = holds(net, images(), {})
    assert "position in space (convolution in m)" in next(f.reason for f in graph.frozen if f.name == "a")


def test_a_batch_norm_is_one_operation_of_torch_itself():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    x = torch.randn(2, 3, 5, 5)
    traced = trace(model, (x,)).graph_module
    assert torch.equal(traced(list(canonical_states(model).values()), [x])[0], model(x))
    for training in (False, True):
        nodes = trace(model, (x,), training=training).graph_module.graph.nodes
        names = [str(node.target) for node in nodes if node.op == "call_function"]
        assert names.count("aten.native_batch_norm.default") == 1
        assert ("aten.add_.Tensor" in names) == training, "only training counts batches"
        assert not any("prunus" in name for name in names)
