from __future__ import annotations

import pytest
import torch
from torch import nn

from prunus import ModelOptimizer, prune
from prunus.core.errors import ModelError, RecipeError
from prunus.models import check_kind

X = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def net(outputs: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, outputs))


def quantised() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(net(), {nn.Linear}, dtype=torch.qint8)


def packed() -> nn.Module:
    model = net()
    model[0].weight = nn.Parameter(torch.zeros(12, 8, dtype=torch.uint8), requires_grad=False)
    return model


KINDS = {
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(12), nn.Linear(12, 2)), r"0\.weight has no shape yet .*run the model once"),
    "meta": (lambda: net().to("meta"), r"0\.weight has no values .*load the weights first"),
    "bfloat16": (lambda: net().bfloat16(), r"weights are torch\.bfloat16 \(0\.weight\).*model\.float\(\)"),
    "float16": (lambda: net().half(), r"weights are torch\.float16"),
    "float64": (lambda: net().double(), r"weights are torch\.float64"),
    "quantised": (quantised, r"quantised Linear.*prune the float model first"),
    "packed": (packed, r"0\.weight holds torch\.uint8.*prune the float model first"),
    "too many outputs": (lambda: net(3), r"the model has 3 outputs for 2 classes"),
    "other inputs": (lambda: nn.Sequential(nn.Linear(9, 2)), r"fails on inputs float32 \[2, 8\]"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_can_t_be_trained_is_refused_in_one_line_before_anything_runs(kind):
    build, message = KINDS[kind]
    with pytest.raises(ModelError, match=message) as raised:
        ModelOptimizer(build(), (X, Y), strategy="magnitude_l2", seeds=[0])
    assert "\n" not in str(raised.value)


def hooked(how) -> nn.Module:
    model = net()
    how(model[0])
    return model


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "build",
    [
        lambda: hooked(lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", 0.5)),
        lambda: hooked(nn.utils.weight_norm),
        lambda: hooked(nn.utils.spectral_norm),
        lambda: torch.jit.script(net()),
    ],
    ids=["prune", "weight_norm", "spectral_norm", "scripted"],
)
def test_a_model_with_hooks_or_a_script_is_fitted_pruned_and_recovered(build):
    model = build()
    check_kind(model)
    optimizer = ModelOptimizer(
        model, (X, Y), strategy="magnitude_l2", train={"epochs": 1}, recovery={"epochs": 1}, seeds=[0]
    )
    smaller = optimizer.fit().prune(keep_fraction=0.5).model_
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())
    assert smaller.eval()(X).shape == (60, 2)


@pytest.mark.parametrize("given", ["resnet18", nn.Linear(2, 2).state_dict(), nn.Linear])
def test_what_is_no_model_is_refused_in_one_line(given):
    with pytest.raises(ModelError, match=r"expected a model, an nn\.Module: got (str|OrderedDict|type)"):
        prune(given, torch.ones(1, 2))


def test_a_criterion_that_there_is_not_is_told_when_it_is_named():
    with pytest.raises(RecipeError, match=r"got 'tailor'; did you mean 'taylor'\?"):
        ModelOptimizer(net(), (X, Y), strategy="tailor")
