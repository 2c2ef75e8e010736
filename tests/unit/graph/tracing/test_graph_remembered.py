"""What a trace takes from memory is what it would have written down; what isn't seen of a module isn't remembered."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from prunus.apply import shrink
from prunus.apply.traced.same_operations import same_operations
from prunus.graph import analyze
from prunus.graph.tracing.remembered import Remembered
from prunus.graph.tracing.trace import Trace, trace


class Block(nn.Module):
    """A residual block that writes in place, makes a constant, and hands out two values."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(inplace=True), nn.Linear(2 * width, width))
        self.norm, self.scale = nn.LayerNorm(width), 2.0

    def forward(self, x: Tensor, twice: bool = False) -> tuple[Tensor, Tensor]:
        y = self.inner(self.norm(x)) * self.scale
        mask = x.new_zeros(x.shape[-1])
        mask[1:] = 3.0
        return x + y * mask, (y + y if twice else y)


class Net(nn.Module):
    """Equal blocks, of which two share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(8) for _ in range(4))
        self.blocks[2].inner[0].weight = self.blocks[1].inner[0].weight

    def forward(self, x: Tensor) -> Tensor:
        for place, block in enumerate(self.blocks):
            x, other = block(x, twice=place == 3)
        return x + other


def alike(one: Trace, other: Trace) -> bool:
    graphs = [made.graph_module.graph for made in (one, other)]
    places = [[node for node in graph.nodes if node.op == "placeholder"] for graph in graphs]
    ran = [[(call.name, call.given.name, call.made.name) for call in made.calls] for made in (one, other)]
    return ran[0] == ran[1] and same_operations(*graphs, list(zip(*reversed(places), strict=True))) == "same"


def test_what_is_remembered_is_what_would_be_written_down():
    model, memory, x = Net().eval(), Remembered(), (torch.randn(2, 3, 8),)
    fresh = trace(model, x)
    for _ in range(3):
        assert alike(trace(model, x, memory=memory), fresh)
    less = Net().eval()
    del less.blocks[1]
    assert alike(trace(less, x, memory=memory), trace(less, x))
    assert not alike(trace(less, x, memory=memory), fresh)
    wide = (torch.randn(2, 5, 8),)
    assert alike(trace(model, wide, memory=memory), trace(model, wide))


class Counted(Block):
    ran = 0

    def forward(self, x: Tensor, twice: bool = False) -> tuple[Tensor, Tensor]:
        type(self).ran += 1
        return super().forward(x, twice)


def test_an_equal_block_runs_once():
    model, memory, x = (
        nn.Sequential(*(nn.Sequential(Counted(8), nn.Flatten(0, 0)) for _ in range(3))),
        Remembered(),
        None,
    )
    Counted.ran = 0
    model = Net().eval()
    model.blocks = nn.ModuleList(Counted(8) for _ in range(4))
    x = (torch.randn(2, 3, 8),)
    trace(model, x, memory=memory)
    assert Counted.ran == 2  # one of them is asked for something else
    trace(model, x, memory=memory)
    assert Counted.ran == 2


class Keeps(Block):
    """Shows its parent what it made, beside what it returns."""

    def forward(self, x: Tensor, twice: bool = False) -> tuple[Tensor, Tensor]:
        self.kept = super().forward(x, twice)[0]
        return self.kept, self.kept


class Reads(Net):
    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            block(x)
            x = block.kept
        return x


class Borrows(Block):
    """Uses a weight of another module."""

    def forward(self, x: Tensor, twice: bool = False) -> tuple[Tensor, Tensor]:
        return super().forward(x @ self.lender[0], twice)


class Lends(Net):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(8))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            block.lender = [self.weight]
            x, _ = block(x)
        return x


class Writes(Block):
    """Writes into what it is given."""

    def forward(self, x: Tensor, twice: bool = False) -> tuple[Tensor, Tensor]:
        x.add_(1.0)
        return super().forward(x, twice)


@pytest.mark.parametrize(("net", "block"), [(Reads, Keeps), (Lends, Borrows), (Net, Writes)])
def test_what_a_module_does_beside_what_it_returns_is_no_matter_of_memory(net, block):
    model = net()
    model.blocks = nn.ModuleList(block(8) for _ in range(4))
    memory, x = Remembered(), (torch.randn(2, 3, 8),)
    assert alike(trace(model.eval(), x, memory=memory), trace(model, x))
    assert alike(trace(model, x, memory=memory), trace(model, x))


def test_another_setting_is_another_module():
    model, memory, x = Net().eval(), Remembered(), (torch.randn(2, 3, 8),)
    trace(model, x, memory=memory)
    model.blocks[2].scale = 5.0
    numbers = [node.args for node in trace(model, x, memory=memory).graph_module.graph.nodes if "mul" in node.name]
    assert 5.0 in [argument for arguments in numbers for argument in arguments]


def test_a_cut_that_is_kept_remembers_nothing(monkeypatch):
    model, x = Net().eval(), (torch.randn(2, 3, 8),)
    graph = analyze(model, x)
    group = next(group for group in graph.groups if group.size == 16)
    monkeypatch.setattr(Remembered, "at_hand", None)
    assert shrink(model, x, graph, {group.name: torch.arange(16) < 8}).kind == "eager"
