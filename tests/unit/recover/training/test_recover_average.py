from __future__ import annotations

import pytest
import torch
from torch import nn

from prunus.core.recipes.recipe import Average, Train
from prunus.recover import recompute_batch_norm, train
from recover_stand_ins import make_examples, make_model


def run(model, examples, average, watch_epochs):
    config = Train(epochs=6, batch_size=16, learning_rate=0.05, average=average)
    train(model, examples, config, seed=0, stage="fit", listener=lambda event: watch_epochs())


def test_swa_is_the_mean_over_the_ends_of_the_last_epochs():
    model, ends = nn.Linear(4, 3), []
    run(model, make_examples(), Average(kind="swa", last=4), lambda: ends.append(model.weight.detach().clone()))
    assert torch.allclose(model.weight, torch.stack(ends[-4:]).mean(dim=0), atol=1e-6)
    assert not torch.allclose(model.weight, ends[-1], atol=1e-6)


def test_swa_over_more_epochs_than_there_are_takes_all():
    model, ends = nn.Linear(4, 3), []
    run(model, make_examples(), Average(kind="swa", last=50), lambda: ends.append(model.weight.detach().clone()))
    assert torch.allclose(model.weight, torch.stack(ends).mean(dim=0), atol=1e-6)


def test_ema_follows_its_recursion_step_by_step():
    model, steps = nn.Linear(4, 3), []
    average = model.weight.detach().clone()
    config = Train(epochs=3, batch_size=16, learning_rate=0.05, average=Average(kind="ema", decay=0.6))
    train(
        model,
        make_examples(),
        config,
        seed=0,
        stage="fit",
        after_step=lambda: steps.append(model.weight.detach().clone()),
    )
    for number, weight in enumerate(steps, start=1):
        decay = min(0.6, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * weight
    assert torch.allclose(model.weight, average, atol=1e-6)


def test_averaging_doesn_t_change_the_training_itself():
    histories = []
    for kind in ("none", "swa", "ema"):
        config = Train(epochs=3, batch_size=16, average=Average(kind=kind))
        histories.append(train(make_model(), make_examples(), config, seed=0, stage="fit"))
    assert histories[0] == histories[1] == histories[2]


def test_batch_norm_statistics_become_the_plain_mean_over_the_batches():
    examples = make_examples(n=20)
    model = nn.Sequential(nn.BatchNorm1d(4, momentum=0.3), nn.Dropout(0.5), nn.Linear(4, 3))
    model[0].running_mean.fill_(99)
    assert recompute_batch_norm(model, examples, batch_size=5) == 1
    parts = examples.inputs.split(5)
    assert torch.allclose(model[0].running_mean, torch.stack([p.mean(0) for p in parts]).mean(0), atol=1e-6)
    assert torch.allclose(model[0].running_var, torch.stack([p.var(0) for p in parts]).mean(0), atol=1e-6)
    assert model[0].momentum == 0.3
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("kind", ["swa", "ema"])
def test_after_averaging_the_statistics_belong_to_the_averaged_parameters(kind):
    model, examples = make_model(), make_examples(n=64)
    config = Train(epochs=4, batch_size=64, learning_rate=0.05, average=Average(kind=kind))
    train(model, examples, config, seed=0, stage="fit")
    hidden = model[0](examples.inputs)
    assert torch.allclose(model[1].running_mean, hidden.mean(0), atol=1e-5)
    assert torch.allclose(model[1].running_var, hidden.var(0), atol=1e-5)


def test_a_model_without_batch_norm_is_left_alone():
    model = nn.Linear(4, 3)
    assert recompute_batch_norm(model, make_examples()) == 0
