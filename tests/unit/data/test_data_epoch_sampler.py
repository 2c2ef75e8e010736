"""Is the weighted epoch exactly the mean over all in expectation, the same after a resume, and disjoint over ranks?"""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from prunus.core.errors import DataError, RecipeError
from prunus.data import EpochSampler
from prunus.data import epoch_sampler as module
from prunus.data.epoch_sampler import inclusion_steps

SCORES = st.lists(st.one_of(st.floats(0, 100), st.sampled_from([0.0, 5e-324, 1e-300, 1.7e308])), min_size=2, max_size=9)


@given(SCORES, st.data())
@settings(max_examples=60, deadline=None)
def test_over_all_starts_of_the_draw_every_example_is_drawn_exactly_as_often_as_its_chance_says(scores, data):
    n = len(scores)
    n_drawn = data.draw(st.integers(1, n))
    order = np.array(data.draw(st.permutations(range(n))))
    losses = [Fraction(data.draw(st.integers(-50, 50))) for _ in range(n)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STEPS", 128)
        steps = inclusion_steps(np.array(scores), n_drawn, least=0.1)
        assert steps.sum() == n_drawn * 128
        assert steps.min() >= 1
        assert steps.max() <= 128
        total = Fraction(0)
        for start in range(1, 129):
            found = order[module._under_pointers(steps[order], start)]
            assert len(set(found.tolist())) == len(found) == n_drawn
            # The weighted mean of an epoch: weight n_drawn / (n * chance) each.
            total += sum(losses[i] * Fraction(n_drawn * 128, n * int(steps[i])) for i in found.tolist()) / n_drawn
        assert total / 128 == sum(losses) / n


def test_the_weights_of_the_loop_are_those_and_all_alike_weigh_one():
    sampler = EpochSampler(10, keep_fraction=0.4)
    assert sampler.weights.tolist() == pytest.approx([1.0] * 10)
    sampler.set_epoch(0, scores=[1.0] * 9 + [100.0])
    assert sampler.chance.sum() == 4
    np.testing.assert_allclose(sampler.weights, 4 / (10 * sampler.chance), rtol=1e-6)
    assert sampler.chance[9] == 1


def test_over_many_epochs_the_mean_of_weighted_losses_is_the_mean_of_all():
    random = np.random.default_rng(0)
    losses, scores = random.exponential(size=200), random.exponential(size=200)
    sampler = EpochSampler(200, keep_fraction=0.3, seed=1)
    sampler.set_epoch(0, scores=scores)
    weighted = sampler.weights.double().numpy() * losses
    means = [weighted[list(sampler.drawn(epoch))].mean() for epoch in range(3000)]
    assert np.mean(means) == pytest.approx(losses.mean(), abs=4 * np.std(means) / np.sqrt(3000))
    assert len({tuple(sampler.drawn(epoch).tolist()) for epoch in range(20)}) == 20


@given(st.integers(1, 60), st.floats(0.01, 1), st.integers(1, 5), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_ranks_part_the_same_draw_evenly(n, keep, n_ranks, epoch):
    try:
        ranks = [EpochSampler(n, keep_fraction=keep, rank=rank, n_ranks=n_ranks, seed=3) for rank in range(n_ranks)]
    except RecipeError:
        assert round(keep * n / n_ranks) == 0 or n < n_ranks
        return
    for sampler in ranks:
        sampler.set_epoch(epoch)
    parts = [list(sampler) for sampler in ranks]
    assert {len(part) for part in parts} == {len(ranks[0])} == {ranks[0].n_drawn // n_ranks}
    whole = [position for part in parts for position in part]
    assert len(set(whole)) == len(whole) == ranks[0].n_drawn
    assert sorted(whole) == sorted(ranks[0].drawn(epoch).tolist())


class Positions(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, position):
        return position


def batches(sampler, workers):
    return [batch.tolist() for batch in DataLoader(Positions(), batch_size=4, sampler=sampler, num_workers=workers)]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_stopped_goes_on_with_the_batches_that_were_left_at_any_number_of_workers(workers):
    scores = torch.rand(40, generator=torch.Generator().manual_seed(0))
    whole = EpochSampler(40, keep_fraction=0.7, seed=5)
    whole.set_epoch(3, scores=scores)
    expected = batches(whole, 0)
    stopped = EpochSampler(40, keep_fraction=0.7, seed=5)
    stopped.set_epoch(3, scores=scores)
    taken = []
    for batch in DataLoader(Positions(), batch_size=4, sampler=stopped, num_workers=workers):
        taken.append(batch.tolist())
        if len(taken) == 2:
            break
    state = stopped.state_dict(n_taken=8)
    resumed = EpochSampler(40, keep_fraction=0.7, seed=5)
    resumed.load_state_dict(state)
    assert len(resumed) == 28 - 8
    assert taken + batches(resumed, workers) == expected
    resumed.set_epoch(4)
    whole.set_epoch(4)
    assert batches(resumed, workers) == batches(whole, 0)
    assert len(resumed) == 28


def test_what_is_wrong_is_said():
    with pytest.raises(RecipeError, match=r"must be in \(0, 1\]: got 0 and 0\.1"):
        EpochSampler(10, keep_fraction=0)
    with pytest.raises(RecipeError, match="rank must be from 0 to 1 of n_ranks 2: got 2"):
        EpochSampler(10, keep_fraction=1, rank=2, n_ranks=2)
    with pytest.raises(RecipeError, match="less than one for each of 4 ranks"):
        EpochSampler(10, keep_fraction=0.1, n_ranks=4)
    sampler = EpochSampler(3, keep_fraction=0.5)
    with pytest.raises(DataError, match=r"example 1 has -1\.0"):
        sampler.set_epoch(0, scores=[1, -1, 2])
    with pytest.raises(DataError, match=r"one score per example, \(3,\): got shape \(2,\)"):
        sampler.set_epoch(0, scores=[1, 2])
    with pytest.raises(DataError, match="the state is of a sampler with seed 1: got 0"):
        sampler.load_state_dict(EpochSampler(3, keep_fraction=0.5, seed=1).state_dict(0))
