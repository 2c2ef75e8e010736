"""Spoilt weights are named where they come in, not blamed on what is measured with them."""

import pytest
import torch
from torch import nn

from prunus import ModelOptimizer, analyze, certify
from prunus.core.errors import ModelError
from prunus.core.values import check_values


def spoilt(value):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight[3, 2] = value
    return model


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_number_is_named(value):
    message = r"'0\.weight' is NaN or infinite in 1 of 32 values"
    inputs = torch.randn(40, 4)
    with pytest.raises(ModelError, match=message):
        check_values(spoilt(value))
    graph = analyze(spoilt(1.0), (inputs[:2],))
    with pytest.raises(ModelError, match=message):
        certify(spoilt(value), (inputs[:2],), graph)
    with pytest.raises(ModelError, match=message):
        ModelOptimizer(spoilt(value), (inputs, [0, 1] * 20), strategy="magnitude_l2", trained=True)


def test_infinite_buffers_and_models_without_values_are_nobodys_mistake():
    model = spoilt(1.0)
    model.register_buffer("mask", torch.full((2, 2), float("-inf")))
    check_values(model)
    check_values(nn.Linear(4, 4, device="meta"))
    check_values(nn.LazyLinear(4))
    with pytest.raises(ModelError, match=r"'0\.weight'"):
        check_values(spoilt(float("nan")).to(torch.bfloat16))
