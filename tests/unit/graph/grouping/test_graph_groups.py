"""What hangs together in small networks whose answer is known by hand."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

from graph_zoo import randomize
from prunus.apply import shrink
from prunus.core.errors import ModelError, ShapeError
from prunus.graph import AxisGraph, analyze, certify
from prunus.graph.solver.axes import Atom, cut, fresh, product, split_product, sum_of, unify
from prunus.graph.solver.axis_positions import positions


def members(graph: AxisGraph, name: str) -> set[tuple[str, int, int]]:
    return {(m.tensor, m.dim, m.index.shape[1]) for m in graph.group(name).members if m.is_parameter}


def analysed(model: nn.Module, *inputs: Tensor) -> AxisGraph:
    randomize(model)
    graph = analyze(model, inputs)
    certified = certify(model, inputs, graph, tolerance=1e-6)
    assert certified.groups == graph.groups
    return graph


def test_an_mlp_has_one_group_per_hidden_layer():
    graph = analysed(
        nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2)), torch.randn(2, 3)
    )
    assert [(g.name, g.size) for g in graph.groups] == [("0", 5), ("2", 7)]
    assert members(graph, "0") == {("0.weight", 0, 1), ("0.bias", 0, 1), ("2.weight", 1, 1)}
    reasons = {f.name: f.reason for f in graph.frozen}
    assert "input 0" in reasons["input 0, dim 1"]
    assert "output" in reasons["4"]


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_flatten_maps_a_channel_to_the_right_columns(channels_last):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(1, 3, 1), nn.Linear(12, 2)

        def forward(self, x):
            y = self.conv(x)
            return self.fc((y.permute(0, 2, 3, 1) if channels_last else y).flatten(1))

    graph = analysed(Net(), torch.randn(2, 1, 2, 2))
    (index,) = [m.index for m in graph.group("conv").members if m.tensor == "fc.weight"]
    expected = (
        [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]] if channels_last else [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    )
    assert index.tolist() == expected


def test_a_concatenation_gives_offsets_and_keeps_its_parts_apart():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(3, 5), nn.Linear(9, 2)

        def forward(self, x):
            return self.c(torch.cat([self.a(x), self.b(x)], dim=1))

    graph = analysed(Net(), torch.randn(2, 3))
    index = {g.name: m.index.flatten().tolist() for g in graph.groups for m in g.members if m.tensor == "c.weight"}
    assert index == {"a": [0, 1, 2, 3], "b": [4, 5, 6, 7, 8]}


def test_an_lstm_has_its_hidden_units_four_times_in_one_dimension():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.r, self.o = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x):
            return self.o(self.r(x)[0])

    graph = analysed(Net(), torch.randn(2, 4, 3))
    assert members(graph, "r") == {
        ("r.weight_ih_l0", 0, 4),
        ("r.weight_hh_l0", 0, 4),
        ("r.weight_hh_l0", 1, 1),
        ("r.bias_ih_l0", 0, 4),
        ("r.bias_hh_l0", 0, 4),
        ("o.weight", 1, 1),
    }
    (index,) = [m.index for m in graph.group("r").members if m.tensor == "r.bias_ih_l0"]
    assert index[1].tolist() == [1, 6, 11, 16]


def test_grouped_query_attention_couples_a_key_head_with_its_row_of_query_heads():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.o = nn.Linear(8, 16), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(16, 3)

        def forward(self, x):
            n, t, _ = x.shape
            q, k, v = (f(x).view(n, t, -1, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
            k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.o(y.transpose(1, 2).flatten(2))

    graph = analysed(Net(), torch.randn(2, 5, 8))
    sizes = sorted(g.size for g in graph.groups)
    assert sizes == [2, 2, 4, 4]  # key heads, query heads per key head, the two head dimensions
    heads = next(
        g for g in graph.groups if {m.tensor for m in g.members} >= {"q.weight", "k.weight", "v.weight", "o.weight"}
    )
    assert {(m.tensor, m.index.shape[1]) for m in heads.members if m.is_parameter and m.tensor.endswith("weight")} == {
        ("q.weight", 8),
        ("k.weight", 4),
        ("v.weight", 4),
        ("o.weight", 8),
    }


def test_tied_parameters_are_one_member():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 4, bias=False)
            self.b = nn.Linear(4, 4, bias=False)
            self.c = self.b
            self.d = nn.Linear(4, 2)

        def forward(self, x):
            return self.d(self.c(torch.tanh(self.b(self.a(x)))))

    graph = analysed(Net(), torch.randn(2, 3))
    (group,) = graph.groups
    assert {(m.tensor, m.dim) for m in group.members if m.is_parameter} == {
        ("a.weight", 0),
        ("b.weight", 0),
        ("b.weight", 1),
        ("d.weight", 1),
    }
    shrunk = shrink(Net(), (torch.randn(2, 3),), graph, {group.name: torch.tensor([True, False, True, False])})
    assert shrunk.model.b.weight is shrunk.model.c.weight


def test_depthwise_and_grouped_convolutions_lose_groups_and_their_attributes_follow():
    model = nn.Sequential(
        nn.Conv2d(2, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 12, 1, groups=4), nn.Flatten(), nn.Linear(48, 2)
    )
    x = torch.randn(2, 2, 4, 4)
    graph = analysed(model, x)
    keep = {g.name: torch.arange(g.size) % 2 == 0 for g in graph.groups}
    small = shrink(model, (x,), graph, keep)
    assert small.kind == "eager"
    depthwise, grouped = small.model[1], small.model[2]
    assert depthwise.groups == depthwise.in_channels == depthwise.out_channels == depthwise.weight.shape[0]
    assert grouped.groups == 2
    assert grouped.in_channels == grouped.weight.shape[1] * 2


def test_a_size_written_into_forward_gives_the_traced_computation_and_says_so():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(1, 6, 1), nn.Linear(24, 2)

        def forward(self, x):
            return self.fc(self.conv(x).view(-1, 24))

    model, x = randomize(Net()), torch.randn(2, 1, 2, 2)
    graph = analyze(model, (x,))
    shrunk = shrink(model, (x,), graph, {"conv": torch.tensor([True, False, True, False, True, False])})
    assert shrunk.kind == "graph"
    assert "traced computation" in shrunk.notes[0]
    masked = Net()
    masked.load_state_dict(model.state_dict())
    with torch.no_grad():
        masked.conv.weight[1::2] = 0
        masked.conv.bias[1::2] = 0
        big = torch.randn(7, 1, 2, 2)
        assert torch.allclose(masked(big), shrunk.model(big), atol=1e-6)


@pytest.mark.parametrize("contracted", [True, False])
def test_an_operation_without_a_rule_freezes_its_axes_and_no_others_and_says_so(contracted):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            y = self.a(x)
            return self.b(torch.linalg.qr(y @ y.T)[0] @ y if contracted else torch.linalg.qr(y)[0])

    graph = analyze(Net(), (torch.randn(5, 3),))
    assert any("linalg_qr" in note for note in graph.notes)
    assert [group.name for group in graph.groups] == (["a"] if contracted else [])
    said = [f.reason for f in graph.frozen if any((m.tensor, m.dim) == ("a.weight", 0) for m in f.members)]
    assert said == ([] if contracted else ["prunus has no rule for this operation (linalg_qr)"])


def test_what_is_sorted_or_looked_up_is_frozen():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.c(self.b(torch.sort(self.a(x), dim=1).values))

    graph = analysed(Net(), torch.randn(2, 3))
    assert [g.name for g in graph.groups] == ["b"]
    assert any(f.name == "a" and "order matters (sort)" in f.reason for f in graph.frozen)


def test_a_model_on_the_meta_device_is_analysed_without_memory():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(8192, 28672), nn.ReLU(), nn.Linear(28672, 8192))
    graph = analyze(model, (torch.empty(2, 8192, device="meta"),))
    assert [(g.name, g.size) for g in graph.groups] == [("0", 28672)]


def test_control_flow_that_looks_at_values_is_traced_on_real_tensors_and_says_so():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.b(self.a(x)) if float(x.sum()) > -1e9 else x

    graph = analyze(Net(), (torch.randn(2, 3),))
    assert [g.name for g in graph.groups] == ["a"]
    assert "looks at values" in graph.notes[0]


def test_keyword_inputs_and_dict_outputs_are_understood():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x, *, scale):
            return {"y": self.b(self.a(x) * scale)}

    graph = analyze(Net(), (torch.randn(2, 3),), {"scale": 2.0})
    assert [g.name for g in graph.groups] == ["a"]


def test_inputs_that_the_model_does_not_take_are_one_clear_error():
    with pytest.raises(ModelError, match=r"forward fails on inputs of shape \[\(2, 4\)\]"):
        analyze(nn.Linear(3, 2), (torch.randn(2, 4),))


def test_inputs_that_the_model_does_not_take_leave_no_log_of_the_tracer_behind(capfd):
    log = logging.getLogger("torch._subclasses.fake_tensor")
    said: list[str] = []
    listener = lambda record: said.append(record.getMessage()) or False  # noqa: E731
    log.addFilter(listener)
    for model, inputs in (
        (nn.Linear(3, 2), (torch.randn(2, 4),)),
        (nn.Conv2d(3, 2, 3), (torch.randn(2, 4, 5, 5),)),
    ):
        with pytest.raises(ModelError):
            analyze(model, inputs)
    assert said == []
    assert capfd.readouterr() == ("", "")
    assert not log.disabled
    log.error("still heard")
    log.removeFilter(listener)
    assert said == ["still heard"]


def test_masks_that_do_not_fit_are_refused():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.randn(2, 3)
    graph = analyze(model, (x,))
    with pytest.raises(ModelError, match="no group 'nope'"):
        shrink(model, (x,), graph, {"nope": torch.ones(4, dtype=torch.bool)})
    with pytest.raises(ModelError, match="would lose all"):
        shrink(model, (x,), graph, {"0": torch.zeros(4, dtype=torch.bool)})
    with pytest.raises(ShapeError, match="4 units"):
        shrink(model, (x,), graph, {"0": torch.ones(3, dtype=torch.bool)})


# --- the algebra of axes ---------------------------------------------------------


def test_two_factorisations_of_one_axis_meet_in_a_common_refinement():
    a = fresh(24)
    left = product([fresh(4), fresh(6)])
    right = product([fresh(2), fresh(12)])
    assert unify(a, left)
    assert unify(a, right)
    assert [leaf.size for leaf in positions(a)] == [2, 2, 6]


def test_two_cuts_of_one_axis_meet_in_a_common_refinement():
    a = fresh(10)
    assert unify(a, sum_of([fresh(4), fresh(6)]))
    assert unify(a, sum_of([fresh(7), fresh(3)]))
    assert [leaf.size for leaf in positions(a)] == [4, 3, 3]


def test_equal_parts_read_as_a_grid_become_one_axis():
    parts = [fresh(5) for _ in range(3)]
    whole = sum_of(parts)
    halves = split_product(whole, 3)
    assert halves is not None
    assert halves[1].size == 5
    (leaf,) = {find_leaf(part) for part in parts}
    assert positions(whole)[leaf].shape == (5, 3)


def find_leaf(atom: Atom) -> Atom:
    return next(iter(positions(atom)))


def test_readings_that_do_not_fit_are_frozen_not_wrong():
    a = product([fresh(4), fresh(3)])
    assert not unify(a, product([fresh(3), fresh(4)]))
    assert all(leaf.reason for leaf in positions(a))


def test_a_cut_along_whole_rows_keeps_the_columns():
    rows, columns = fresh(6), fresh(4)
    pieces = cut(product([rows, columns]), [8, 16])
    assert pieces is not None
    assert [piece.size for piece in pieces] == [8, 16]
    assert all(columns in positions(piece) for piece in pieces)


class HeadForTraining(nn.Module):
    """Runs a head in training alone, which doesn't take inputs this small."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head, self.more = nn.Linear(4, 2), nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        if self.training:
            self.more(x)
        return self.head(x)


def test_a_look_at_training_leaves_the_batch_statistics_as_they_were():
    model = HeadForTraining().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    analyze(model, (torch.randn(5, 3) + 9,))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
