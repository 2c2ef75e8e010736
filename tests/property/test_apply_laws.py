"""The laws of masks and of cut-out features, over random networks."""

import copy
import itertools
from types import SimpleNamespace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunus.apply import Masks, replace_features

COMMON = settings(deadline=None, derandomize=True, max_examples=40)


def mlp(widths, *, bias, norm):
    layers = [nn.BatchNorm1d(widths[0])] if norm else []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b, bias=bias), nn.ReLU()]
    model = nn.Sequential(*layers)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            with torch.no_grad():
                tensor.uniform_(0.2, 1.5).mul_(torch.where(torch.rand_like(tensor) < 0.5 * (tensor.ndim > 1), -1, 1))
    return model


@COMMON
@given(
    widths=st.lists(st.integers(2, 6), min_size=2, max_size=4),
    bias=st.booleans(),
    norm=st.booleans(),
    seed=st.integers(0, 10**6),
    data=st.data(),
)
def test_without_its_constant_features_a_network_says_what_it_said_with_them(widths, bias, norm, seed, data):
    torch.manual_seed(seed)
    model, n = mlp(widths, bias=bias, norm=norm).eval(), widths[0]
    index = torch.arange(n)[:, None]
    members = [SimpleNamespace(tensor=f"{int(norm)}.weight", dim=1, index=index, is_parameter=True)]
    if norm:
        members += [
            SimpleNamespace(tensor=f"0.{name}", dim=0, index=index, is_parameter="running" not in name)
            for name in ("weight", "bias", "running_mean", "running_var")
        ]
    kept = torch.tensor(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))))
    fill, x = torch.randn(n), torch.randn(8, n)
    filled = fill.repeat(8, 1)
    filled[:, kept] = x[:, kept]
    narrow = replace_features(model, members, kept, fill)
    torch.testing.assert_close(narrow(x), model(filled if len(kept) < n else x), rtol=1e-4, atol=1e-5)


@COMMON
@given(seed=st.integers(0, 10**6), keep=st.floats(0, 1), steps=st.integers(0, 3))
def test_a_masked_network_is_the_network_times_its_masks_through_any_training(seed, keep, steps):
    torch.manual_seed(seed)
    model = mlp([3, 4, 2], bias=True, norm=False)
    masks = {name: torch.rand_like(p) < keep for name, p in model.named_parameters() if p.ndim > 1}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    guard = Masks(model, masks)
    guard.guard(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
    before = copy.deepcopy(model.state_dict())
    guard.bake()
    guard.enforce()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        if name in masks:
            assert parameter[~masks[name]].eq(0).all()
    assert guard.counts == {name: (int(mask.sum()), mask.numel()) for name, mask in masks.items()}
