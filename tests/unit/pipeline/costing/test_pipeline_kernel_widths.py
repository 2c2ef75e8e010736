"""Channels come in widths that kernels want wherever that leaves what was asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import prunus
from prunus.core.types import Stratum
from prunus.graph import analyze
from prunus.graph.costs.cost_model import count_model
from prunus.pipeline.costing.cost_targets import Counted
from prunus.pipeline.costing.kernel_widths import BLOCK, convolved, fitting, width_at
from prunus.select import cost_aware

INPUTS = torch.zeros(2, 3, 8, 8)


def network(*widths):
    layers, before = [], 3
    for width in widths:
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
        before = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 40), nn.ReLU(), nn.Linear(40, 3)
    )


def widths(model):
    return [layer.out_channels for layer in model if isinstance(layer, nn.Conv2d)]


def chosen(model, share, round_to):
    """Return the widths of the convolutions, and the share of the MACs, that a target of MACs leaves."""
    graph = analyze(model, (INPUTS,))
    strata = [Stratum(g.name, np.random.default_rng(0).random(g.size)) for g in graph.groups]
    costing = Counted.of("macs", model, INPUTS, round_to=round_to)
    keep = costing.choose(graph, graph.groups, model, strata, share)
    cost = count_model("macs", graph, graph.groups, model)
    counts = [int(mask.sum()) for mask in keep]
    sizes = convolved(graph.groups, model)
    found = [n for g, n in zip(graph.groups, counts, strict=True) if g.name in sizes]
    return found, cost.total(counts) / cost.total([g.size for g in graph.groups])


def test_only_the_channels_of_convolutions_over_pictures_are_meant():
    model = network(48, 64)
    graph = analyze(model, (INPUTS,))
    assert sorted(convolved(graph.groups, model).values()) == [48, 64]
    series = nn.Sequential(nn.Conv1d(3, 64, 3), nn.ReLU(), nn.Conv1d(64, 2, 3))
    graph = analyze(series, (torch.zeros(2, 3, 9),))
    assert convolved(graph.groups, series) == {}


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_a_target_of_arithmetic_keeps_blocks_where_there_are_some_and_nearly_all_that_it_may(share):
    found, left = chosen(network(64, 96, 128, 192, 192, 256), share, "auto")
    assert all(n % BLOCK == 0 for n in found)
    assert 0.95 * share <= left <= share
    free, exact = chosen(network(64, 96, 128, 192, 192, 256), share, 1)
    assert any(n % BLOCK for n in free)
    assert exact <= share


def test_where_blocks_are_too_coarse_widths_are_finer_and_never_is_a_target_refused_for_them():
    for sizes in ((16, 16), (8, 12), (24, 24)):
        found, left = chosen(network(*sizes), 0.3, "auto")
        assert left <= 0.3
        assert left >= 0.95 * 0.3 or found == chosen(network(*sizes), 0.3, 1)[0]


def test_channels_that_fill_no_block_stay_whole_where_others_can_go():
    found, left = chosen(network(16, 128, 128, 128), 0.5, "auto")
    assert 16 in found
    assert left <= 0.5


def test_the_coarsest_widths_that_fit_are_taken():
    class Sum:
        def total(self, counts):
            return float(np.sum(counts))

        def part(self, group, counts):
            return float(counts[group])

        def neighbours(self, group):
            return {group}

    strata = [Stratum(name, np.arange(n, 0, -1.0)) for name, n in (("a", 64), ("b", 24))]
    sizes = {"a": 64, "b": 24}
    assert [s.multiple for s in fitting(strata, sizes, Sum(), 64.0)] == [16, 16]  # 48 + 16
    assert [s.multiple for s in fitting(strata, sizes, Sum(), 28.0)] == [16, 4]  # 16 + 12
    assert [s.multiple for s in fitting(strata, sizes, Sum(), 10.0)] == [1, 1]
    for limit in (10.0, 28.0, 64.0):
        assert cost_aware(fitting(strata, sizes, Sum(), limit), Sum(), limit).sum() > 0.95 * limit


@pytest.mark.parametrize("fraction", [0.5, 0.3])
def test_a_share_of_the_units_is_kept_in_blocks_where_it_fills_one(fraction):
    """0.5 of 144 is 72, which a depthwise convolution in blocks of 16 computes by a kernel that is several times slower."""
    small = prunus.prune(network(96, 144, 64), INPUTS, keep_fraction=fraction, listener=lambda event: None)
    assert all(n % width_at(fraction * size) == 0 for n, size in zip(widths(small.model), (96, 144, 64), strict=True))
    assert abs(sum(widths(small.model)) - fraction * 304) <= BLOCK
    exact = prunus.prune(network(96, 144, 64), INPUTS, keep_fraction=0.5, round_to=1, listener=lambda event: None)
    assert widths(exact.model) == [48, 72, 32]
