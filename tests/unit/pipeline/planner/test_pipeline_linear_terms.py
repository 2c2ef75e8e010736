import numpy as np
import pytest

from prunus.pipeline.planner.linear_terms import fitted, flat_unless_shown


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


def test_a_slope_that_chance_makes_is_none_and_one_that_shows_stays():
    random, rows, n_rising = np.random.default_rng(0), np.array([100, 200] * 2), 0
    for _ in range(2000):
        line = flat_unless_shown(rows, 400 + random.normal(0, 12, 4))
        n_rising += line.per_row > 0
        told = line.at(10_000)
        assert told.low <= told.value <= told.high
    assert n_rising / 2000 <= 0.01
    for _ in range(50):
        line = flat_unless_shown(rows, 400 + 2 * rows + random.normal(0, 2, 4))
        assert line.per_row == pytest.approx(2, abs=0.5)


def test_many_rows_take_no_less_than_few():
    told = flat_unless_shown([100, 200, 100, 200], [410.0, 400.0, 405.0, 420.0]).at(1e6)
    assert told.value == pytest.approx(408.75)
    assert told.low == 400
    assert told.high > 1000  # that nothing grows isn't shown either
