from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunus.core.recipes.recipe import Average
from prunus.recover import ProximalGroup, ProximalL1
from prunus.recover.training.average import make_average
from prunus.recover.training.training_batches import n_training_batches, training_batches

NUMBERS = st.floats(-3, 3, width=32)
THRESHOLDS = st.floats(0.01, 2)


def vector_model(values: list[float]) -> nn.Module:
    model = nn.Module()
    model.weight = nn.Parameter(torch.tensor(values, dtype=torch.float32))
    return model


@settings(deadline=None, derandomize=True)
@given(NUMBERS, THRESHOLDS)
def test_the_l1_operator_is_the_argmin_of_its_problem(value, threshold):
    """Brute force: minimise (w - v)² / 2 + t |w| over a fine grid that holds zero."""
    model = vector_model([value])
    ProximalL1(model, ["weight"], strength=threshold).step(1.0)
    grid = np.linspace(-3, 3, 6001)
    best = grid[np.argmin((grid - value) ** 2 / 2 + threshold * np.abs(grid))]
    assert abs(model.weight.item() - best) < 2e-3
    assert (model.weight.item() == 0) == (abs(value) <= np.float32(threshold))


@settings(deadline=None, derandomize=True, max_examples=40)
@given(NUMBERS, NUMBERS, THRESHOLDS)
def test_the_group_operator_is_the_argmin_of_its_problem(first, second, threshold):
    """Brute force over a grid of the plane: |w - v|² / 2 + t sqrt(2) |w|."""
    model = vector_model([first, second])
    member = SimpleNamespace(tensor="weight", dim=0, index=torch.tensor([[0, 1]]), is_parameter=True)
    group = SimpleNamespace(name="g", size=1, members=(member,))
    ProximalGroup(model, [group], strength=threshold).step(1.0)

    def objective(w0, w1):
        return ((w0 - first) ** 2 + (w1 - second) ** 2) / 2 + threshold * 2**0.5 * np.hypot(w0, w1)

    axis = np.linspace(-3, 3, 301)
    best = objective(*np.meshgrid(axis, axis)).min()
    assert objective(*model.weight.tolist()) <= best + 1e-5


@settings(deadline=None, derandomize=True)
@given(st.lists(st.lists(NUMBERS, min_size=2, max_size=2), min_size=1, max_size=8), st.integers(1, 9))
def test_swa_equals_the_mean_of_the_last_states(states, last):
    parameter = torch.zeros(2)
    average = make_average([parameter], Average(kind="swa", last=last), epochs=len(states))
    for epoch, state in enumerate(states):
        parameter.copy_(torch.tensor(state))
        average.after_epoch(epoch)
    assert average.finish()
    assert torch.allclose(parameter, torch.tensor(states[-last:]).mean(dim=0), atol=1e-5)


class Rows:
    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def batches(self, batch_size, generator=None):
        from collections import namedtuple

        batch = namedtuple("batch", ["index", "inputs", "targets"])
        for rows in torch.randperm(self.n, generator=generator).split(batch_size):
            yield batch(rows, rows, rows)


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 3))
def test_training_batches_hold_every_example_once_and_no_lonely_one(n, batch_size, seed):
    batches = list(training_batches(Rows(n), batch_size, torch.Generator().manual_seed(seed)))
    assert sorted(torch.cat([batch.targets for batch in batches]).tolist()) == list(range(n))
    assert len(batches) == n_training_batches(n, batch_size)
    assert n == 1 or batch_size == 1 or all(len(batch.targets) > 1 for batch in batches)
    assert all(len(batch.targets) <= batch_size + 1 for batch in batches)
