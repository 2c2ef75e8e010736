"""Are near-duplicates found, is nothing else dropped, and does every kind of crowd end?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.errors import DataError, RecipeError
from prunus.score import near_duplicates


def all_cosines(rows):
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    return unit @ unit.T


def check_laws(rows, cosine, *, missed=0.03):
    found = near_duplicates(rows, cosine=cosine)
    near = all_cosines(rows.astype(np.float64))
    gone = np.flatnonzero(~found.kept)
    assert found.kept[found.keeper].all(), "who stands for another one stays"
    assert (near[gone, found.keeper[gone]] >= cosine - 2e-6).all(), "what goes is near its keeper"
    np.testing.assert_allclose(found.cosine[gone], near[gone, found.keeper[gone]], atol=2e-6)
    kept = np.flatnonzero(found.kept)
    left = near[np.ix_(kept, kept)] >= cosine + 2e-6
    n_pairs = ((near >= cosine).sum() - len(rows)) // 2
    assert (left.sum() - len(kept)) // 2 <= max(missed * n_pairs, 1), "nearly all pairs are found"
    return found


@given(st.integers(0, 10**6), st.integers(2, 24), st.sampled_from([0.8, 0.95, 0.99]), st.floats(0, 1), st.floats(0, 3))
@settings(max_examples=25, deadline=None)
def test_what_goes_is_near_a_row_that_stays_and_kept_rows_are_not_near(seed, width, cosine, spread, shift):
    random = np.random.default_rng(seed)
    centres = random.standard_normal((int(random.integers(1, 60)), width)) + shift
    rows = centres[random.integers(0, len(centres), 1200)]
    check_laws((rows + spread * 0.3 * random.standard_normal(rows.shape)).astype(np.float32), cosine)


def test_planted_pairs_at_the_threshold_are_found_as_often_as_asked():
    random = np.random.default_rng(0)
    rows = random.standard_normal((20_000, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    aside = random.standard_normal((2_000, 32)).astype(np.float32)
    aside -= (aside * rows[:2_000]).sum(axis=1, keepdims=True) * rows[:2_000]
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    rows[-2_000:] = 0.99001 * rows[:2_000] + np.sqrt(1 - 0.99001**2) * aside
    found = near_duplicates(rows, cosine=0.99, recall=0.95)
    share = (~found.kept).sum() / 2_000
    assert 0.93 <= share <= 1, share
    assert found.recall >= 0.95
    assert (near_duplicates(rows, cosine=0.99, recall=0.999).kept.sum()) < found.kept.sum()


@pytest.mark.parametrize("spread", [0.0, 0.001, 0.02])
def test_a_crowd_of_equal_rows_keeps_a_few(spread):
    random = np.random.default_rng(1)
    rows = random.standard_normal((1, 16)) + spread * random.standard_normal((5_000, 16))
    found = near_duplicates(rows.astype(np.float32))
    assert found.kept.sum() <= 5
    assert found.cosine.min() >= 0.99 - 2e-6


def test_the_row_with_most_duplicates_stays():
    angles = np.array([0.0, 0.1, -0.1, 0.05])  # cos 0.1 = 0.995, cos 0.2 = 0.980: only the first is near all others
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert near_duplicates(rows[[1, 0, 2]], cosine=0.99).keeper.tolist() == [1, 1, 1]


def test_equal_rows_are_duplicates_at_a_threshold_of_one_and_rows_of_zeros_never_are():
    rows = np.array([[0.1, 0.7, 0.3], [0.0, 0.0, 0.0], [0.1, 0.7, 0.3], [0.0, 0.0, 0.0]], np.float32)
    assert near_duplicates(rows, cosine=1.0).keeper.tolist() == [0, 1, 0, 3]


def test_a_seed_gives_the_same_answer_and_a_tensor_the_same_as_an_array():
    rows = np.random.default_rng(3).standard_normal((500, 3)).astype(np.float32)
    one, again, tensor = near_duplicates(rows), near_duplicates(rows), near_duplicates(torch.from_numpy(rows))
    assert (one.keeper == again.keeper).all()
    assert (one.keeper == tensor.keeper).all()


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows_keep_themselves(n):
    assert near_duplicates(np.ones((n, 4), np.float32)).keeper.tolist() == list(range(n))


def test_what_is_wrong_is_said():
    with pytest.raises(DataError, match=r"row 1 has NaN or infinity"):
        near_duplicates(np.array([[1.0], [np.nan]]))
    with pytest.raises(DataError, match=r"got shape \(3,\)"):
        near_duplicates(np.ones(3))
    with pytest.raises(RecipeError, match=r"cosine of duplicates must be in \(0, 1\]: got 0"):
        near_duplicates(np.ones((2, 2)), cosine=0)
    with pytest.raises(RecipeError, match=r"recall of near-duplicates must be in \(0, 1\): got 1"):
        near_duplicates(np.ones((2, 2)), recall=1)
