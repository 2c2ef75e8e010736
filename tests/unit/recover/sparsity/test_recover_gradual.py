from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from prunus.core.errors import ModelError, RecipeError
from prunus.recover import GradualPruning


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))


def weights(model):
    return torch.cat([m.weight.detach().flatten() for m in model if isinstance(m, nn.Linear)])


def shake(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize("schedule", ["one_shot", "linear", "cubic"])
@pytest.mark.parametrize("allocation", ["global", "uniform"])
def test_what_is_cut_stays_cut_and_the_goal_is_met_exactly(schedule, allocation):
    model = network()
    pruning = GradualPruning(model, keep_fraction=0.3, schedule=schedule, rounds=5, until=0.6, allocation=allocation)
    kept, gone = [], torch.zeros(356, dtype=torch.bool)
    for step in range(51):
        if step:
            shake(model)
        pruning.at(step / 50)
        zero = weights(model) == 0
        assert bool((zero | ~gone).all()), "a weight came back"
        gone = zero
        kept.append(int((~zero).sum()))
    assert kept[-1] == kept[30] == round(0.3 * 356)
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) == (1 if schedule == "one_shot" else 5)
    assert pruning.is_done


def test_the_lowest_go_by_a_plain_sort():
    model = network()
    before = weights(model).abs()
    GradualPruning(model, keep_fraction=0.5, schedule="one_shot").at(0)
    threshold = before.sort().values[356 // 2]
    assert torch.equal(weights(model) != 0, before >= threshold)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (2, 8)])
def test_n_of_m_next_to_each_other_along_the_input_stay_and_they_are_the_best(n, m):
    model = nn.Sequential(nn.Linear(8, 5), nn.Conv2d(8, 3, 2), nn.ConvTranspose2d(8, 4, 2), nn.Linear(7, 3))
    before = [layer.weight.detach().clone() for layer in model]
    pruning = GradualPruning(model, granularity=f"{n}:{m}", schedule="linear", rounds=3, until=1.0)
    for progress in (0.0, 0.5, 1.0):
        pruning.at(progress)
    assert torch.equal(model[3].weight, before[3])
    assert pruning.keep_fraction == n / m
    for layer, old, dim in zip(model, before, (1, 1, 0), strict=False):
        rows, olds = (t.movedim(dim, -1).reshape(-1, m) for t in (layer.weight.detach(), old))
        for row, start in itertools.islice(zip(rows, olds, strict=True), 20):
            best = set(np.argsort(start.abs().numpy())[-n:].tolist())
            assert set(torch.nonzero(row).flatten().tolist()) == best


def test_the_input_of_a_layer_that_holds_its_weight_the_other_way_round_is_its_first_dimension():
    class Conv1D(nn.Module):  # as in transformers
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 6))

    model = nn.Sequential(Conv1D())
    GradualPruning(model, granularity="2:4").at(1.0)
    assert bool(((model[0].weight.T.reshape(-1, 4) != 0).sum(dim=1) == 2).all())


def test_without_a_goal_only_the_zeros_that_are_there_are_held():
    model = network()
    with torch.no_grad():
        model[0].weight[:, ::2] = 0
        model[4].weight.zero_()
    pruning = GradualPruning(model)
    shake(model)
    pruning.at(0.5)
    assert bool((model[0].weight[:, ::2] == 0).all())
    assert bool((model[0].weight[:, 1::2] != 0).all())
    assert bool((model[4].weight != 0).all()), "a layer that starts at zero was taken for a pruned one"
    assert pruning.is_done


def test_a_training_that_goes_on_from_its_weights_finds_its_masks_again():
    whole, model = network(), network()
    options = {"keep_fraction": 0.2, "rounds": 6, "until": 1.0}
    pruning, first = GradualPruning(whole, **options), GradualPruning(model, **options)
    for step in range(11):
        pruning.at(step / 10)
    for step in range(6):
        first.at(step / 10)
    second = GradualPruning(model, **options)
    for step in range(5, 11):
        second.at(step / 10)
    assert torch.equal(weights(whole), weights(model))


def test_what_is_excluded_stays_whole():
    model = network()
    GradualPruning(model, keep_fraction=0.1, schedule="one_shot", exclude=["2"]).at(0)
    assert torch.count_nonzero(model[2].weight) == model[2].weight.numel()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"keep_fraction": 0}, RecipeError, r"keep_fraction must be in \(0, 1\].*got 0"),
        ({"granularity": "4:2"}, RecipeError, "weight or N:M with 0 < N <= M, like 2:4: got '4:2'"),
        ({"granularity": "channel"}, RecipeError, "got 'channel'"),
        ({"granularity": "2:4", "keep_fraction": 0.5}, RecipeError, "2:4 says how much stays"),
        ({"granularity": "2:5"}, ModelError, "no weight of an input size that 5 divides"),
        ({"keep_fraction": 0.5, "criterion": "taylor"}, RecipeError, "'taylor', which needs weight, gradient"),
        ({"keep_fraction": 0.5, "criterion": "bn_scale"}, RecipeError, "bn_scale"),
        ({"keep_fraction": 0.5, "schedule": "cubik"}, RecipeError, "did you mean 'cubic'"),
        ({"keep_fraction": 0.5, "allocation": "globle"}, RecipeError, "did you mean 'global'"),
        ({"keep_fraction": 0.5, "until": 0}, RecipeError, "until=0"),
        ({"keep_fraction": 0.5, "rounds": 0}, RecipeError, "rounds=0"),
        ({"keep_fraction": 0.5, "exclude": ["*"]}, ModelError, "no weight that may be pruned"),
    ],
)
def test_a_wrong_setting_is_one_line(options, error, words):
    with pytest.raises(error, match=words):
        GradualPruning(network(), **options)
