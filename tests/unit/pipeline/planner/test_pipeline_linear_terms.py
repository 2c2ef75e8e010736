import numpy as np
import pytest

from prunus.pipeline.planner.linear_terms import fitted


def test_a_line_is_found_from_points_on_it_and_carried_on():
    line = fitted([100, 100, 200, 200], [30.0, 30.0, 50.0, 50.0])
    assert (line.fixed, line.per_row) == pytest.approx((10.0, 0.2))
    found = line.at(10_000)
    assert (found.low, found.value, found.high) == pytest.approx((2010.0,) * 3)
    assert line.at(10_000, 1 / 4).value == pytest.approx(510.0)


def test_nothing_shrinks_with_rows_and_nothing_takes_less_than_nothing():
    assert fitted([100, 200], [5.0, 4.0]).per_row == 0
    grows = fitted([100, 200], [1.0, 4.0])
    assert grows.fixed == 0
    assert grows.per_row == pytest.approx(9 / 500)


def test_the_range_holds_a_new_point_four_times_of_five():
    random, held = np.random.default_rng(0), 0
    rows = np.array([100, 100, 200, 200, 200])
    for _ in range(2000):
        took = 7 + 0.5 * rows + random.normal(0, 3, len(rows))
        found = fitted(rows, took).at(1000)
        held += found.low <= 7 + 0.5 * 1000 + random.normal(0, 3) <= found.high
    assert held / 2000 == pytest.approx(0.8, abs=0.03)
