"""What the cost model says of a cut is what the cut model has."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunus.apply import shrink
from prunus.evaluate import measure_cost
from prunus.graph import analyze
from prunus.graph.costs.cost_model import CostModel, CostTerm, count_model
from prunus.graph.costs.timed_operations import batch_axis, operations
from prunus.graph.solver.axes import find
from prunus.graph.solver.axis_positions import left_of
from prunus.models import builders

NETS = {
    "mlp": (lambda: builders["mlp"]((6,), 3, width=12, norm="batch"), (6,)),
    "cnn": (lambda: builders["cnn"]((2, 6, 6), 3, width=6, depth=2), (2, 6, 6)),
    "resnet": (lambda: builders["resnet"]((2, 6, 6), 3, width=4, stages=2), (2, 6, 6)),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, dropout=0.0), (5, 8)),
}


@pytest.mark.parametrize("name", NETS)
def test_every_count_costs_what_the_smaller_model_costs(name):
    build, shape = NETS[name]
    model, inputs = build().eval(), (torch.randn(3, *shape),)
    graph = analyze(model, inputs)
    models = {kind: count_model(kind, graph, graph.groups, model) for kind in ("params", "macs", "bytes")}
    for share in (1.0, 0.5, 0.25):
        counts = [max(1, round(share * size)) for size in models["params"].sizes]
        keep = {g.name: torch.arange(g.size) < n for g, n in zip(graph.groups, counts, strict=True)}
        cost = measure_cost(shrink(model, inputs, graph, keep).model, inputs)
        assert models["params"].total(counts) == cost.parameters
        assert models["macs"].total(counts) == pytest.approx(cost.macs, abs=1)
        assert models["bytes"].total(counts) == pytest.approx(cost.memory_bytes, rel=0.01)


def test_what_a_group_saves_is_in_its_part_and_its_neighbours_share_a_term():
    model, inputs = NETS["mlp"][0](), (torch.randn(2, 6),)
    graph = analyze(model, inputs)
    cost = count_model("params", graph, graph.groups, model)
    full = list(cost.sizes)
    for i in range(len(full)):
        less = [n - (j == i) for j, n in enumerate(full)]
        assert cost.total(full) - cost.total(less) == cost.part(i, full) - cost.part(i, less) > 0
    assert cost.neighbours(0) == {0, 1}


def test_a_term_is_any_price_of_its_axes_and_the_batch_has_the_size_it_is_given():
    model, inputs = NETS["mlp"][0](), (torch.randn(2, 6),)
    graph = analyze(model, inputs)
    batch = batch_axis(graph)
    linear = [operation for operation in operations(graph) if operation.kind == "linear"]
    seen = []
    terms = [CostTerm(operation.axes, lambda sizes: seen.append(sizes) or float(max(sizes))) for operation in linear]
    cost = CostModel(graph, graph.groups, terms, {batch: 64})
    assert cost.total([12, 5]) == 64.0 * 3
    assert seen == [(64, 6, 12), (64, 12, 5), (64, 5, 3)]
    cost.total([12, 5])
    assert len(seen) == 3, "a price is asked for once"


def test_the_operations_of_a_model_are_named_with_their_sizes():
    model, inputs = NETS["resnet"][0]().eval(), (torch.randn(3, 2, 6, 6),)
    graph = analyze(model, inputs)
    found = [(o.kind, tuple(left_of(a, {find(batch_axis(graph)): 9}) for a in o.axes)) for o in operations(graph)]
    assert found[0] == ("convolution", (9, 2, 4))
    assert [sizes for kind, sizes in found if kind == "linear"] == [(9, 8, 3)]
    assert sum(kind == "convolution" for kind, _ in found) == sum(isinstance(m, nn.Conv2d) for m in model.modules())
    assert all(sizes[0] == 9 for kind, sizes in found)


def test_a_grouped_convolution_is_one_size():
    model = nn.Sequential(nn.Conv2d(2, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8 * 4, 2))
    graph = analyze(model, (torch.randn(2, 2, 4, 4),))
    convolution = [o for o in operations(graph) if o.kind == "convolution"]
    assert [len(o.axes) for o in convolution] == [3, 2]
    assert convolution[1].fixed[-1] == (1, 1)
