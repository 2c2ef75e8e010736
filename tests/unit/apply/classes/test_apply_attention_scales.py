"""A class that takes attention's scale from the head dimension can lose some of it: its queries take in the difference."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from graph_zoo import randomize
from prunus.apply import follow_class, shrink
from prunus.apply.classes import attention_scales as scales
from prunus.graph import analyze

ATTEND = functional.scaled_dot_product_attention


class Attention(nn.Module):
    """Two heads of six; ``attend`` makes an output of queries, keys and values, each ``(n, heads, t, dim)``."""

    def __init__(self, attend: Callable[..., Tensor] = ATTEND) -> None:
        super().__init__()
        self.attend, self.heads, self.dim = attend, 2, 6
        self.embed = nn.Linear(3, 8)
        self.layers()
        self.o, self.out = nn.Linear(12, 8), nn.Linear(8, 2)

    def layers(self) -> None:
        self.qkv = nn.Linear(8, 36)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, t, _ = x.shape
        y = self.attend(*self.split(x)).transpose(1, 2).reshape(n, t, self.heads * self.dim)
        return self.out(x + self.o(y))


class Separate(Attention):
    """A layer for each; the queries' has no bias, but one of their own is added."""

    def layers(self) -> None:
        self.q, self.k, self.v = nn.Linear(8, 12, bias=False), nn.Linear(8, 12), nn.Linear(8, 12)
        self.more = nn.Parameter(torch.randn(12))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, t, _ = x.shape
        made = (self.q(x) + self.more, self.k(x), self.v(x))
        q, k, v = (y.view(n, t, self.heads, self.dim).transpose(1, 2) for y in made)
        return q, k, v


class Convolved(Attention):
    """Pointwise convolutions, as in image models."""

    def layers(self) -> None:
        self.qkv = nn.Conv1d(8, 36, 1)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, t, _ = x.shape
        q, k, v = self.qkv(x.transpose(1, 2)).view(n, 3, self.heads, self.dim, t).transpose(3, 4).unbind(1)
        return q, k, v


class Multiplied(Attention):
    """The weight lies the other way round, as in GPT-2."""

    def layers(self) -> None:
        self.weight, self.bias = nn.Parameter(torch.randn(8, 36)), nn.Parameter(torch.randn(36))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, t, _ = x.shape
        y = torch.addmm(self.bias, x.reshape(n * t, -1), self.weight)
        q, k, v = y.view(n, t, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        return q, k, v


class Normed(Attention):
    """Queries and keys are normed over the head dimension, with scales."""

    def layers(self) -> None:
        super().layers()
        self.q_norm, self.k_norm = nn.LayerNorm(6), nn.LayerNorm(6)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().split(x)
        return self.q_norm(q), self.k_norm(k), v


class Rotated(Attention):
    """Halves are rotated by their positions."""

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().split(x)
        angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None]
        half = self.dim // 2
        turned = [torch.cat([-y[..., half:], y[..., :half]], -1) for y in (q, k)]
        q, k = (y * angle.cos() + z * angle.sin() for y, z in zip((q, k), turned, strict=True))
        return q, k, v


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1) @ v


def both_sides(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    side = k.size(-1) ** -0.25
    return torch.softmax((q * side) @ (k * side).transpose(-2, -1), dim=-1) @ v


MODELS = {
    "fused": Attention,
    "separate": Separate,
    "convolved": Convolved,
    "multiplied": Multiplied,
    "normed": Normed,
    "rotated": Rotated,
    "by hand": lambda: Attention(by_hand),
    "both sides": lambda: Attention(both_sides),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_head_dimension_goes_and_the_class_computes_the_same_on_other_inputs(name):
    model, x = randomize(MODELS[name]()).double(), torch.randn(2, 5, 3).double()
    graph = follow_class(model, (x,), analyze(model, (x,)))
    (dim,) = [group for group in graph.groups if group.kind == "head_dim"]
    keep = {dim.name: torch.arange(dim.size) % 3 != 1}
    shrunk = shrink(model, (x,), graph, keep)
    assert shrunk.kind == "eager"
    assert shrunk.folded
    assert shrunk.model.dim == 4
    traced = shrink(model, (x,), graph, keep, prefer="graph").model
    others = torch.randn(3, 5, 3).double()
    assert torch.allclose(shrunk.model(others), traced(others), rtol=1e-9, atol=1e-12)


def test_keys_and_values_of_a_fused_layer_stay_as_they_are():
    model, x = randomize(Attention()), torch.randn(2, 5, 3)
    graph = follow_class(model, (x,), analyze(model, (x,)))
    (dim,) = [group for group in graph.groups if group.kind == "head_dim"]
    shrunk = shrink(model, (x,), graph, {dim.name: torch.arange(6) < 4})
    plain = model.qkv.weight.view(3, 2, 6, 8)[:, :, :4]
    factors = shrunk.model.qkv.weight.view(3, 2, 4, 8) / plain
    assert torch.allclose(factors[0], torch.tensor((4 / 6) ** 0.5))
    assert torch.equal(factors[1:], torch.ones(2, 2, 4, 8))


def test_a_dead_input_is_multiplied_all_the_same():
    """What a feature contributes can't be seen where it is zero; on other inputs it isn't."""
    model = randomize(Attention()).double()
    model.embed = nn.Identity()
    x = torch.randn(2, 5, 8).double()
    x[..., 3] = 0.0
    model.out = nn.Linear(8, 2).double()
    graph = analyze(model, (x,))
    (dim,) = [group for group in graph.groups if group.kind == "head_dim"]
    shrunk = shrink(model, (x,), graph, {dim.name: torch.arange(6) < 4})
    traced = shrink(model, (x,), graph, {dim.name: torch.arange(6) < 4}, prefer="graph").model
    others = torch.randn(2, 5, 8).double()
    assert torch.allclose(shrunk.model(others), traced(others), rtol=1e-9)


def test_a_scale_that_is_held_is_left_alone():
    class Held(Attention):
        def __init__(self) -> None:
            super().__init__(lambda q, k, v: ATTEND(q, k, v, scale=self.scale))
            self.scale = 6**-0.5

    model, x = randomize(Held()), torch.randn(2, 5, 3)
    graph = follow_class(model, (x,), analyze(model, (x,)))
    (dim,) = [group for group in graph.groups if group.kind == "head_dim"]
    shrunk = shrink(model, (x,), graph, {dim.name: torch.arange(6) < 4})
    assert (shrunk.kind, shrunk.folded) == ("eager", {})


def test_a_wrong_factor_is_caught_by_the_comparison(monkeypatch):
    right = scales._ratios
    monkeypatch.setattr(scales, "_ratios", lambda *given: {key: 1.01 * v for key, v in right(*given).items()})
    model, x = randomize(Attention()), torch.randn(2, 5, 3)
    graph = analyze(model, (x,))
    assert "head_dim" not in {group.kind for group in follow_class(model, (x,), graph).groups}
    (dim,) = [group for group in graph.groups if group.kind == "head_dim"]
    keep = {dim.name: torch.arange(6) < 4}
    shrunk = shrink(model, (x,), graph, keep)
    assert shrunk.kind == "graph"
    monkeypatch.undo()
    assert torch.equal(shrunk.model(x), shrink(model, (x,), graph, keep, prefer="graph").model(x)), (
        "weights were changed"
    )
