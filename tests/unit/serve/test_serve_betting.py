"""The test by betting is the product that the paper writes down, and it is seldom wrong however often one looks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.serve.traffic.betting import _SHARES, interval, log_wealth_above, log_wealth_below
from prunus.serve.traffic.comparison import RunningTest

VALUES = st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=60)


def counts(values):
    return {value: values.count(value) for value in set(values)}


@given(VALUES, st.floats(0.01, 0.99))
@settings(deadline=None)
def test_wealth_is_the_mean_of_the_products_over_the_bets(values, bound):
    total = 0.0
    for share in _SHARES:
        bet, wealth = share / (1 - bound), 1.0
        for value in values:  # the capital process, one observation after another
            wealth *= 1 + bet * (bound - value)
        total += wealth * share / _SHARES.sum()
    assert log_wealth_below(counts(values), bound) == pytest.approx(math.log(total), abs=1e-9)


@given(VALUES, st.floats(0.01, 0.99))
@settings(deadline=None)
def test_below_is_above_of_what_is_mirrored(values, bound):
    mirrored = counts([1 - value for value in values])
    assert log_wealth_below(counts(values), bound) == pytest.approx(log_wealth_above(mirrored, 1 - bound), abs=1e-9)


@given(VALUES.filter(len))
@settings(deadline=None, max_examples=50)
def test_the_interval_is_what_neither_bet_speaks_against(values):
    found = counts(values)
    low, high = interval(found, 0.1)
    assert 0 <= low <= float(np.mean(values)) + 1e-6
    assert float(np.mean(values)) - 1e-6 <= high <= 1
    for bound in np.linspace(0.02, 0.98, 25):
        spoken = max(log_wealth_above(found, bound), log_wealth_below(found, bound)) >= math.log(2 / 0.1)
        assert spoken == (not low <= bound <= high)


@pytest.mark.parametrize(
    ("signed", "chances"), [(True, (0.03, 0.95, 0.02)), (True, (0.2, 0.61, 0.19)), (False, (0.95, 0.0, 0.05))]
)
def test_at_the_margin_it_is_wrong_in_at_most_one_of_twenty_however_often_one_looks(signed, chances):
    rng = np.random.default_rng(0)
    values = np.array([1, 0, -1] if signed else [0, 0, 1])
    margin = float(values @ np.array(chances))
    wrong = {"no worse": 0, "worse": 0}
    for _ in range(300):
        test = RunningTest(margin, 0.05, signed)
        for drawn in rng.choice(values, p=chances, size=(400, 5)):
            test.observe(drawn.tolist())
        if test.shown is not None:
            wrong[test.shown] += 1
    # 300 x 0.05 is 15, and three deviations more are 26.
    assert max(wrong.values()) <= 26


@pytest.mark.parametrize(
    ("signed", "margin", "value", "n"),
    [(False, 0.01, 0, 384), (False, 0.05, 0, 76), (True, 0.01, 0, 391), (True, 0.05, 0, 81)],
)
def test_two_models_that_agree_are_shown_to_after_few_examples(signed, margin, value, n):
    """A test for one number of examples needs 299 and 59."""
    test = RunningTest(margin, 0.05, signed)
    while test.shown is None and test.counts.total() < 1000:
        test.observe([value])
    assert test.shown == "no worse"
    assert test.counts.total() <= n * 1.02 + 1


def test_a_model_that_is_worse_is_found_out():
    rng = np.random.default_rng(1)
    test = RunningTest(0.01, 0.05, signed=True)
    test.observe(rng.choice([1, 0, -1], p=[0.08, 0.9, 0.02], size=1500).tolist())
    assert test.shown == "worse"
    assert test.report()["interval"][0] > 0.01
    test.observe([-1] * 5000)
    assert test.shown == "worse"  # what was shown stays shown
