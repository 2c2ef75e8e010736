"""A traced computation follows the sizes that it can, and refuses the inputs that it doesn't hold for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graph_cases import Net, P, masked
from graph_zoo import randomize
from prunus.apply import Shrunk, follow_class, shrink
from prunus.core.errors import ModelError, ShapeError
from prunus.graph import analyze, certify


def halved(net: nn.Module, *given: Any, prefer: Any = "eager", every: int = 2) -> tuple[Shrunk, nn.Module]:
    """Return the model without every second unit, and the whole one in which those are zero."""
    randomize(net)
    net.eval()
    graph = follow_class(net, given, certify(net, given, analyze(net, given)))
    assert graph.groups, graph.frozen
    keep = {group.name: torch.arange(group.size) % every == 0 for group in graph.groups}
    return shrink(net, given, graph, keep, prefer=prefer), masked(net, graph, keep)


@torch.no_grad()
def agree(shrunk: Shrunk, masked: nn.Module, *given: Any) -> None:
    got, expected = shrunk.model(*given), masked(*given)
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5), float((got - expected).abs().max())


def of_length(n: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, n, 5, generator=torch.Generator().manual_seed(n))


def read(net: Any, x: Tensor) -> Tensor:
    """The hidden width is written into forward, so the class can't follow."""
    return torch.relu(net.a(x)).reshape(x.shape[0], x.shape[1], 16)


def over_the_length(net: Any, x: Tensor) -> Tensor:
    return net.o(read(net, x).sum(1) / x.shape[1])


def by_its_root(net: Any, x: Tensor) -> Tensor:
    return net.o(read(net, x).sum(1) * x.shape[1] ** -0.5)


def with_positions(net: Any, x: Tensor) -> Tensor:
    return net.o(read(net, x) + net.pos.p[: x.shape[1]])


def up_to_the_middle(net: Any, x: Tensor) -> Tensor:
    return net.o(read(net, x)[:, : (x.shape[1] + 1) // 2].mean(1))


def behind_a_mask(net: Any, x: Tensor) -> Tensor:
    h = read(net, x)
    n = x.shape[1]
    scores = (h @ h.transpose(1, 2)).masked_fill(~net.mask[:n, :n], -math.inf).softmax(-1)
    return net.o(scores @ h)


def in_pairs(net: Any, x: Tensor) -> Tensor:
    return net.o(read(net, x).unflatten(1, (x.shape[1] // 2, 2)).amax(2))


@pytest.mark.parametrize(
    "forward", [over_the_length, by_its_root, with_positions, up_to_the_middle, behind_a_mask, in_pairs]
)
def test_a_traced_computation_follows_the_length(forward):
    net = Net(
        forward, a=nn.Linear(5, 16), o=nn.Linear(16, 3), **({"pos": P(40, 16)} if forward is with_positions else {})
    )
    net.register_buffer("mask", torch.ones(40, 40, dtype=torch.bool).tril())
    shrunk, masked = halved(net, of_length(8))
    assert shrunk.kind == "graph"
    for n in (8, 12, 6, 4, 20):
        agree(shrunk, masked, of_length(n, batch=n))
    assert "holds for inputs of the shape (any, " in shrunk.notes[-1]


def test_a_traced_computation_follows_the_size_of_an_image():
    def forward(net: Any, x: Tensor) -> Tensor:
        h = net.c(x)
        n, _, rows, columns = h.shape
        h = h.view(n, 8, rows * columns).transpose(1, 2)
        return net.o((h + h.mean(1, keepdim=True) / (rows * columns)).amax(1))

    net = Net(forward, c=nn.Conv2d(3, 8, 3, stride=2), o=nn.Linear(8, 3))
    shrunk, masked = halved(net, torch.randn(2, 3, 16, 16))
    assert shrunk.kind == "graph"
    for shape in ((2, 3, 16, 16), (3, 3, 20, 9), (1, 3, 31, 32)):
        agree(shrunk, masked, torch.randn(shape))


def only_short(net: Any, x: Tensor) -> Tensor:
    h = read(net, x)
    return net.o(h.amax(1) if x.shape[1] > 10 else h.mean(1))


def step_by_step(net: Any, x: Tensor) -> Tensor:
    h, total = read(net, x), 0
    for place in range(x.shape[1]):
        total = total * 0.5 + h[:, place]
    return net.o(total)


def over_a_python_root(net: Any, x: Tensor) -> Tensor:
    return net.o(read(net, x).sum(1) / math.sqrt(x.shape[1]))


@pytest.mark.parametrize(
    ("forward", "right", "wrong"),
    [(only_short, (8, 10, 2), (11, 16)), (step_by_step, (8,), (7, 9)), (over_a_python_root, (8,), (7, 9, 16))],
)
def test_a_length_that_is_built_in_is_refused_elsewhere(forward, right, wrong):
    shrunk, masked = halved(Net(forward, a=nn.Linear(5, 16), o=nn.Linear(16, 3)), of_length(8))
    assert shrunk.kind == "graph"
    for n in right:
        agree(shrunk, masked, of_length(n, batch=5))
    for n in wrong:
        with pytest.raises(ShapeError, match=r"input 0 must have the size .* in dimension 1: got"):
            shrunk.model(of_length(n))


def test_inputs_of_one_length_vary_together():
    def forward(net: Any, x: Tensor, weights: Tensor) -> Tensor:
        return net.o((read(net, x) * weights[..., None]).sum(1) / x.shape[1])

    net = Net(forward, a=nn.Linear(5, 16), o=nn.Linear(16, 3))
    shrunk, masked = halved(net, of_length(8), torch.rand(2, 8))
    agree(shrunk, masked, of_length(12, batch=3), torch.rand(3, 12))


# --- numbers that are read out of tensors ---------------------------------------


def by_float(x: Tensor) -> Any:
    return float(x.detach().abs().mean()) + 1


def by_item(x: Tensor) -> Any:
    return x.detach().mean().item() * 2 + 3


def by_numpy(x: Tensor) -> Any:
    return torch.from_numpy(x.detach().numpy().astype("float64").std(axis=1, keepdims=True)).to(x.dtype) + 1


def by_list(x: Tensor) -> Any:
    return sum(x.detach().flatten().tolist()) ** 2 + 1


@pytest.mark.parametrize("number", [by_float, by_item, by_numpy, by_list])
@pytest.mark.parametrize("hidden", [False, True])
def test_the_class_stays_where_it_reads_numbers(number, hidden):
    def forward(net: Any, x: Tensor) -> Tensor:
        h = torch.relu(net.a(x))
        return net.o(h / number(h if hidden else x))

    net, x = Net(forward, a=nn.Linear(6, 16), o=nn.Linear(16, 2)), torch.randn(5, 6)
    randomize(net)
    graph = follow_class(net, (x,), certify(net, (x,), analyze(net, (x,))))
    shrunk = shrink(net, (x,), graph, {"a": torch.arange(16) < 8})
    assert shrunk.kind == "eager", shrunk.notes
    byhand = Net(forward, a=nn.Linear(6, 8), o=nn.Linear(8, 2))
    byhand.load_state_dict(shrunk.model.state_dict())
    for factor in (1, 10):
        with torch.no_grad():
            assert torch.equal(shrunk.model(x * factor), byhand(x * factor))


@pytest.mark.parametrize("number", [by_float, by_item, by_numpy, by_list])
def test_a_number_that_is_built_in_is_refused_elsewhere(number: Callable[[Tensor], Any]):
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.o(torch.relu(net.a(x)).reshape(len(x), 16) / number(x))

    x = torch.randn(4, 6)
    shrunk, masked = halved(Net(forward, a=nn.Linear(6, 16), o=nn.Linear(16, 2)), x)
    assert shrunk.kind == "graph"
    assert "numbers that the model read" in shrunk.notes[-1]
    agree(shrunk, masked, x)
    with pytest.raises(ModelError, match="other numbers where the model read them"):
        shrunk.model(x * 2)


def test_a_scale_that_follows_the_width_is_still_told_from_a_number_that_was_read():
    def forward(net: Any, x: Tensor) -> Tensor:
        h = torch.relu(net.a(x))
        return net.o(h * h.shape[-1] ** 0.5 / float(x.abs().mean()))

    shrunk, masked = halved(Net(forward, a=nn.Linear(6, 16), o=nn.Linear(16, 2)), x := torch.randn(4, 6))
    assert shrunk.kind == "graph", "the class scales by another root"
    agree(shrunk, masked, x)


def of_fx() -> nn.Module:
    """Six positions are built in, by operations that its own generated code calls."""
    graph = torch.fx.Graph()
    hidden = graph.call_module("a", (graph.placeholder("x"),))
    rows = graph.call_method("reshape", (hidden, -1, 6 * 16))
    graph.output(graph.call_module("o", (graph.call_function(torch.narrow, (rows, 1, 0, 16)),)))
    return torch.fx.GraphModule({"a": nn.Linear(5, 16), "o": nn.Linear(16, 3)}, graph)


def test_sizes_that_are_tried_and_fail_print_nothing(capfd):
    halved(of_fx(), of_length(6), prefer="graph")
    assert capfd.readouterr().err == ""
