"""What the example didn't show stays whole: layers that didn't run, and positions beyond those that were read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graph_cases import Net, P, masked
from graph_zoo import randomize
from prunus.apply import follow_class, shrink
from prunus.graph import AxisGraph, analyze, certify


def whole(graph: AxisGraph, tensor: str) -> dict[int, str]:
    """Return the reasons why the dimensions of a tensor stay whole; every one of them must."""
    assert all(member.tensor != tensor for group in graph.groups for member in group.members), tensor
    return {
        member.dim: frozen.reason for frozen in graph.frozen for member in frozen.members if member.tensor == tensor
    }


def shrinks_to_the_mask(
    model: nn.Module, given: tuple[Any, ...], runs: Sequence[Callable[[nn.Module], Tensor]], n_groups: int | None = None
) -> AxisGraph:
    """Check that half of every group leaves as zeroing it would, on every one of ``runs``, also those that nobody showed."""
    randomize(model)
    graph = follow_class(model, given, certify(model, given, analyze(model, given)))
    assert n_groups is None or len(graph.groups) == n_groups, [group.name for group in graph.groups]
    keep = {group.name: torch.arange(group.size) % 2 == 0 for group in graph.groups}
    smaller = shrink(model, given, graph, keep).model
    expected = masked(model, graph, keep)
    with torch.no_grad():
        for run in runs:
            assert torch.allclose(run(smaller), run(expected), rtol=1e-4, atol=1e-5)
    return graph


class Branches(nn.Module):
    """A chain of layers with a second way around some of them: by a flag, by the batch's size, or by another method."""

    def __init__(self, widths: Sequence[int], start: int, end: int, inner: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.start, self.end = start, end
        self.other = nn.Sequential(nn.Linear(widths[start], inner), nn.ReLU(), nn.Linear(inner, widths[end]))

    def forward(self, x: Tensor, second: bool = False) -> Tensor:
        number = 0
        while number < len(self.layers):
            if (second or len(x) > 8) and number == self.start:
                x, number = torch.relu(self.other(x)), self.end
            else:
                x, number = torch.relu(self.layers[number](x)), number + 1
        return x

    def encode(self, x: Tensor) -> Tensor:
        return self(x, second=True)


@st.composite
def branches(draw: st.DrawFn) -> Branches:
    widths = draw(st.lists(st.sampled_from([4, 6, 8, 10, 12]), min_size=4, max_size=6))
    start = draw(st.integers(0, len(widths) - 2))
    return Branches(widths, start, draw(st.integers(start + 1, len(widths) - 1)), draw(st.sampled_from([5, 6, 9])))


@given(branches())
@settings(deadline=None, derandomize=True, max_examples=12, suppress_health_check=list(HealthCheck))
def test_a_branch_that_was_not_taken_still_computes_what_it_did(model):
    first = model.layers[0].in_features
    few, many = (torch.randn(n, first, generator=torch.Generator().manual_seed(n)) for n in (3, 9))
    runs = [lambda m: m(few), lambda m: m(few, second=True), lambda m: m(many), lambda m: m.encode(few)]
    graph = shrinks_to_the_mask(model, (few,), runs)
    for name, _ in model.other.named_parameters():
        assert any("never reached" in reason for reason in whole(graph, f"other.{name}").values())
    assert any("other.0.weight" in note for note in graph.notes)


def test_layers_that_an_untaken_branch_cannot_meet_are_pruned_all_the_same():
    model = Branches([6, 12, 10, 8, 4], 2, 3, 5)
    graph = shrinks_to_the_mask(model, (torch.randn(3, 6),), [lambda m: m(torch.ones(2, 6), second=True)])
    assert [(group.name, group.size) for group in graph.groups] == [("layers.0", 12)]


def test_inputs_that_reach_everything_free_everything():
    model = Branches([6, 12, 10, 8, 4], 2, 3, 5)
    model.layers[2].requires_grad_(False)  # whatever trains: only what runs counts
    graph = analyze(model, (torch.randn(3, 6), True))
    assert {group.name for group in graph.groups} == {"layers.0", "other.0"}


class Mixture(nn.Module):
    """Every token goes to the expert that a router chooses, of those that are entries of a list or of a mapping."""

    def __init__(self, experts: nn.ModuleList, width: int = 8) -> None:
        super().__init__()
        self.take, self.router, self.experts = nn.Linear(5, width), nn.Linear(width, len(experts)), experts
        self.give = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.take(x)
        chosen = self.router(hidden).topk(1).indices.flatten()
        out = torch.zeros_like(hidden)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero().flatten()
            if len(rows):
                out = out.index_add(0, rows, expert(hidden[rows]))
        return self.give(out)


def test_experts_that_no_token_chose_stay_whole_and_leave_as_experts():
    experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 8)) for _ in range(4))
    model, x = Mixture(experts).eval(), torch.randn(1, 5)
    graph = certify(model, (x,), analyze(model, (x,)))
    with torch.no_grad():
        (taken,) = model.router(model.take(x)).topk(1).indices.flatten().tolist()
    assert [group.name for group in graph.groups] == [f"experts.{taken}.0"]
    for number in range(4):
        if number != taken:
            assert "never reached" in whole(graph, f"experts.{number}.0.weight")[0]
    (stack,) = graph.stacks
    assert (stack.kind, stack.size) == ("expert", 4)
    keep = torch.tensor([number == taken for number in range(4)])
    assert torch.allclose(shrink(model, (x,), graph, {stack.name: keep}).model(x), model(x), atol=1e-6)


@pytest.mark.parametrize("key", ["one", "two"])
def test_an_entry_that_is_chosen_by_its_key_leaves_the_others_as_they_fit(key):
    class Keyed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.o = nn.Linear(5, 8), nn.Linear(6, 2)
            self.by = nn.ModuleDict({"one": nn.Linear(8, 6), "two": nn.Linear(8, 6)})
            self.more = nn.Sequential(nn.Linear(5, 10), nn.ReLU(), nn.Linear(10, 2))

        def forward(self, x: Tensor, key: str = key) -> Tensor:
            return self.o(torch.relu(self.by[key](torch.relu(self.a(x))))) + self.more(x)

    x = torch.randn(3, 5)
    graph = shrinks_to_the_mask(Keyed(), (x,), [lambda m: m(x, "one"), lambda m: m(x, "two")])
    assert [group.name for group in graph.groups] == ["more.0"]


def test_a_parameter_that_only_another_input_brings_in_keeps_the_width_that_it_fits():
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.e, self.token, self.o = nn.Linear(5, 8), nn.Parameter(torch.randn(1, 1, 8)), nn.Linear(8, 2)
            self.mlp = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))

        def forward(self, x: Tensor, gone: Tensor | None = None) -> Tensor:
            h = self.e(x)
            h = h if gone is None else torch.where(gone[..., None], self.token, h)
            return self.o(h + self.mlp(h))

    x, gone = torch.randn(2, 4, 5), torch.tensor([[True, False, True, False]] * 2)
    graph = shrinks_to_the_mask(Masked(), (x,), [lambda m: m(x), lambda m: m(x, gone)])
    assert [group.name for group in graph.groups] == ["mlp.0"]
    seen = shrinks_to_the_mask(Masked(), (x, gone), [lambda m: m(x), lambda m: m(x, gone)])
    assert {group.name for group in seen.groups} == {"e", "mlp.0"}


# --- positions ------------------------------------------------------------------


def tables(**tensors: nn.Module) -> dict[str, nn.Module]:
    return {"e": nn.Linear(5, 16), "o": nn.Linear(16, 3), **tensors}


def first_rows(net: Any, x: Tensor) -> Tensor:
    return net.o(torch.relu(net.e(x) + net.pos.p[: x.shape[1]]))


def narrowed_rows(net: Any, x: Tensor) -> Tensor:
    return net.o(torch.relu(net.e(x) + net.pos.p.narrow(0, 3, x.shape[1])))


def rows_after_a_norm(net: Any, x: Tensor) -> Tensor:
    return net.o(torch.relu(net.e(x) + nn.functional.layer_norm(net.pos.p, (16,))[: x.shape[1]]))


def rows_and_columns(net: Any, x: Tensor) -> Tensor:
    rows, columns = net.pos.p[:2, None], net.cols.p[None, : x.shape[1] // 2]
    return net.o(torch.relu(net.e(x) + (rows + columns).flatten(0, 1)))


def rows_by_number(net: Any, x: Tensor) -> Tensor:
    return net.o(torch.relu(net.e(x) + net.pos.p[torch.arange(x.shape[1])]))


def relative_bias(net: Any, x: Tensor) -> Tensor:
    n = x.shape[1]
    h = net.e(x).view(len(x), n, 4, -1).transpose(1, 2)
    scores = (h @ h.transpose(-1, -2) + net.bias.p[:, :n, :n]).softmax(-1)
    return net.o((scores @ h).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("forward", "more"),
    [
        (first_rows, {"pos": (40, 16)}),
        (narrowed_rows, {"pos": (40, 16)}),
        (rows_after_a_norm, {"pos": (40, 16)}),
        (rows_and_columns, {"pos": (9, 16), "cols": (11, 16)}),
        (rows_by_number, {"pos": (40, 16)}),
        (relative_bias, {"bias": (4, 20, 20)}),
    ],
)
def test_positions_beyond_the_example_stay(forward, more):
    net, x, longer = (
        Net(forward, **tables(**{n: P(*s) for n, s in more.items()})),
        torch.randn(2, 6, 5),
        torch.randn(2, 12, 5),
    )
    norm = forward is rows_after_a_norm
    graph = analyze(net, (x,)) if norm else shrinks_to_the_mask(net, (x,), [lambda m: m(x), lambda m: m(longer)])
    assert graph.groups, "the width is no position"
    for name, shape in more.items():
        places = [d for d, size in enumerate(shape) if size in (40, 20, 9, 11)]
        lost = {m.dim for g in graph.groups for m in g.members if m.tensor == f"{name}.p"}
        assert lost.isdisjoint(places)
        reasons = [f.reason for f in graph.frozen for m in f.members if m.tensor == f"{name}.p" and m.dim in places]
        assert all(reasons)
        assert len(reasons) >= len(places)


def test_a_weight_of_which_the_example_took_a_part_stays_whole():
    def forward(net: Any, x: Tensor, width: int = 8) -> Tensor:
        return net.o(torch.relu(net.e(x)[..., :0].sum() + x @ net.up.p[:width].T) @ net.down.p[:width])

    net, x = Net(forward, **tables(up=P(12, 5), down=P(12, 16))), torch.randn(3, 5)
    graph = shrinks_to_the_mask(net, (x,), [lambda m: m(x), lambda m: m(x, width=12)])
    assert any("only a part" in reason for reason in whole(graph, "up.p").values())


def test_a_part_of_what_a_layer_makes_is_pruned_as_before():
    net, x = (
        Net(lambda net, x: net.o(torch.relu(net.e(x))[:, :8]), e=nn.Linear(5, 12), o=nn.Linear(8, 3)),
        torch.randn(3, 5),
    )
    graph = shrinks_to_the_mask(net, (x,), [lambda m: m(x)])
    assert sorted(group.size for group in graph.groups) == [4, 8]
