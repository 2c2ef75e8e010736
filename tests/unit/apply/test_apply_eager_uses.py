"""A pruned module is used as the dense one was: both modes, other sizes, autocast, compilation, copies, a model built anew."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from graph_zoo import randomize
from prunus.apply import follow_class, shrink
from prunus.apply.edits import diff, rebuild
from prunus.graph import analyze


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.body = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.SiLU(), nn.Conv2d(12, 8, 1))
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.norm(x + self.body(x)).mean(dim=(2, 3)))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, dropout=0.0)
        self.body, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.embed(x)).mean(dim=1))


class FusedAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads, self.size = 4, 4
        self.embed, self.norm = nn.Linear(3, 16), nn.LayerNorm(16)
        self.qkv, self.o, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 4)
        self.scale = self.size**-0.5

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        y = y.transpose(1, 2).reshape(n, t, self.heads * self.size)
        return self.head((x + self.o(y)).mean(dim=1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.LSTM(3, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0].mean(dim=1))


@dataclass(frozen=True)
class Case:
    build: Callable[[], nn.Module]
    dense: nn.Module
    small: nn.Module


def inputs(model: nn.Module, n: int = 2, size: int = 6) -> Tensor:
    draw = torch.Generator().manual_seed(n)
    return torch.randn(*((n, 3, size, size) if isinstance(model, Convolutions) else (n, size, 3)), generator=draw)


@pytest.fixture(scope="module", params=[Convolutions, Transformer, FusedAttention, Recurrent], ids=lambda c: c.__name__)
def pruned(request) -> Case:
    dense = randomize(request.param())
    x = (inputs(dense),)
    graph = follow_class(dense, x, analyze(dense, x))
    shrunk = shrink(dense, x, graph, {g.name: torch.arange(g.size) % 2 == 0 for g in graph.groups})
    assert shrunk.kind == "eager", shrunk.notes
    assert type(shrunk.model) is request.param
    return Case(request.param, dense, shrunk.model)


@pytest.fixture
def small(pruned) -> nn.Module:
    return copy.deepcopy(pruned.small).eval()


def test_it_is_smaller(pruned):
    sizes = [sum(p.numel() for p in model.parameters()) for model in (pruned.small, pruned.dense)]
    assert sizes[0] < 0.6 * sizes[1]


@pytest.mark.parametrize(("n", "size"), [(1, 6), (5, 6), (3, 9), (2, 2)])
def test_it_takes_other_batches_and_positions_one_example_at_a_time(small, n, size):
    x = inputs(small, n, size)
    with torch.no_grad():
        whole = small(x)
        one_by_one = torch.cat([small(x[i : i + 1]) for i in range(n)])
    assert whole.shape == (n, 4)
    assert torch.allclose(whole, one_by_one, atol=1e-5)


def test_it_learns_in_train_mode_and_is_steady_in_eval_mode(small):
    x, target = inputs(small, 8), torch.arange(8) % 4
    optimizer = torch.optim.Adam(small.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = functional.cross_entropy(small.train()(x), target)
        loss.backward()
        assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    with torch.no_grad():
        assert torch.equal(small.eval()(x), small(x))


@pytest.fixture
def plain_kernels():
    """OneDNN has no bfloat16 LSTM for every processor, dense or pruned."""
    torch._C._set_mkldnn_enabled(False)
    yield
    torch._C._set_mkldnn_enabled(True)


@pytest.mark.usefixtures("plain_kernels")
def test_it_runs_and_learns_under_autocast(small):
    x = inputs(small, 4)
    with torch.no_grad():
        expected = small(x)
    with torch.autocast("cpu", torch.bfloat16):
        got = small(x)
    assert got.dtype == torch.bfloat16
    assert torch.allclose(got.float(), expected, rtol=0.1, atol=0.05 * float(expected.abs().max()))
    with torch.autocast("cpu", torch.bfloat16):
        loss = small.train()(x).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in small.parameters())


def test_it_compiles_as_the_dense_one_does(pruned, small):
    torch._dynamo.reset()
    x = inputs(small, 4)
    with torch.no_grad():
        whole = not isinstance(small, Recurrent)  # torch compiles no LSTM in one graph
        compiled = torch.compile(small, backend="eager", fullgraph=whole)
        assert torch.allclose(compiled(x), small(x), atol=1e-6)
    torch._dynamo.reset()


def test_a_copy_and_a_model_built_anew_compute_the_same(pruned, small):
    x = inputs(small, 3)
    again = rebuild(pruned.build(), diff(pruned.dense, pruned.small)).eval()
    again.load_state_dict(small.state_dict())
    with torch.no_grad():
        assert torch.equal(again(x), small(x))
        assert torch.equal(copy.deepcopy(small)(x), small(x))
