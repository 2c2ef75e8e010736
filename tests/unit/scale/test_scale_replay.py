from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import nn

from prunus.core.errors import DataError, ModelError
from prunus.recover import keep_top
from prunus.scale import prune_layerwise


class Cache:
    """Keys of all blocks so far, as the caches of transformers keep them."""

    def __init__(self) -> None:
        self.keys: dict[int, torch.Tensor] = {}

    def update(self, number: int, keys: torch.Tensor) -> torch.Tensor:
        before = self.keys.get(number, keys[:, :0])
        self.keys[number] = torch.cat([before, keys], dim=1)
        return self.keys[number]


class Attending(nn.Module):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.key, self.out = number, nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, hidden, cache=None, mask=None):
        keys = self.key(hidden)
        keys = keys if cache is None else cache.update(self.number, keys)
        scores = hidden @ keys.mT if mask is None else hidden @ keys.mT + mask
        return hidden + self.out(scores.softmax(-1) @ keys)


class Decoder(nn.Module):
    def __init__(self, caching: bool) -> None:
        super().__init__()
        self.caching = caching
        self.layers = nn.ModuleList(Attending(number) for number in range(3))

    def forward(self, x, mask=None, cache=None):
        cache = Cache() if self.caching and cache is None else cache
        for layer in self.layers:
            x = layer(x, cache, mask=mask)
        return x


def pruned(model: nn.Module, batches: list) -> list[torch.Tensor]:
    model = copy.deepcopy(model)
    prune_layerwise(model, batches, criterion="wanda", keep_fraction=0.5)
    return list(model.parameters())


def decoder(caching: bool) -> nn.Module:
    torch.manual_seed(0)
    return Decoder(caching)


def batches(n: int = 3, **more) -> list[dict]:
    return [{"x": torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(i)), **more} for i in range(n)]


@pytest.mark.parametrize("mask", [None, torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)])
def test_a_cache_changes_nothing_about_what_is_pruned(mask):
    for one, other in zip(
        pruned(decoder(True), batches(mask=mask)), pruned(decoder(False), batches(mask=mask)), strict=True
    ):
        assert torch.equal(one, other)


def test_the_caller_s_cache_stays_as_it_was():
    cache = Cache()
    for one, other in zip(pruned(decoder(False), batches(cache=cache)), pruned(decoder(False), batches()), strict=True):
        assert torch.equal(one, other)
    assert cache.keys == {}


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x):
        x += torch.tanh(self.inner(x))
        return x


class Streaming(nn.Module):
    """It remembers the last frame, as streaming models do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(8, 8), None

    def forward(self, x):
        out = self.inner(x if self.last is None else x + self.last)
        self.last = out
        return out


@pytest.mark.parametrize("kind", [InPlace, Streaming])
def test_a_block_that_writes_where_it_reads_is_pruned_on_what_the_model_gives_it(kind):
    torch.manual_seed(0)
    model = nn.Sequential(*(kind() for _ in range(2)))
    x = torch.randn(6, 8) * torch.arange(1, 9)
    by_hand = copy.deepcopy(model)
    prune_layerwise(model, [x.clone()], criterion="wanda", keep_fraction=0.5)
    hidden = x
    with torch.no_grad():
        for block in by_hand:
            weight = block.inner.weight
            weight.mul_(keep_top(weight.abs() * hidden.square().mean(0).sqrt(), keep_fraction=0.5))
            hidden = copy.deepcopy(block)(hidden.clone())
    for one, other in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(one, other)


class Shifting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x, shift):
        return self.inner(x) + shift.add_(1.0)


class Chain(nn.Module):
    def __init__(self, given) -> None:
        super().__init__()
        self.layers, self.given = nn.ModuleList([Shifting(), Shifting()]), given

    def forward(self, x):
        given = self.given()
        for layer in self.layers:
            x = layer(x, given)
        return x


def test_what_can_t_be_handed_over_twice_is_said():
    with pytest.raises(ModelError, match=r"writes into a tensor of shape \(1,\)"):
        prune_layerwise(Chain(lambda: torch.zeros(1)), [torch.randn(4, 8)], criterion="wanda", keep_fraction=0.5)

    class Locked:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def add_(self, amount: float) -> float:
            return amount

    with pytest.raises(ModelError, match="something that can't be copied"):
        prune_layerwise(Chain(Locked), [torch.randn(4, 8)], criterion="wanda", keep_fraction=0.5)


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_batch_that_isn_t_finite_is_refused_by_its_number(criterion, value):
    model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(3)))
    before = copy.deepcopy(model.state_dict())
    bad = torch.randn(4, 8)
    bad[0, 0] = value
    with pytest.raises(DataError, match="calibration batch 1 has NaN or infinite"):
        prune_layerwise(model, [torch.randn(4, 8), bad], criterion=criterion, keep_fraction=0.5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_weights_and_inputs_of_a_layer_that_aren_t_finite_are_named():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight.data[0, 0] = float("nan")
    with pytest.raises(ModelError, match="1: its weight has NaN"):
        prune_layerwise(model, [torch.randn(4, 8)], criterion="magnitude", keep_fraction=0.5)
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), nn.Linear(8, 8))
    with pytest.raises(DataError, match=r"0\.0: its inputs on the calibration batches are NaN or infinite"):
        prune_layerwise(model, [torch.full((2, 8), 1e30)], criterion="wanda", keep_fraction=0.5)
