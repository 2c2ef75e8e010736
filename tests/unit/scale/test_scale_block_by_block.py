from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from prunus.core.errors import DataError, ModelError, OutputError, RecipeError
from prunus.recover import keep_top, sparsegpt_prune
from prunus.scale import block_by_block as layerwise
from prunus.scale import prune_layerwise


class Block(nn.Module):
    """Attention-like: two layers read the same input, a mask comes as a keyword, the output is a tuple."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, hidden, scale=None, *, mask):
        return hidden + self.out(torch.tanh(self.a(hidden)) * self.b(hidden)) * mask * scale, "more"


class Decoder(nn.Module):
    def __init__(self, width: int = 16, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, width)
        self.layers = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, 20)

    def forward(self, ids, mask=None):
        hidden = self.embed(ids)
        mask = torch.ones_like(ids, dtype=hidden.dtype).unsqueeze(-1) if mask is None else mask
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden, torch.tensor(1.0 + number), mask=mask)[0]
        return self.head(hidden)


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    return Decoder(), [{"ids": torch.randint(20, (4, 12))} for _ in range(5)]


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("amount", [{"keep_fraction": 0.5}, {"n_m": (2, 4)}], ids=str)
@pytest.mark.parametrize("refit", [False, True])
def test_every_layer_of_every_block_keeps_its_share_and_the_rest_stays(decoder, criterion, amount, refit):
    model, batches = decoder
    before = copy.deepcopy(model.state_dict())
    reports = prune_layerwise(model, batches, criterion=criterion, refit=refit, **amount)
    assert [report.name for report in reports] == [f"layers.{i}.{name}" for i in range(3) for name in ("a", "b", "out")]
    for report in reports:
        weight = model.get_submodule(report.name).weight
        assert int((weight != 0).sum()) == report.kept == report.total // 2
    assert torch.equal(model.head.weight, before["head.weight"])
    assert torch.equal(model.embed.weight, before["embed.weight"])


def test_a_block_sees_what_the_pruned_blocks_before_it_give(decoder):
    """By hand, with hooks on the whole model: the same weights."""
    model, batches = decoder
    other = copy.deepcopy(model)
    prune_layerwise(model, batches, criterion="sparsegpt", keep_fraction=0.5)
    for block in other.layers:
        grams = {name: torch.zeros(16, 16) for name in ("a", "b", "out")}

        def hook(name, grams=grams):
            def see(module, given, result):
                rows = given[0].reshape(-1, 16)
                grams[name] += rows.T @ rows

            return see

        handles = [getattr(block, name).register_forward_hook(hook(name)) for name in grams]
        with torch.no_grad():
            for batch in batches:
                other(**batch)
        for handle in handles:
            handle.remove()
        for name, gram in grams.items():
            weight = getattr(block, name).weight
            weight.data = sparsegpt_prune(weight.detach(), gram / (5 * 48), keep_fraction=0.5)[0]
    for name, weight in other.state_dict().items():
        assert torch.allclose(weight, model.state_dict()[name], atol=1e-4), name


def test_wanda_takes_the_norms_of_the_inputs_and_judges_by_row():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    weight, x = model[0].weight.detach().clone(), torch.randn(30, 8) * torch.arange(8)
    prune_layerwise(model, [x[:10], x[10:]], criterion="wanda", keep_fraction=0.25)
    assert torch.equal(model[0].weight, weight * keep_top(weight.abs() * x.norm(dim=0), keep_fraction=0.25))


class Sometimes(nn.Module):
    """A layer that not every batch reaches, and one that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.rare = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = self.twice(torch.tanh(self.twice(x)))
        return self.rare(x) if x.shape[0] == 3 else x


def test_a_pass_isn_t_cut_short_where_layers_run_twice_or_not_at_all():
    torch.manual_seed(0)
    model = nn.Sequential(Sometimes(), nn.Linear(4, 4))
    seen = []
    handle = model[0].twice.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    batches = [torch.randn(n, 4) * torch.arange(1, 5) for n in (3, 2, 3)]
    with torch.no_grad():
        for batch in batches:
            model[0](batch)
    handle.remove()
    weight, norms = model[0].twice.weight.detach().clone(), torch.cat(seen).norm(dim=0)
    prune_layerwise(model, batches, criterion="wanda", keep_fraction=0.5)
    assert torch.equal(model[0].twice.weight, weight * keep_top(weight.abs() * norms, keep_fraction=0.5))


def test_convolutions_in_a_row_are_pruned_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    reports = prune_layerwise(model, [torch.randn(4, 2, 6, 6)], keep_fraction=0.5)
    assert [report.kept / report.total for report in reports] == [0.5, 0.5]


def test_least_squares_loses_least_and_the_report_says_what_is_lost(decoder):
    model, batches = decoder
    # Later blocks see other inputs, so what is lost compares in the first one only.
    layers, seen = dict(model.layers[0].named_children()), {}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda m, given, out, name=name: seen.setdefault(name, []).append(given[0]))
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    inputs = {name: torch.cat(parts).flatten(0, 1) for name, parts in seen.items()}

    def energy(name, weight):
        return float((inputs[name] @ weight.detach().t()).square().sum())

    for criterion in ("wanda", "sparsegpt"):
        lost = {}
        for refit in (False, True):
            pruned = copy.deepcopy(model)
            reports = prune_layerwise(pruned, batches, criterion=criterion, refit=refit, keep_fraction=0.5)
            dense = {name: layer.weight for name, layer in layers.items()}
            new = dict(pruned.layers[0].named_children())
            shares = [energy(n, new[n].weight - weight) / energy(n, weight) for n, weight in dense.items()]
            lost[refit] = sum(shares)
            said = [report.error for report in reports[:3]]
            if criterion == "wanda" and not refit:
                assert all(math.isnan(value) for value in said)
            else:
                assert said == pytest.approx(shares, rel=1e-3)
        assert lost[True] < lost[False]


def test_killed_and_resumed_is_never_killed_and_the_disk_holds_what_memory_would(decoder, tmp_path, monkeypatch):
    model, batches = decoder
    whole, stopped, again = (copy.deepcopy(model) for _ in range(3))
    wanted = prune_layerwise(whole, batches, keep_fraction=0.5)
    real, calls = layerwise._prune_block, []

    def dies(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(layerwise, "_prune_block", dies)
    with pytest.raises(KeyboardInterrupt):
        prune_layerwise(stopped, batches, keep_fraction=0.5, folder=tmp_path / "run")
    reports = prune_layerwise(again, batches, keep_fraction=0.5, folder=tmp_path / "run", offload=tmp_path / "disk")
    assert len(calls) == 4
    assert reports == wanted
    for name, value in again.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name])
    assert not list((tmp_path / "disk").iterdir())
    with pytest.raises(OutputError, match="other settings"):
        prune_layerwise(copy.deepcopy(model), batches, keep_fraction=0.4, folder=tmp_path / "run")


class Link(nn.Module):
    """It hands on more than its hidden state."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, hidden, bias):
        hidden = self.inner(hidden) + bias
        return hidden, hidden.mean()


class Threaded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Link(), Link()])

    def forward(self, x):
        x, bias = self.layers[0](x, torch.zeros(4))
        return self.layers[1](x, bias)[0]


def test_what_can_t_be_done_block_by_block_is_said(decoder):
    model, batches = decoder
    with pytest.raises(ModelError, match="no list of blocks runs one after the other"):
        prune_layerwise(nn.Linear(4, 4), [torch.ones(1, 4)], keep_fraction=0.5)
    with pytest.raises(ModelError, match=r"no list of blocks runs .*looked at: layers"):
        prune_layerwise(Threaded(), [torch.ones(1, 4)], keep_fraction=0.5)
    with pytest.raises(ModelError, match="no list of modules 'blocks'; it has layers"):
        prune_layerwise(model, batches, keep_fraction=0.5, blocks="blocks")
    with pytest.raises(DataError, match="got none"):
        prune_layerwise(model, [], keep_fraction=0.5)
    with pytest.raises(RecipeError, match="did you mean 'wanda'"):
        prune_layerwise(model, batches, criterion="wand", keep_fraction=0.5)
    with pytest.raises(RecipeError, match=r"2:5 needs .*layers\.0\.a has 16"):
        prune_layerwise(model, batches, n_m=(2, 5))
    with pytest.raises(ModelError, match="no linear or convolutional layer"):
        prune_layerwise(model, batches, keep_fraction=0.5, exclude=["layers.*"])
