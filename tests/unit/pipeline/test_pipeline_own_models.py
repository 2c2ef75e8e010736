"""What somebody set in a model or a loss before it was handed over holds to the end, or is said not to."""

from __future__ import annotations

import torch
from torch import nn

from prunus import ModelOptimizer

RECOVERY = {"epochs": 1, "batch_size": 32}


def handed(model, **more):
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 8, generator=draw)
    said = []
    options = {"strategy": "magnitude_l2", "recovery": RECOVERY, "seeds": (0,), "trained": False, "train": RECOVERY}
    data = (inputs, (inputs[:, 0] > 0).long())
    return ModelOptimizer(model, data, listener=lambda event: said.append(event.message), **options | more), said


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 2))


def test_batch_norm_that_is_in_evaluation_mode_while_the_rest_trains_keeps_its_statistics():
    given = model()
    given[1].eval()
    with torch.no_grad():
        given[1].running_mean.copy_(torch.arange(16.0) / 100)
    optimizer, _ = handed(given)
    pruned = optimizer.fit().prune(keep_fraction=0.5).model_
    assert torch.equal(optimizer.dense_[1].running_mean, given[1].running_mean)
    assert bool(torch.isin(pruned[1].running_mean, given[1].running_mean).all())
    assert not bool(torch.isin(pruned[3].running_mean, given[3].running_mean).any())
    assert given[0].training
    assert not given[1].training


def test_a_loss_with_parameters_of_its_own_is_said_to_stay_as_it_is():
    class Warm(nn.Module):
        def __init__(self):
            super().__init__()
            self.heat = nn.Parameter(torch.tensor(2.0))

        def forward(self, outputs, targets):
            return nn.functional.cross_entropy(outputs * self.heat, targets)

    _, said = handed(model(), loss=Warm())
    assert sum("parameters of its own that no training moves (heat)" in line for line in said) == 1
    _, said = handed(model(), loss=nn.CrossEntropyLoss(weight=torch.ones(2)))
    assert not any("of its own" in line for line in said)
