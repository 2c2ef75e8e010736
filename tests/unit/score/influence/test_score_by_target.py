"""Is the criterion the influence on the target's mean loss, with the error over checkpoints?"""

import numpy as np
import pytest
import torch
from torch import nn

from prunus.core.errors import DataError
from prunus.data import ArraySource, Examples
from prunus.score import example_criteria, influence, influence_evidence
from prunus.tasks import Classification

TASK = Classification(("a", "b"))


def examples_of(n, seed):
    draw = np.random.default_rng(seed)
    x = torch.from_numpy(draw.normal(size=(n, 3)).astype(np.float32))
    ids = tuple(map(str, range(n)))
    return Examples(
        ArraySource(f"s{seed}", ids, x, (x[:, 0] > 0).long(), "classification", ("a", "b")), torch.arange(n)
    )


def models(n):
    found = []
    for seed in range(n):
        torch.manual_seed(seed)
        found.append(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)))
    return found


def test_it_is_the_mean_over_the_checkpoints_with_its_error():
    training, target = examples_of(40, 0), examples_of(20, 1)
    found = influence_evidence(models(3), training, target, TASK, seed=4)
    each = [influence(model, training, target, TASK, batch_size=512, seed=4).value for model in models(3)]
    assert found["influence"].numpy() == pytest.approx(np.mean(each, axis=0))
    assert found["influence_error"].numpy() == pytest.approx(np.std(each, axis=0, ddof=1) / np.sqrt(3))
    assert torch.equal(example_criteria["influence"](found), found["influence"])


def test_one_checkpoint_has_no_error_and_no_target_is_refused():
    training = examples_of(10, 0)
    assert influence_evidence(models(1), training, training, TASK)["influence_error"].isnan().all()
    none = training.select(torch.zeros(10, dtype=torch.bool))
    with pytest.raises(DataError, match="influence needs target examples: got none"):
        influence_evidence(models(1), training, none, TASK)
