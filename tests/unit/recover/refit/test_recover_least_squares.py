from __future__ import annotations

import pytest
import torch
from torch import nn

from prunus.core.errors import ShapeError
from prunus.recover import (
    input_rows,
    least_squares,
    least_squares_inputs,
    matrices,
    obs_update,
    reconstruct,
    set_matrices,
    sparsegpt_prune,
)
from prunus.recover.refit.layer_inputs import output_rows


@pytest.fixture
def problem():
    draw = torch.Generator().manual_seed(0)
    x = (torch.randn(300, 10, generator=draw) @ torch.randn(10, 10, generator=draw) + 1).double()
    weight = torch.randn(6, 10, generator=draw).double()
    mask = torch.rand(6, 10, generator=draw) < 0.6
    return x, weight, mask


def test_the_update_is_lstsq_on_each_row_s_support(problem):
    x, weight, mask = problem
    new = obs_update(weight, x.T @ x / len(x), mask, damping=0.0)
    for row, stays, found in zip(weight, mask, new, strict=True):
        best = torch.linalg.lstsq(x[:, stays], (x @ row).unsqueeze(1)).solution.squeeze(1)
        assert torch.allclose(found[stays], best, atol=1e-8)
        assert not found[~stays].any()


def test_cut_inputs_are_lstsq_on_what_is_left(problem):
    x, weight, _ = problem
    kept = torch.tensor([0, 2, 3, 7])
    new, shift = least_squares_inputs(weight, x.T @ x / len(x), kept, damping=0.0)
    assert torch.allclose(new.T, torch.linalg.lstsq(x[:, kept], x @ weight.T).solution, atol=1e-8)
    assert not shift.any()


def test_with_a_mean_the_bias_is_fitted_too(problem):
    x, weight, mask = problem
    gram, kept = x.T @ x / len(x), torch.tensor([1, 4, 5])
    ones = torch.ones(len(x), 1).double()
    new, shift = least_squares_inputs(weight, gram, kept, mean=x.mean(dim=0), damping=0.0)
    best = torch.linalg.lstsq(torch.cat([x[:, kept], ones], dim=1), x @ weight.T).solution
    assert torch.allclose(new.T, best[:-1], atol=1e-8)
    assert torch.allclose(shift, best[-1], atol=1e-8)
    masked, offset = least_squares(weight, gram, mask, mean=x.mean(dim=0), damping=0.0)
    lacking = x @ (weight - masked).T - offset
    assert torch.allclose(lacking.mean(dim=0), torch.zeros(6).double(), atol=1e-8)


def test_descent_ends_where_the_exact_solution_lies(problem, monkeypatch):
    x, weight, mask = problem
    gram = x.T @ x / len(x)
    exact = obs_update(weight, gram, mask)
    monkeypatch.setattr("prunus.recover.refit.least_squares._EXACT_OPERATIONS", 0)
    assert torch.allclose(obs_update(weight, gram, mask), exact, atol=1e-3)


def test_it_is_never_worse_than_the_sweep_on_the_same_mask(problem):
    x, weight, _ = problem
    gram = x.T @ x / len(x)
    swept, mask = sparsegpt_prune(weight, gram, keep_fraction=0.5)
    best = obs_update(weight, gram, mask, damping=0.0)
    lost = [((new - weight) @ gram * (new - weight)).sum() for new in (best, swept, weight * mask)]
    assert lost[0] <= lost[1] <= lost[2]


def test_what_lacks_nothing_doesn_t_change_whatever_the_damping(problem):
    x, weight, mask = problem
    gram = x.T @ x / len(x)
    assert torch.equal(obs_update(weight, gram, torch.ones_like(mask), damping=0.5), weight)
    assert torch.equal(least_squares_inputs(weight, gram, torch.arange(10), damping=0.5)[0], weight)


def test_a_row_without_support_and_a_dead_input_are_fine():
    gram, cross = torch.diag(torch.tensor([1.0, 0.0])), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    change = reconstruct(cross, gram, torch.tensor([[False, False], [True, True]]), damping=1e-6)
    assert torch.allclose(change, torch.tensor([[0.0, 0.0], [1.0, 0.0]]), atol=1e-5)


def test_shapes_that_don_t_fit_are_refused():
    with pytest.raises(ShapeError, match=r"got \(2, 3\), \(2, 2\)"):
        reconstruct(torch.zeros(2, 3), torch.eye(2))


LAYERS = [
    (nn.Linear(5, 3), (2, 7, 5)),
    (nn.Conv1d(4, 6, 4, padding="same", dilation=2, groups=2), (3, 4, 9)),
    (nn.Conv2d(4, 6, 3, groups=2, padding=1, stride=2), (3, 4, 9, 8)),
    (nn.Conv2d(4, 6, (3, 2), padding=(1, 0), dilation=(2, 1), padding_mode="reflect"), (2, 4, 9, 8)),
    (nn.Conv3d(2, 2, 2, padding="valid"), (2, 2, 4, 5, 3)),
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: type(value).__name__)
def test_a_layer_is_its_matrices_times_its_rows(layer, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    rows = input_rows(layer, x)
    wanted = output_rows(layer, layer(x))
    assert torch.allclose(rows @ matrices(layer).mT + layer.bias.view(len(rows), 1, -1), wanted, atol=1e-5)
    before = layer.weight.detach().clone()
    set_matrices(layer, matrices(layer).clone())
    assert torch.equal(layer.weight, before)
