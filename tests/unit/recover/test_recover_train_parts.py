"""A training in parts is the training: same epochs, same course of the learning rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunus.core.recipes import recipe
from prunus.core.recipes.recipe import Average, Train
from prunus.data import prepare_arrays
from prunus.recover import train


@pytest.fixture(scope="module")
def examples():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(120, 4, generator=draw)

    config = recipe.Data(source="memory")
    return prepare_arrays(x, (x[:, 0] > 0).long(), config, device=torch.device("cpu")).train


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def test_parts_without_memory_between_steps_equal_the_whole(examples):
    config = Train(epochs=4, optimizer="sgd", momentum=0.0)
    whole, parts = network(), network()
    curve = train(whole, examples, config, seed=0, stage="t")
    found = [train(parts, examples, config, seed=0, stage="t", epochs=part) for part in ((0, 1), (1, 3), (3, 4))]
    assert [len(h.loss) for h in found] == [1, 2, 1]
    assert tuple(loss for h in found for loss in h.loss) == curve.loss
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_after_every_epoch_the_number_that_is_done_is_told(examples):
    seen = []
    train(network(), examples, Train(epochs=4), seed=0, stage="t", epochs=(1, 4), after_epoch=seen.append)
    assert seen == [2, 3, 4]


def test_the_average_belongs_to_the_last_part(examples):
    config = Train(epochs=2, average=Average(kind="ema", decay=0.9))
    plain, averaged = network(), network()
    train(plain, examples, config.model_copy(update={"average": Average()}), seed=0, stage="t", epochs=(0, 1))
    train(averaged, examples, config, seed=0, stage="t", epochs=(0, 1))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), averaged.parameters(), strict=True))
