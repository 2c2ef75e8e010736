"""Many parts looked at together: no more of them than the error allows seem to change by chance."""

from itertools import combinations

import numpy as np
import pytest

from prunus.evaluate.harm.multiplicity import holm, max_t


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_closed_test_of_bonferroni(seed):
    """A part's p-value is the largest that Bonferroni gives any set of parts that it is in."""
    p_values = np.random.default_rng(seed).random(6) ** 3
    expected = []
    for i in range(6):
        sets = [s for size in range(1, 7) for s in combinations(range(6), size) if i in s]
        expected.append(max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in sets))
    assert holm(p_values.tolist()) == pytest.approx(expected)


def test_holm_of_nothing_is_nothing():
    assert holm([]) == ()


def drawn(n_parts, n=20_000, seed=0):
    return np.random.default_rng(seed).standard_normal((n, n_parts))


def test_independent_parts_need_what_sidak_says():
    found = max_t(np.concatenate([np.zeros((1, 20)), drawn(20)]), 0.95)
    # 0.95 ** (1 / 20) of a normal lies within 3.02 deviations.
    assert found.high == pytest.approx(3.02, abs=0.06)
    assert found.low == pytest.approx(-found.high)


def test_parts_that_move_together_cost_nothing():
    """Bonferroni would pay for twenty."""
    alike = np.repeat(drawn(1), 20, axis=1)
    found = max_t(np.concatenate([np.zeros((1, 20)), alike]), 0.95)
    assert found.high == pytest.approx(1.96, abs=0.05)


def test_all_intervals_together_miss_as_rarely_as_was_asked():
    """The planted truth is zero for all: an interval without it is a miss of the whole family."""
    rng, n_missed = np.random.default_rng(1), 0
    for _ in range(300):
        examples = rng.standard_normal((60, 8))
        weights = rng.multinomial(60, np.full(60, 1 / 60), size=400)
        found = max_t(np.concatenate([examples.mean(axis=0)[None], weights @ examples / 60]), 0.9)
        n_missed += bool(((found.low > 0) | (found.high < 0)).any())
    assert 0.05 < n_missed / 300 < 0.18


def test_a_part_that_never_varies_has_no_interval():
    values = np.concatenate([np.zeros((1, 2)), np.column_stack([drawn(1, 200)[:, 0], np.zeros(200)])])
    found = max_t(values, 0.95)
    assert np.isnan(found.low[1])
    assert np.isnan(found.p_value[1])
    assert found.low[0] < 0 < found.high[0]


def test_resamples_without_a_part_say_nothing_about_it():
    values = np.concatenate([np.zeros((1, 1)), drawn(1, 4000)])
    holes = values.copy()
    holes[1::2] = np.nan
    assert max_t(holes, 0.95).high == pytest.approx(max_t(values, 0.95).high, rel=0.12)
