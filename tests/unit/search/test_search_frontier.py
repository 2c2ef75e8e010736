"""The frontier is what no other beats, and its volume is what it covers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prunus.search.frontier import hypervolume, spread, unbeaten

POINTS = st.integers(1, 3).flatmap(
    lambda k: arrays(np.float64, st.tuples(st.integers(0, 9), st.just(k)), elements=st.integers(0, 6).map(float))
)


@given(POINTS)
def test_a_point_is_on_the_frontier_if_no_other_is_as_low_everywhere_and_lower_somewhere(values):
    found = unbeaten(values).tolist()
    beaten = [
        any((one <= row).all() and (one < row).any() for one in values) or any((values[:place] == row).all(axis=1))
        for place, row in enumerate(values)
    ]
    assert sorted(found) == [place for place, is_beaten in enumerate(beaten) if not is_beaten]
    assert found == sorted(found, key=lambda place: tuple(values[place]))


@given(POINTS)
def test_the_volume_is_the_number_of_cells_that_a_point_beats(values):
    k = values.shape[1]
    cells = np.stack(np.meshgrid(*[np.arange(6)] * k, indexing="ij"), axis=-1).reshape(-1, k)
    beaten = sum(bool((values <= cell).all(axis=1).any()) for cell in cells)
    assert hypervolume(values, np.full(k, 6.0)) == beaten


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20).map(sorted), st.integers(1, 8))
def test_so_many_are_taken_as_asked_for_and_the_cheapest_is_among_them(costs, n):
    taken = spread(costs, n)
    assert len(taken) == len(set(taken)) == min(n, len(costs))
    assert costs[taken[0]] == costs[0]
    if min(n, len(costs)) > 1:
        assert costs[taken[-1]] == costs[-1]
