"""Does every pick bring the mean of the picks as near to that of all rows as any could?"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.errors import DataError, RecipeError
from prunus.score import herding


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 8), st.floats(-100, 100))
@settings(max_examples=40, deadline=None)
def test_no_other_row_would_have_brought_the_means_nearer(seed, n, width, far):
    rows = np.random.default_rng(seed).standard_normal((n, width)) + far
    order = herding(rows, n)
    assert sorted(order.tolist()) == list(range(n))
    for count in range(n):
        before = order[:count]
        gap = {
            row: np.linalg.norm((rows[before].sum(axis=0) + rows[row]) / (count + 1) - rows.mean(axis=0))
            for row in set(range(n)) - set(before.tolist())
        }
        assert gap[order[count]] <= min(gap.values()) + 1e-3


def test_rows_that_were_picked_are_left_out_of_what_is_looked_at():
    rows = np.random.default_rng(0).standard_normal((500, 3))
    assert sorted(herding(rows, 500).tolist()) == list(range(500))
    assert np.array_equal(herding(rows, 100), herding(rows, 500)[:100])


def test_the_mean_of_what_is_picked_is_nearer_than_that_of_chance():
    random = np.random.default_rng(1)
    rows = random.standard_normal((2000, 5))

    def gap(kept):
        return np.linalg.norm(rows[kept].mean(axis=0) - rows.mean(axis=0))

    assert gap(herding(rows, 100)) < 0.1 * min(gap(random.permutation(2000)[:100]) for _ in range(20))


def test_what_is_wrong_is_said():
    with pytest.raises(RecipeError, match="of 3 rows 1 to 3 can be picked: got 0"):
        herding(np.ones((3, 1)), 0)
    with pytest.raises(DataError, match="row 1 has NaN or infinity"):
        herding(np.array([[1.0], [np.inf]]), 1)
