"""Is the lazy choice the greedy one, and is it as good as it must be?"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.errors import DataError, RecipeError
from prunus.score import facility_location


def served(rows, n_neighbours):
    """Return how well row i is served by row j, from the definition."""
    apart = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    sight = np.sort(apart + np.where(np.eye(len(rows)), np.inf, 0), axis=1)[:, min(n_neighbours, len(rows) - 1) - 1]
    return np.maximum(sight[:, None] - apart, 0)


def value(worth, picks):
    return worth[:, list(picks)].max(axis=1).sum() if len(picks) else 0.0


@given(st.integers(0, 10**6), st.integers(2, 60), st.integers(1, 6), st.integers(1, 70), st.data())
@settings(max_examples=60, deadline=None)
def test_every_pick_is_the_best_that_is_left(seed, n, width, n_neighbours, data):
    rows = np.random.default_rng(seed).standard_normal((n, width))
    n_picks = data.draw(st.integers(1, n))
    found = facility_location(rows, n_picks, n_neighbours=n_neighbours)
    assert len(set(found.order.tolist())) == n_picks
    worth = served(rows, n_neighbours)
    picks = []
    for pick, gain in zip(found.order.tolist(), found.gain.tolist(), strict=True):
        here = value(worth, picks)
        gains = [value(worth, [*picks, j]) - here for j in range(n) if j not in picks]
        picks.append(pick)
        assert gain == pytest.approx(value(worth, picks) - here, abs=1e-3)
        assert gain >= max(gains) - 1e-3
    assert found.covered == pytest.approx(value(worth, picks) / value(worth, range(n)), abs=1e-4)
    assert (np.diff(found.gain) <= 1e-4).all()


@pytest.mark.parametrize("seed", range(20))
def test_greedy_reaches_its_share_of_the_best(seed):
    rows = np.random.default_rng(seed).standard_normal((11, 2))
    worth = served(rows, 10)
    for size in (2, 4):
        best = max(value(worth, picks) for picks in itertools.combinations(range(11), size))
        assert value(worth, facility_location(rows, size, n_neighbours=10).order) >= (1 - 1 / math.e) * best


def test_with_all_neighbours_it_is_the_distance_to_the_nearest_pick():
    rows = np.random.default_rng(0).standard_normal((40, 3))
    apart = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    found = facility_location(rows, 5, n_neighbours=39)
    assert found.gain.sum() == pytest.approx((apart.max(axis=1) - apart[:, found.order].min(axis=1)).sum(), rel=1e-4)


def test_what_is_picked_lies_nearer_to_all_than_chance_and_dense_places_come_first():
    random = np.random.default_rng(3)
    rows = np.concatenate([random.standard_normal((900, 4)), 30 + random.standard_normal((100, 4))])
    found = facility_location(rows, 50)

    def mean(kept):
        return np.linalg.norm(rows[:, None] - rows[kept][None], axis=2).min(axis=1).mean()

    assert mean(found.order) < min(mean(random.permutation(1000)[:50]) for _ in range(20))
    assert 0 < (found.order >= 900).sum() < 15


def test_equal_rows_are_picked_once_each_and_last():
    rows = np.array([[0.0]] * 5 + [[7.0]])
    found = facility_location(rows, 6)
    assert found.order[:2].tolist() == [0, 5]
    assert found.gain[2:].tolist() == [0.0] * 4
    assert facility_location(np.ones((4, 2)), 4).covered == 1
    assert facility_location(np.ones((1, 2)), 1).order.tolist() == [0]


def test_what_is_wrong_is_said():
    with pytest.raises(RecipeError, match="of 3 rows 1 to 3 can be picked: got 4"):
        facility_location(np.ones((3, 1)), 4)
    with pytest.raises(DataError, match="row 1 has NaN or infinity"):
        facility_location(np.array([[1.0], [np.inf]]), 1)
    with pytest.raises(RecipeError, match="neighbours must be >= 1"):
        facility_location(np.ones((3, 1)), 1, n_neighbours=0)
