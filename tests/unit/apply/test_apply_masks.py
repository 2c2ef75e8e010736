"""Zeros stay zero through training, and afterwards nothing is left of the masks but the zeros."""

import copy
import gc

import pytest
import torch
from torch import nn

from prunus.apply import Masks
from prunus.core.errors import ModelError, ShapeError


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def masks_for(model, names=("0.weight", "2.weight"), keep=0.4):
    draw = torch.Generator().manual_seed(1)
    shapes = dict(model.named_parameters())
    return {name: torch.rand(shapes[name].shape, generator=draw) < keep for name in names}


OPTIMIZERS = {
    "sgd with momentum and decay": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "adam without foreach": lambda p: torch.optim.Adam(p, lr=0.1, foreach=False),
}


def train(model, optimizer, steps=5):
    draw = torch.Generator().manual_seed(2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4, generator=draw)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=list(OPTIMIZERS))
def test_no_optimizer_brings_a_weight_back(model, make):
    keep = masks_for(model)
    optimizer = make(model.parameters())
    train(model, optimizer)  # momentum is there before the masks are
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    Masks(model, keep).guard(optimizer)
    train(model, optimizer)
    for name, parameter in model.named_parameters():
        if name in keep:
            assert parameter[~keep[name]].eq(0).all()
            assert (parameter[keep[name]] != before[name][keep[name]]).all()
        else:
            assert (parameter != before[name]).any()


def test_without_a_guard_training_does_bring_weights_back(model):
    keep = masks_for(model)
    Masks(model, keep).enforce()
    train(model, OPTIMIZERS["sgd with momentum and decay"](model.parameters()))
    assert model[0].weight[~keep["0.weight"]].ne(0).any()


def test_clipping_measures_only_the_gradients_of_what_lives(model):
    keep = masks_for(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Masks(model, keep).guard(optimizer)
    model(torch.ones(2, 4)).sum().backward()
    assert all(dict(model.named_parameters())[name].grad[~mask].eq(0).all() for name, mask in keep.items())


def test_bake_leaves_a_plain_model_with_zeros(model):
    keep, optimizer = masks_for(model), torch.optim.SGD(model.parameters(), lr=0.1)
    masks = Masks(model, keep)
    masks.guard(optimizer)
    masks.bake()
    assert model[0].weight[~keep["0.weight"]].eq(0).all()
    train(model, optimizer)
    assert model[0].weight[~keep["0.weight"]].ne(0).any()
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_the_hooks_go_with_the_optimizer(model):
    keep = masks_for(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Masks(model, keep).guard(optimizer)
    del optimizer
    gc.collect()
    model(torch.ones(2, 4)).sum().backward()
    assert model[0].weight.grad[~keep["0.weight"]].ne(0).any()


def test_masking_is_the_model_with_those_weights_zero(model):
    keep, reference = masks_for(model), copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in keep.items():
            dict(reference.named_parameters())[name].mul_(mask)
    Masks(model, keep).enforce()
    x = torch.randn(5, 4)
    assert torch.equal(model(x), reference(x))


def test_keeping_everything_changes_no_bit(model):
    before = copy.deepcopy(model.state_dict())
    masks = Masks(model, {name: torch.ones_like(p, dtype=torch.bool) for name, p in model.named_parameters()})
    masks.enforce()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert masks.keep_fraction == 1


def test_nan_does_not_survive_its_mask(model):
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    mask = torch.ones(6, 4, dtype=torch.bool)
    mask[0, 0] = False
    Masks(model, {"0.weight": mask}).enforce()
    assert model[0].weight[0, 0] == 0


def test_counts_say_how_many_stay(model):
    mask = torch.zeros(6, 4, dtype=torch.bool)
    mask[:, 0] = True
    masks = Masks(model, {"0.weight": mask})
    assert masks.counts == {"0.weight": (6, 24)}
    assert masks.keep_fraction == 0.25
    assert Masks(model, {}).keep_fraction == 1


def test_a_tied_weight_may_be_named_by_either_name():
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    Masks(model, {"b.weight": torch.eye(3, dtype=torch.bool)}).enforce()
    assert model["a"].weight.count_nonzero() == 3


def test_masks_that_do_not_fit_are_refused(model):
    with pytest.raises(ModelError, match=r"'0.weigth'.*did you mean '0.weight'"):
        Masks(model, {"0.weigth": torch.ones(6, 4, dtype=torch.bool)})
    with pytest.raises(ShapeError, match=r"boolean of shape \(6, 4\): got torch.bool of shape \(4, 6\)"):
        Masks(model, {"0.weight": torch.ones(4, 6, dtype=torch.bool)})
    with pytest.raises(ShapeError, match=r"got torch.float32"):
        Masks(model, {"0.weight": torch.ones(6, 4)})
