"""Is it the greedy k-centre, row for row, and is its radius what it says?"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.errors import DataError, RecipeError
from prunus.score import farthest_first
from prunus.score.examples import farthest_first as module


def naive(rows, n_picks, first):
    nearest = np.full(len(rows), np.inf)
    order, distance = [], []
    for _ in range(n_picks):
        pick = first if not order else int(nearest.argmax())
        order.append(pick)
        distance.append(np.sqrt(nearest[pick]))
        nearest = np.minimum(nearest, ((rows - rows[pick]) ** 2).sum(axis=1))
        nearest[pick] = -1
    return order, distance, np.sqrt(max(nearest.max(), 0))


@given(st.integers(0, 10**6), st.integers(1, 400), st.integers(1, 20), st.floats(0, 4), st.data())
@settings(max_examples=40, deadline=None)
def test_it_is_the_naive_greedy_choice(seed, n, width, apart, data):
    random = np.random.default_rng(seed)
    rows = random.standard_normal((n, width)) + apart * random.standard_normal((5, width))[random.integers(0, 5, n)]
    n_picks = data.draw(st.integers(1, n))
    with pytest.MonkeyPatch.context() as patch:  # a small front, so that many are needed
        patch.setattr(module, "_FRONT", 8)
        patch.setattr(module, "_WIDEST", 64)
        patch.setattr(module, "_CELLS", 512)
        found = farthest_first(rows, n_picks, first=0)
    order, distance, radius = naive(rows, n_picks, 0)
    # Where two rows are equally far but for rounding, either may come first: distances are what must agree.
    np.testing.assert_allclose(found.distance[1:], distance[1:], rtol=1e-3, atol=2e-3)
    assert found.radius == pytest.approx(radius, rel=1e-3, abs=5e-3)
    assert len(set(found.order.tolist())) == n_picks
    if n < 50:
        assert found.order.tolist() == order or np.diff(distance[1:]).max(initial=-1) > -1e-3


def test_the_radius_is_at_most_twice_the_best():
    rows = np.random.default_rng(0).standard_normal((12, 2))
    apart = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    best = min(apart[:, list(c)].min(axis=1).max() for c in itertools.combinations(range(12), 3))
    found = farthest_first(rows, 3)
    assert apart[:, found.order].min(axis=1).max() == pytest.approx(found.radius, rel=1e-5)
    assert best <= found.radius <= 2 * best


def test_it_begins_beside_the_mean_and_equal_rows_are_picked_once_each():
    rows = np.array([[0.0], [10.0], [4.0], [4.0], [4.0]])
    found = farthest_first(rows, 5)
    assert found.order[:3].tolist() == [2, 1, 0]
    assert sorted(found.order.tolist()) == [0, 1, 2, 3, 4]
    assert found.radius == 0


def test_what_is_wrong_is_said():
    with pytest.raises(RecipeError, match="of 3 rows 1 to 3 can be picked: got 4"):
        farthest_first(np.ones((3, 1)), 4)
    with pytest.raises(DataError, match="row 1 has NaN or infinity"):
        farthest_first(np.array([[1.0], [np.inf]]), 1)
    with pytest.raises(DataError, match=r"got shape \(3,\)"):
        farthest_first(np.ones(3), 1)
