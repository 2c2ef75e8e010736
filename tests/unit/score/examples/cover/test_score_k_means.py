"""Does each row belong to its nearest centre, is each centre the mean of its rows, and is that the same whatever the order?"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from prunus.core.errors import DataError, RecipeError, ShapeError
from prunus.score import k_means, nearest_centre
from prunus.score.examples.cover import k_means as module


def grouped(seed, n=900, width=6, groups=9):
    random = np.random.default_rng(seed)
    centres = 8 * random.standard_normal((groups, width))
    return (centres[np.arange(n) % groups] + random.standard_normal((n, width))).astype(np.float32)


@given(st.integers(0, 10**6), st.integers(1, 200), st.integers(1, 30), st.floats(0, 1e4))
@settings(max_examples=40, deadline=None)
def test_each_row_belongs_to_the_centre_that_is_nearest(seed, n, k, far):
    random = np.random.default_rng(seed)
    rows = (random.standard_normal((n, 5)) + far).astype(np.float32)
    centres = (random.standard_normal((k, 5)) + far).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", 7)
        cluster, distance = nearest_centre(torch.from_numpy(rows), torch.from_numpy(centres))
    apart = np.linalg.norm(rows[:, None].astype(float) - centres[None], axis=2)
    np.testing.assert_allclose(distance, apart.min(axis=1), atol=2e-3)
    np.testing.assert_allclose(apart[np.arange(n), cluster], apart.min(axis=1), atol=2e-3)


def test_at_the_end_every_centre_is_the_mean_of_its_rows():
    rows = grouped(0)
    found = k_means(rows, 9)
    for number in range(9):
        np.testing.assert_allclose(
            found.centres[number], rows[found.cluster == number].mean(axis=0), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("seed", range(5))
def test_planted_clusters_are_found_as_well_as_scikit_learn_finds_them(seed):
    rows = grouped(seed)
    found = k_means(rows, 9, seed=seed)
    peer = KMeans(9, n_init=1, random_state=seed).fit(rows)
    assert (found.distance.astype(float) ** 2).sum() <= 1.3 * peer.inertia_


def test_the_same_seed_and_rows_in_another_order_give_the_same_clusters():
    rows = torch.from_numpy(grouped(3))
    first, again = (k_means(rows, 20, seed=4) for _ in range(2))
    assert np.array_equal(first.cluster, again.cluster)
    assert torch.equal(first.centres, again.centres)
    noise = torch.rand(len(rows), generator=torch.Generator().manual_seed(0))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    here, there = k_means(rows, 20, noise=noise), k_means(rows[order], 20, noise=noise[order])
    assert np.array_equal(here.cluster[order.numpy()], there.cluster)


def test_a_cluster_without_rows_keeps_its_centre_and_none_is_without_rows_where_enough_differ():
    found = k_means(np.ones((5, 2)), 3)
    assert found.centres.tolist() == [[1.0, 1.0]] * 3
    assert found.distance.max() == 0
    rows = np.array([[0.0], [0.0], [0.0], [1.0], [2.0]])
    assert k_means(rows, 3).distance.max() == 0  # as many centres as rows that differ


def test_what_is_wrong_is_said():
    with pytest.raises(RecipeError, match="3 rows make 1 to 3 clusters: got 4"):
        k_means(np.ones((3, 1)), 4)
    with pytest.raises(DataError, match="row 1 has NaN or infinity"):
        k_means(np.array([[1.0], [np.nan]]), 1)
    with pytest.raises(DataError, match=r"got shape \(3,\)"):
        k_means(np.ones(3), 1)
    with pytest.raises(ShapeError, match=r"one random number per row, \(3,\): got \(2,\)"):
        k_means(np.ones((3, 1)), 1, noise=torch.rand(2))
