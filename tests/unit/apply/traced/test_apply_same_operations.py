"""What runs the same operations on the same tensors computes the same; where they differ, runs have to say."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from torch import Tensor, fx, nn

from graph_zoo import randomize
from prunus.apply import follow_class, shrink
from prunus.apply.shrink import cut_down
from prunus.apply.traced.same_operations import compared, runs_without, same_operations
from prunus.graph import analyze
from prunus.graph.tracing.trace import trace

comparing = import_module("prunus.apply.difference")
INPUTS = (torch.randn(2, 3, generator=torch.Generator().manual_seed(0)),)


class Two(nn.Module):
    """Two layers, between which it does something that may depend on how wide they are."""

    def __init__(self, between: str) -> None:
        super().__init__()
        self.first, self.second, self.between = nn.Linear(3, 8), nn.Linear(8, 2), between

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.between == "scale":
            x = x * x.shape[-1] ** -0.5
        elif self.between == "another" and x.shape[-1] < 8:
            x = x.relu()
        elif self.between == "written":
            x[:, 0] = x[:, 1]
        elif self.between == "constant":
            x = x + torch.tensor(float(x.shape[-1]))
        return self.second(x.tanh())


def halves(model: nn.Module) -> tuple:
    graph = analyze(model, INPUTS)
    return cut_down(model, graph, {group.name: torch.arange(group.size) < group.size // 2 for group in graph.groups})


@pytest.mark.parametrize(
    ("between", "likeness"),
    [("", "same"), ("scale", "numbers"), ("another", "other"), ("written", "same"), ("constant", "other")],
)
def test_what_a_smaller_class_does_is_told_from_the_traced_computation(between, likeness):
    assert compared(*halves(randomize(Two(between))), INPUTS, {}) == likeness


def test_a_difference_that_units_of_no_influence_hide_is_seen_without_a_second_half():
    model = randomize(Two("another"))
    with torch.no_grad():
        model.first.weight[:4], model.first.bias[:4] = 0.0, 1.0  # at one, relu changes nothing
    graph = follow_class(model, INPUTS, analyze(model, INPUTS))
    assert shrink(model, INPUTS, graph, {"first": torch.arange(8) >= 4}).kind == "graph"


def test_a_batch_size_that_the_trace_has_built_in_hides_no_difference():
    class Mixes(Two):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.eye(len(x)) @ x)

    model = randomize(Mixes("another"))
    graph = analyze(model, INPUTS)
    assert shrink(model, INPUTS, graph, {"first": torch.arange(8) < 4}).kind == "graph"


def test_a_class_that_follows_runs_once_in_a_trial_and_once_in_a_cut(monkeypatch: pytest.MonkeyPatch):
    runs: list[str] = []
    plain = comparing._run
    monkeypatch.setattr(
        comparing, "_run", lambda model, *rest: runs.append(type(model).__name__) or plain(model, *rest)
    )
    model = randomize(Two(""))
    graph = follow_class(model, INPUTS, analyze(model, INPUTS))
    assert runs == ["Two"]
    shrink(model, INPUTS, graph, {"first": torch.arange(8) < 4})
    assert runs == ["Two", "Two"]


def test_a_class_whose_operations_fit_and_whose_kernels_refuse_does_not_follow(monkeypatch: pytest.MonkeyPatch):
    class Refuses(Two):
        def forward(self, x: Tensor) -> Tensor:
            if type(x) is Tensor and self.first.out_features < 8:
                raise RuntimeError("the kernel wants a multiple of 8")
            return super().forward(x)

    model = randomize(Refuses(""))
    graph = follow_class(model, INPUTS, analyze(model, INPUTS))
    assert shrink(model, INPUTS, graph, {"first": torch.arange(8) < 4}).kind == "graph"


def graph_of(*, copied: bool, written: bool) -> fx.Graph:
    def run(x: Tensor) -> Tensor:
        y = x.clone() if copied else x
        if written:
            y.add_(1.0)
        return y.relu() + x.sum()

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return run(x.tanh())

    return trace(Net(), INPUTS).graph_module.graph


@pytest.mark.parametrize(("written", "likeness"), [(False, "same"), (True, "other")])
def test_a_copy_stands_for_what_it_copies_unless_something_is_written_there(written, likeness):
    one, other = graph_of(copied=True, written=written), graph_of(copied=False, written=written)
    for own, reference in ((one, other), (other, one)):
        known = zip(
            *([node for node in graph.nodes if node.op == "placeholder"] for graph in (reference, own)), strict=True
        )
        assert same_operations(own, reference, list(known)) == likeness


class Block(nn.Module):
    def __init__(self, writes: str) -> None:
        super().__init__()
        self.inner, self.writes = nn.Linear(3, 3), writes

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        if self.writes == "its own":
            y.relu_()
        elif self.writes == "what it was given":
            x.relu_()
        return x + y


@pytest.mark.parametrize(("writes", "same"), [("", True), ("its own", True), ("what it was given", False)])
def test_a_block_that_does_nothing_is_one_that_is_not_there_unless_it_writes_into_what_it_takes(writes, same):
    def build(n: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(3, 3), *[Block(writes) for _ in range(n)])

    whole, less = trace(build(2), INPUTS), trace(build(1), INPUTS)
    names = ["0.weight", "0.bias", "2.inner.weight", "2.inner.bias"]
    assert runs_without(less, whole, {"1"}, names) is same
    assert not runs_without(less, whole, {"1"}, [name.replace("2.", "1.") for name in names])
