"""The estimated share of wrong labels in a list is near the true one if labels are wrong by chance, however sure the model is."""

from __future__ import annotations

import numpy as np
import pytest

from prunus.core.errors import DataError, ShapeError
from prunus.score import WrongLabels, wrong_labels

N, CLASSES = 3000, 5


def drawn(noise: float, seed: int, *, temperature: float = 1.0):
    """Return what a model believes, given labels, and which are wrong: beliefs are right but for a temperature."""
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=(N, CLASSES)) * draw.uniform(0.5, 5, size=(N, 1))
    true_chance = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    true = (true_chance.cumsum(axis=1) < draw.random((N, 1))).sum(axis=1).clip(max=CLASSES - 1)
    wrong = draw.random(N) < noise
    given = np.where(wrong, (true + draw.integers(1, CLASSES, N)) % CLASSES, true)
    believed = np.exp(temperature * scores)
    return believed / believed.sum(axis=1, keepdims=True), given, wrong


def doubted(believed, given):
    return believed[np.arange(N), given] < 0.05


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0])
@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_the_share_is_near_the_true_one_at_every_rate_and_confidence(noise, temperature):
    off = []
    for seed in range(3):
        believed, given, wrong = drawn(noise, seed, temperature=temperature)
        listed = doubted(believed, given)
        told = wrong_labels(believed, given)
        found = told.precision(listed)
        assert found.n == listed.sum()
        assert found.low <= found.value <= found.high
        assert told.noise == pytest.approx(noise, abs=0.03)
        off.append(found.value - wrong[listed].mean())
    assert abs(np.mean(off)) < (0.05 if noise >= 0.1 else 0.1)  # the fewer are wrong, the less is known of them


def test_the_interval_holds_the_true_share_mostly():
    holds = 0
    for seed in range(20):
        believed, given, wrong = drawn(0.1, seed)
        listed = doubted(believed, given)
        found = wrong_labels(believed, given, seed=seed).precision(listed, confidence=0.9, seed=seed)
        holds += found.low <= wrong[listed].mean() <= found.high
    assert holds >= 16


def test_a_list_that_was_drawn_at_random_is_as_wrong_as_all_labels():
    believed, given, _ = drawn(0.2, 0)
    listed = np.random.default_rng(1).random(N) < 0.2
    told = wrong_labels(believed, given)
    assert told.precision(listed).value == pytest.approx(0.2, abs=0.03)


def test_where_nothing_is_wrong_nearly_nothing_is_said_to_be():
    believed, given, _ = drawn(0.0, 0)
    told = wrong_labels(believed, given)
    assert told.noise < 0.01
    assert told.precision(doubted(believed, given)).value < 0.15


def test_nothing_listed_has_no_share_and_the_same_seed_gives_the_same():
    believed, given, _ = drawn(0.1, 0)
    one, two = (wrong_labels(believed, given, seed=3) for _ in range(2))
    assert one.precision(np.zeros(N, bool)) is None
    listed = doubted(believed, given)
    assert one.precision(listed, seed=1) == two.precision(listed, seed=1)


def test_probabilities_that_are_none_are_refused_in_one_line():
    with pytest.raises(ShapeError, match=r"two classes for 3 labels: got \(3, 1\)"):
        wrong_labels(np.ones((3, 1)), np.zeros(3, int))
    with pytest.raises(DataError, match="NaN or infinity in row 1"):
        wrong_labels(np.array([[0.5, 0.5], [np.nan, 1]]), np.zeros(2, int))


def doubtful(chance):
    return WrongLabels(0.1, np.array(chance), np.full(1, 0.1), lambda rows: np.array(chance)[None, rows])


def test_labels_that_are_likely_wrong_are_not_learnt_from_again_where_most_are_clearly_so():
    assert doubtful([0.9, 0.8, 0.6, 0.5, 0.1]).doubted().tolist() == [True, True, True, False, False]
    assert not doubtful([0.9, 0.6, 0.6, 0.5, 0.1]).doubted().any()  # close calls
    assert not doubtful([0.9] + [0.1] * 100).doubted().any()  # hardly any
    assert doubtful([0.9] + [0.1] * 99).doubted().sum() == 1
