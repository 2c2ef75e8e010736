"""Is a score that was computed for a sample foretold for the rest, and does its error say how far it is off?"""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsRegressor

from prunus.core.errors import DataError, ShapeError
from prunus.score import extrapolate


def case(n=3000, m=600, noise=0.1, seed=0):
    draw = torch.Generator().manual_seed(seed)
    places = torch.randn(n, 3, generator=draw) + 5
    truth = torch.sin(places[:, 0]) + places[:, 1].square() / 10 + noise * torch.randn(n, generator=draw)
    return places, truth.double().numpy(), torch.randperm(n, generator=draw)[:m]


def test_it_is_regression_by_the_nearest_neighbours():
    places, truth, rows = case()
    found = extrapolate(truth[rows], rows, places, n_neighbours=7)
    peer = KNeighborsRegressor(7).fit(places[rows].numpy(), truth[rows])
    rest = ~found.sampled
    np.testing.assert_allclose(found.value[rest], peer.predict(places.numpy())[rest], rtol=1e-6)
    np.testing.assert_array_equal(found.value[rows], truth[rows])
    assert found.sampled.sum() == 600
    assert (found.error[rows] == 0).all()


def test_the_error_is_what_neighbours_miss_where_the_score_is_known():
    places, truth, rows = case(n=400, m=60)
    found = extrapolate(truth[rows], rows, places, n_neighbours=5)
    own, known = places[rows], torch.from_numpy(truth[rows])
    apart = torch.cdist(own.double(), own.double()).fill_diagonal_(torch.inf)
    missed = known - known[apart.topk(5, largest=False).indices].mean(dim=1)
    for row in np.flatnonzero(~found.sampled)[:20]:
        near = (own - places[row]).norm(dim=1).topk(5, largest=False).indices
        assert found.error[row] == pytest.approx(float(missed[near].square().mean().sqrt()), rel=1e-6)
    assert found.explained == pytest.approx(1 - float(missed.square().sum() / (known - known.mean()).square().sum()))


def test_most_scores_lie_within_two_errors_and_chance_is_not_extrapolated():
    places, truth, rows = case()
    found = extrapolate(truth[rows], rows, places)
    rest = ~found.sampled
    within = (np.abs(found.value - truth) <= 2 * found.error)[rest].mean()
    assert 0.9 < within < 0.99
    assert found.explained > 0.8
    ratio = np.sqrt(np.square(found.value - truth)[rest].mean() / np.square(found.error[rest]).mean())
    assert 0.8 < ratio < 1.3  # far out, where few are sampled, more is missed than nearby
    chance = np.random.default_rng(0).standard_normal(600)
    assert extrapolate(chance, rows, places).explained < 0.05


def test_what_does_not_fit_is_refused():
    places, truth, rows = case(n=50, m=20)
    with pytest.raises(ShapeError, match="a value for each of 20 rows"):
        extrapolate(truth[:3], rows, places)
    with pytest.raises(DataError, match="10 neighbours need a sample of at least 12 examples: got 11"):
        extrapolate(truth[rows[:11]], rows[:11], places)
    with pytest.raises(DataError, match="twice"):
        extrapolate(truth[rows], torch.cat([rows[:19], rows[:1]]), places)
    with pytest.raises(DataError, match="must be finite"):
        extrapolate(np.full(20, np.nan), rows, places)
