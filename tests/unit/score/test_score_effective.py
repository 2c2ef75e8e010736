"""A layer is judged by the weight that it computes with, however that is made."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from prunus.graph import analyze
from prunus.score import prunable_weights
from prunus.score.effective import effective_weights
from prunus.score.evidence.gather import gather


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def masked(layer):
    prune.random_unstructured(layer, "weight", 0.5)
    prune.l1_unstructured(layer, "weight", 0.25)


def old_norm(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(layer)
    layer.weight_g.data *= torch.rand(layer.weight_g.shape)


def new_norm(layer):
    parametrizations.weight_norm(layer)
    layer.parametrizations.weight.original0.data *= torch.rand(6, 1)


MADE = {
    "prune": (masked, "weight_orig"),
    "weight_norm": (old_norm, "weight_v"),
    "spectral_norm": (nn.utils.spectral_norm, "weight_orig"),
    "parametrized weight_norm": (new_norm, "parametrizations.weight.original1"),
    "parametrized spectral_norm": (parametrizations.spectral_norm, "parametrizations.weight.original"),
    "own": (lambda layer: parametrize.register_parametrization(layer, "weight", Doubled()), "parametrizations.weight.original"),
}  # fmt: skip


@pytest.fixture(params=MADE)
def made(request):
    torch.manual_seed(0)
    layer = nn.Linear(8, 6)
    change, main = MADE[request.param]
    change(layer)
    layer.eval()(torch.ones(1, 8))
    return layer, main


def test_the_weight_of_the_layer_stands_for_what_it_is_made_of(made):
    layer, main = made
    found = effective_weights(layer, dict(layer.named_parameters()))
    assert torch.allclose(found[main], layer.weight)
    assert torch.equal(found["bias"], layer.bias)
    assert not any(value.any() for name, value in found.items() if name not in (main, "bias"))
    assert prunable_weights(layer) == [main]


def test_nothing_is_counted_and_no_mode_changes(made):
    layer, _ = made
    layer.train()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    effective_weights(layer, dict(layer.named_parameters()))
    assert layer.training
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_magnitudes_rank_units_by_what_they_do(made):
    layer, _ = made
    net = nn.Sequential(layer, nn.ReLU(), nn.Linear(6, 2))
    graph = analyze(net, (torch.randn(2, 8),))
    names = [member.tensor for member in graph.groups[0].members if member.is_parameter and member.dim == 0]
    evidence = gather(net, names, (), None, ("weight",))
    size = sum(evidence.weight[name].flatten(1).square().sum(1) for name in names if name != "0.bias")
    assert torch.allclose(size, layer.weight.square().sum(1))
