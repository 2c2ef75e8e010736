"""Two models on the same examples: the exact test, and the interval of the drop."""

import numpy as np
import pytest
from scipy import optimize, stats

from prunus.evaluate.harm.paired_shares import mcnemar, score_interval


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (0, 6), (3, 3), (12, 2), (40, 61), (700, 801)])
def test_the_exact_test_is_a_sign_test_of_what_differs(lost, gained):
    expected = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert mcnemar(lost, gained) == pytest.approx(expected, rel=1e-6)


def score(lost, gained, n, drop):
    """Return the score by its definition: the shares that fit best, given the drop, are found by brute force."""
    same = n - lost - gained

    def surprise(share):
        p = [share + drop, share, 1 - 2 * share - drop]
        if min(p) < 0:
            return np.inf
        return -sum(k * np.log(max(q, 1e-300)) for k, q in zip((lost, gained, same), p, strict=True) if k)

    low, high = max(0.0, -drop), (1 - drop) / 2
    share = optimize.minimize_scalar(surprise, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (lost - gained - n * drop) / np.sqrt(n * (2 * share + drop - drop**2))


@pytest.mark.parametrize(("lost", "gained", "n"), [(10, 2, 100), (2, 10, 100), (0, 3, 50), (5, 5, 80), (1, 0, 20)])
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_the_ends_of_the_interval_are_where_the_score_is_the_normal_quantile(lost, gained, n, confidence):
    low, high = score_interval(lost, gained, n, confidence)
    reach = stats.norm.ppf((1 + confidence) / 2)
    assert score(lost, gained, n, low) == pytest.approx(reach, abs=2e-3)
    assert score(lost, gained, n, high) == pytest.approx(-reach, abs=2e-3)


def test_swapping_the_models_turns_the_interval_round():
    low, high = score_interval(9, 3, 70, 0.95)
    assert score_interval(3, 9, 70, 0.95) == pytest.approx((-high, -low), abs=1e-6)


def test_where_nothing_differs_few_examples_still_leave_doubt():
    low, high = score_interval(0, 0, 30, 0.95)
    assert low == pytest.approx(-high)
    assert 0.08 < high < 0.15


def test_no_examples_say_nothing():
    assert score_interval(0, 0, 0, 0.95) == (-1.0, 1.0)


@pytest.mark.parametrize("drop", [0.0, 0.06])
def test_the_interval_holds_the_true_drop_as_often_as_it_says(drop):
    rng = np.random.default_rng(0)
    counts = rng.multinomial(90, [0.05 + drop, 0.05, 0.9 - drop], size=1500)
    found = [score_interval(int(a), int(b), 90, 0.9) for a, b, _ in counts]
    assert 0.88 <= np.mean([low <= drop <= high for low, high in found]) <= 0.94
