"""Laws of adjusting after a cut, over small random nets with every kind of layer that it meets."""

from __future__ import annotations

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from prunus.data import Batch
from prunus.recover import adjust, distance, split_off

KINDS = st.lists(st.sampled_from(["least_squares", "bias", "batch_norm"]), min_size=1, max_size=3, unique=True)
LAYERS = st.lists(st.sampled_from(["conv", "normed", "own", "standardised", "grouped", "norm"]), min_size=1, max_size=4)


class Own(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias)


class Standardised(Own):
    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), weight, self.bias)


def layer(kind: str) -> nn.Module:
    if kind == "norm":
        norm = nn.BatchNorm2d(4)
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.2, 3)
        return norm
    if kind in ("own", "standardised"):
        return (Own if kind == "own" else Standardised)(4, 4, 3)
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=2 if kind == "grouped" else 1, bias=kind != "grouped")
    return nn.utils.parametrizations.weight_norm(conv) if kind == "normed" else conv


def network(kinds: list[str], seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    parts = [part for kind in kinds for part in (layer(kind), nn.ReLU(inplace=True))]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(4 * 25, 3)).eval()


class Pictures:
    """Held-out examples that needn't be like the others: ``shift`` moves them."""

    def __init__(self, n: int, seed: int, shift: float) -> None:
        self.inputs = torch.randn(n, 4, 5, 5, generator=torch.Generator().manual_seed(seed)) + 0.5
        self.inputs[3::4] += shift

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(self, batch_size, generator=None):
        for rows in torch.arange(len(self)).split(batch_size):
            yield Batch(rows, self.inputs[rows], rows)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(LAYERS, KINDS, st.integers(0, 99), st.sampled_from([0.0, 2.0, -4.0]))
def test_adjusting_never_takes_held_out_outputs_further_from_the_dense_models(kinds, adjustments, seed, shift):
    dense, examples = network(kinds, seed), Pictures(24, seed, shift)
    small = copy.deepcopy(dense)
    masks = {}
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            if parameter.dim() > 1:
                masks[name] = torch.rand(parameter.shape) < 0.6
                parameter.mul_(masks[name])
    _, held_out = split_off(examples)
    before = distance(small, dense, held_out, batch_size=7)
    adjusted = adjust(small, dense, examples, adjustments, masks=masks, batch_size=7)
    after = distance(small, dense, held_out, batch_size=7)
    assert after <= before * (1 + 1e-6)
    assert [check.kind for check in adjusted.checks] == sorted(adjustments, key="least_squares bias batch_norm".index)
    assert adjusted.checks[0].before == before
    assert adjusted.distance == after
    parameters = dict(small.named_parameters())
    assert not any(parameters[name][~mask].any() for name, mask in masks.items())


@settings(deadline=None, derandomize=True, max_examples=15)
@given(LAYERS, KINDS, st.integers(0, 99))
def test_adjusting_a_model_that_lost_nothing_changes_nothing(kinds, adjustments, seed):
    dense, examples = network(kinds, seed), Pictures(24, seed, 0.0)
    same = copy.deepcopy(dense)
    adjust(same, dense, examples, adjustments, batch_size=7)
    for key, value in same.state_dict().items():
        assert torch.equal(value, dense.state_dict()[key]), key
