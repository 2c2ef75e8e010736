"""Is it Spearman's correlation, ties and all, with an interval that covers?"""

import numpy as np
import pytest
from scipy import stats

from prunus.evaluate import rank_correlation


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [3, 1000])
def test_it_is_spearmans_also_with_ties(seed, levels):
    draw = np.random.default_rng(seed)
    one = draw.integers(0, levels, 40).astype(float)
    other = one + draw.integers(0, levels, 40)
    assert rank_correlation(one, other)[0] == pytest.approx(stats.spearmanr(one, other).statistic)


def test_the_interval_covers_as_often_as_it_says():
    draw, truth, covered = np.random.default_rng(0), 6 / np.pi * np.arcsin(0.7 / 2), 0
    for _ in range(400):
        pair = draw.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], size=60)
        _, low, high = rank_correlation(pair[:, 0], pair[:, 1], 0.9)
        covered += low <= truth <= high
    assert 0.86 <= covered / 400 <= 0.94


def test_a_constant_score_has_none_and_few_examples_tell_nothing():
    assert all(np.isnan(rank_correlation(np.ones(9), np.arange(9.0))))
    assert rank_correlation(np.arange(3.0), -np.arange(3.0)) == (-1.0, -1.0, 1.0)
    assert rank_correlation(np.arange(9.0), np.arange(9.0)) == pytest.approx((1.0, 1.0, 1.0))
