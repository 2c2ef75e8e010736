"""Does confident learning equal its definition, in one block or many, and is each bad row named?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.errors import DataError, ShapeError
from prunus.score import confident_labels


def by_definition(probability, labels):
    """The paper's equation, one example at a time."""
    classes = probability.shape[1]
    thresholds = [probability[labels == j, j].mean() if (labels == j).any() else np.inf for j in range(classes)]
    suggested = []
    for row in probability:
        reached = [j for j in range(classes) if row[j] >= thresholds[j] * (1 - 1e-6)]
        suggested.append(max(reached, key=lambda j: (row[j], -j)) if reached else -1)
    joint = np.zeros((classes, classes), int)
    for i, j in zip(labels, suggested, strict=True):
        if j >= 0:
            joint[i, j] += 1
    return np.array(suggested), joint


def drawn(seed, n, classes):
    random = np.random.default_rng(seed)
    probability = random.dirichlet(np.full(classes, 0.4), n).astype(np.float32)
    return probability, (probability + 0.4 * random.random((n, classes))).argmax(axis=1)


@given(st.integers(0, 10**6), st.integers(1, 200), st.integers(2, 12), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_it_is_the_papers_definition_however_the_rows_are_cut_into_shards(seed, n, classes, n_shards):
    probability, labels = drawn(seed, n, classes)
    suggested, joint = by_definition(probability, labels)
    shards = list(zip(np.array_split(probability, n_shards), np.array_split(labels, n_shards), strict=True))
    found = confident_labels(shards)
    np.testing.assert_array_equal(found.suggested, suggested)
    np.testing.assert_array_equal(found.joint, joint)
    np.testing.assert_array_equal(found.contradicted, (suggested >= 0) & (suggested != labels))
    np.testing.assert_array_equal(found.own, probability[np.arange(n), labels])
    np.testing.assert_allclose(found.calibrated_joint.sum(axis=1), np.bincount(labels, minlength=classes) / n)


def test_many_blocks_answer_as_one_does(monkeypatch):
    probability, labels = drawn(5, 1000, 7)
    whole = confident_labels([(probability, labels)])
    monkeypatch.setattr("prunus.score.examples.confident._BLOCK", 64)
    cut = confident_labels([(torch.from_numpy(probability), torch.from_numpy(labels))])
    np.testing.assert_array_equal(whole.suggested, cut.suggested)
    np.testing.assert_array_equal(whole.joint, cut.joint)


def test_planted_flips_are_contradicted_and_their_share_is_estimated():
    random = np.random.default_rng(0)
    truth = random.integers(0, 4, 8000)
    logits = random.standard_normal((8000, 4)) + 6 * np.eye(4)[truth]
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    flipped = random.random(8000) < 0.2
    labels = np.where(flipped, (truth + random.integers(1, 4, 8000)) % 4, truth)
    found = confident_labels([(probability, labels)])
    assert found.contradicted[flipped].mean() > 0.9
    assert found.contradicted[~flipped].mean() < 0.02
    assert found.noise_fraction == pytest.approx(flipped.mean(), abs=0.02)


def test_shards_are_opened_one_at_a_time():
    probability, labels = drawn(1, 90, 3)
    opened = []

    class Files(list):
        def __getitem__(self, number):
            opened.append(number)
            return super().__getitem__(number)

    confident_labels(Files(zip(np.split(probability, 3), np.split(labels, 3), strict=True)))
    assert opened == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("probability", "labels", "says"),
    [
        ([[0.5, 0.5], [2.0, -1.0]], [0, 1], "row 1 sums to 1, its least is -1; give softmax outputs"),
        ([[0.5, 0.5], [0.2, 0.2]], [0, 1], "row 1 sums to 0.4"),
        ([[0.5, 0.5], [np.nan, 0.2]], [0, 1], "row 1 sums to nan"),
        ([[0.5, 0.5], [0.5, 0.5]], [0, 2], "from 0 to 1: got 2 in row 1"),
        ([[0.5, 0.5], [0.5, 0.5]], [-1, 1], "from 0 to 1: got -1 in row 0"),
        ([[0.5, 0.5], [0.5, 0.5]], [0.0, 1.0], "labels are class numbers: got float64"),
        ([[1.0], [1.0]], [0, 0], "at least two classes: got 1"),
    ],
)
def test_a_bad_row_is_named(probability, labels, says):
    with pytest.raises(DataError, match=says):
        confident_labels([(np.array(probability), np.array(labels))])


def test_shards_that_do_not_fit_are_named():
    good = (np.array([[0.5, 0.5]]), np.array([0]))
    with pytest.raises(ShapeError, match="got 3 in shard 1 after 2"):
        confident_labels([good, (np.full((1, 3), 1 / 3), np.array([0]))])
    with pytest.raises(ShapeError, match=r"got \(1, 2\) and \(2,\) in shard 0"):
        confident_labels([(good[0], np.array([0, 1]))])
    with pytest.raises(DataError, match="got no rows"):
        confident_labels([])
