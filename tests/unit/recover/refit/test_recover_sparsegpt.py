from __future__ import annotations

import pytest
import torch

from prunus.core.errors import RecipeError, RunError, ShapeError
from prunus.recover import Moments, Squares, inverse_factor, keep_top, sparsegpt_prune


def problem(units=12, fan_in=48, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(400, 8, generator=draw) @ torch.randn(8, fan_in, generator=draw)
    x = (x + torch.randn(400, fan_in, generator=draw)) * torch.rand(fan_in, generator=draw).mul(3).add(0.1)
    return torch.randn(units, fan_in, generator=draw), x.T @ x / len(x)


def error(weight, new, gram):
    return float(((new - weight) @ gram * (new - weight)).sum())


def transcribed(weight, gram, mask, damping):
    """The published algorithm, column by column, on a given mask."""
    system = gram + damping * gram.diagonal().mean() * torch.eye(len(gram))
    factor = torch.linalg.cholesky(torch.linalg.inv(system), upper=True)
    new = weight.clone()
    for i in range(new.shape[1]):
        lost = torch.where(mask[:, i], 0.0, new[:, i]) / factor[i, i]
        new[:, i:] -= torch.outer(lost, factor[i, i:])
    return new * mask


def test_the_factor_is_the_cholesky_factor_of_the_inverse():
    _, gram = problem()
    factor = inverse_factor(gram, 0.01)
    system = gram + 0.01 * gram.diagonal().mean() * torch.eye(len(gram))
    assert torch.equal(factor, factor.triu())
    assert torch.allclose(factor.T @ factor @ system, torch.eye(len(gram)), atol=1e-3)


@pytest.mark.parametrize("block_size", [4, 7, 48, 128])
def test_blocks_and_halves_give_what_the_plain_loop_over_columns_gives(block_size):
    weight, gram = problem()
    new, mask = sparsegpt_prune(weight, gram, keep_fraction=0.5, block_size=block_size)
    assert torch.allclose(new, transcribed(weight, gram, mask, 0.01), atol=1e-4)
    again, same = sparsegpt_prune(weight, gram, mask=mask)
    assert torch.allclose(again, new, atol=1e-4)
    assert torch.equal(same, mask)


@pytest.mark.parametrize("keep", [0.1, 0.37, 0.5, 0.9, 1.0])
def test_the_budget_is_spent_exactly(keep):
    weight, gram = problem()
    new, mask = sparsegpt_prune(weight, gram, keep_fraction=keep, block_size=5)
    assert int(mask.sum()) == round(keep * weight.numel())
    assert torch.equal(new == 0, ~mask)


@pytest.mark.parametrize("n_m", [(1, 2), (2, 4), (3, 4), (1, 3), (4, 16)])
def test_n_of_every_m_inputs_stay(n_m):
    weight, gram = problem()
    _, mask = sparsegpt_prune(weight, gram, n_m=n_m, block_size=20)
    assert (mask.view(-1, n_m[1]).sum(dim=1) == n_m[0]).all()


def test_keeping_everything_changes_nothing_bit_for_bit():
    weight, gram = problem()
    for amount in ({"keep_fraction": 1.0}, {"n_m": (4, 4)}):
        assert torch.equal(sparsegpt_prune(weight, gram, **amount)[0], weight)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("amount", [{"keep_fraction": 0.5}, {"n_m": (2, 4)}], ids=str)
def test_it_loses_less_than_wanda_and_magnitude_lose(seed, amount):
    weight, gram = problem(seed=seed)
    mine = error(weight, sparsegpt_prune(weight, gram, **amount, block_size=16)[0], gram)
    wanda = weight * keep_top(weight.abs() * gram.diagonal().sqrt(), **amount)
    magnitude = weight * keep_top(weight.abs(), **amount, within="matrix")
    assert mine < error(weight, wanda, gram) < error(weight, magnitude, gram)


def test_an_input_that_is_always_zero_goes_first_and_what_went_before_stays_gone():
    weight, gram = problem()
    gram[3], gram[:, 3] = 0, 0
    allowed = torch.ones_like(weight, dtype=torch.bool)
    allowed[:, 5] = False
    new, mask = sparsegpt_prune(weight, gram, keep_fraction=0.5, allowed=allowed)
    assert not mask[:, 3].any()
    assert not mask[:, 5].any()
    assert torch.isfinite(new).all()


def test_half_precision_comes_back_as_it_came():
    weight, gram = problem()
    new, _ = sparsegpt_prune(weight.bfloat16(), gram, keep_fraction=0.5)
    assert new.dtype == torch.bfloat16


def test_bad_input_is_one_clear_line():
    weight, gram = problem()
    with pytest.raises(RecipeError, match="exactly one of keep_fraction and n_m"):
        sparsegpt_prune(weight, gram)
    with pytest.raises(RecipeError, match=r"2:5 needs a number of inputs that 5 divides: the weight has 48"):
        sparsegpt_prune(weight, gram, n_m=(2, 5))
    with pytest.raises(RecipeError, match=r"1 <= N <= M.*got \(5, 4\)"):
        sparsegpt_prune(weight, gram, n_m=(5, 4))
    with pytest.raises(ShapeError, match=r"\(48, 48\): got \(2, 2\)"):
        sparsegpt_prune(weight, gram[:2, :2], keep_fraction=0.5)
    with pytest.raises(RunError, match="must be finite"):
        sparsegpt_prune(weight, gram * float("nan"), keep_fraction=0.5)
    with pytest.raises(RunError, match="positive definite"):
        sparsegpt_prune(weight, gram - 5 * torch.eye(48) * gram.diagonal().max(), keep_fraction=0.5)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("within", ["row", "matrix"])
@pytest.mark.parametrize(
    "amount", [{"keep_fraction": 0.3}, {"keep_fraction": 1.0}, {"n_m": (1, 4)}, {"n_m": (5, 10)}], ids=str
)
def test_what_stays_is_what_a_stable_sort_puts_first(kind, within, amount):
    torch.manual_seed(0)
    saliency = torch.randint(0, 6, (7, 40)).to(kind)  # ties everywhere
    n, m = amount.get("n_m", (None, 40 if within == "row" else 280))
    rows = saliency.reshape(-1, m)
    count = n if n is not None else round(amount["keep_fraction"] * m)
    first = rows.argsort(dim=1, descending=True, stable=True)[:, :count]
    wanted = torch.zeros_like(rows, dtype=torch.bool).scatter_(1, first, True).view_as(saliency)
    assert torch.equal(keep_top(saliency, **amount, within=within), wanted)


def test_second_moments_are_whole_and_their_diagonal_needs_no_more_than_squares():
    layer, rows = torch.nn.Linear(300, 2), torch.randn(2, 50, 300)
    moments, squares = Moments.of(layer), Squares.of(layer)
    for part in rows:
        moments.add(part.unsqueeze(0))
        squares.add(part.unsqueeze(0))
    flat = rows.reshape(-1, 300)
    assert torch.allclose(moments.mean_gram[0], flat.t() @ flat / 100, atol=1e-5)
    assert torch.allclose(moments.mean_squares, squares.mean_squares)
    assert torch.allclose(squares.mean_squares[0], flat.square().mean(dim=0))
