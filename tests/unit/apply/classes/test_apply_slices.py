"""What is cut stays of the kind that it was: trained, hooked, scripted, in its memory format."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from prunus.apply import shrink
from prunus.graph import analyze, certify
from prunus.graph.tracing.states import duplicate

KEEP = torch.arange(24) % 3 != 0


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 2)).eval()


def masked(model: nn.Sequential) -> nn.Sequential:
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


def normed(model: nn.Sequential) -> nn.Sequential:
    nn.utils.weight_norm(model[0])
    return model


def spectral(model: nn.Sequential) -> nn.Sequential:
    nn.utils.spectral_norm(model[0])
    return model


HOOKED = [masked, normed, spectral]


def cut(model: nn.Module, x: torch.Tensor) -> nn.Module:
    graph = certify(model, (x,), analyze(model, (x,)))
    result = shrink(model, (x,), graph, {graph.groups[0].name: KEEP})
    assert result.kind == "eager"
    return result.model


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("hook", HOOKED)
def test_a_weight_that_a_hook_computes_follows_the_parameters_it_reads(hook):
    model, x = hook(net()), torch.randn(5, 8)
    weight = model[0].weight.detach().clone()
    smaller = cut(model, x)
    assert smaller[0].out_features == smaller[0].weight.shape[0] == int(KEEP.sum())
    if hook is not spectral:  # what is left of a spectral norm's matrix has another largest singular value
        assert torch.allclose(smaller[0].weight, weight[KEEP])
        hidden = torch.relu(model[0](x)) * KEEP
        assert torch.allclose(smaller(x), model[2](hidden), atol=1e-6)
    smaller.train()(x).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in smaller.parameters())
    assert {name for name, _ in smaller.named_parameters()} == {name for name, _ in model.named_parameters()}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("hook", HOOKED)
def test_a_hooked_model_is_copied(hook):
    model, x = hook(net()), torch.randn(5, 8)
    twin = duplicate(model)
    assert torch.equal(twin(x), model(x))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not torch.equal(twin(x), model(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*torch.jit")
@pytest.mark.parametrize("whole", [True, False])
def test_scripted_parts_stay_trainable(whole):
    model, x = net(), torch.randn(5, 8)
    model = torch.jit.script(model) if whole else nn.Sequential(torch.jit.script(model[:2]), model[2])
    twin = duplicate(model)
    smaller = cut(model, x)
    for one in (twin, smaller):
        assert all(p.is_leaf and p.requires_grad for p in one.parameters())
        one(x).sum().backward()
        torch.optim.SGD(one.parameters(), lr=0.1).step()
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())


def test_what_isn_t_trained_isn_t_trained_afterwards():
    model, x = net(), torch.randn(5, 8)
    model[0].requires_grad_(False)
    assert [p.requires_grad for p in cut(model, x).parameters()] == [False, False, True, True]


@pytest.mark.parametrize("kind", [torch.channels_last, torch.contiguous_format])
def test_weights_keep_their_memory_format(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 4, 3)).eval()
    model, x = model.to(memory_format=kind), torch.randn(2, 3, 8, 8).to(memory_format=kind)
    smaller = cut(model, x)
    assert all(p.is_contiguous(memory_format=kind) for p in smaller.parameters() if p.dim() == 4)
    assert smaller(x).is_contiguous(memory_format=kind)
