"""Wrong labels are found, replaced where the right one is sure, and their share is estimated; no class goes unsaid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.score import FLAGGED, SPARED, confident_labels, judge_labels, wrong_labels

NAMES = [f"class {k}" for k in range(6)]


def drawn(n=3000, classes=6, noise=0.2, sharpness=1.0, seed=0):
    """Return probabilities under which the true classes were drawn, the labels after flips, and the true ones."""
    draw = np.random.default_rng(seed)
    logits = 3.0 * draw.normal(size=(n, classes))
    true_probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = (true_probability.cumsum(axis=1) > draw.random((n, 1))).argmax(axis=1)
    given = true.copy()
    rows = draw.permutation(n)[: round(noise * n)]
    given[rows] = (given[rows] + draw.integers(1, classes, len(rows))) % classes
    told = true_probability**sharpness
    return told / told.sum(axis=1, keepdims=True), given, true


@pytest.mark.parametrize("sharpness", [1.0, 0.5])
@pytest.mark.parametrize("noise", [0.05, 0.2, 0.4])
def test_the_share_of_wrong_labels_and_the_precision_of_each_list_are_estimated(noise, sharpness):
    probability, given, true = drawn(noise=noise, sharpness=sharpness)
    found = judge_labels(probability, given, NAMES)
    wrong = given != true
    assert found.noise.value == pytest.approx(noise, abs=0.03)
    assert found.noise.low <= found.noise.value <= found.noise.high
    for what, told in (("drop", found.dropped), ("relabel", found.relabelled)):
        listed = found.decision == what
        assert told.n == listed.sum() > 0
        by_chance = 2.5 * (told.value * (1 - told.value) / told.n) ** 0.5
        assert told.value == pytest.approx(wrong[listed].mean(), abs=0.02 + by_chance)
    changed = found.new_label >= 0
    assert (changed == (found.decision == "relabel")).all()
    assert found.repaired == pytest.approx((found.new_label == true)[changed].mean(), abs=0.05)


def test_the_new_label_has_the_probability_that_bayes_rule_gives_it():
    probability, given, _ = drawn(n=2000)
    found = judge_labels(probability, given, NAMES, drop_probability=1.0, relabel_probability=0.8)
    estimate = wrong_labels(probability, given)
    sharp = probability**estimate.sharpness
    sharp /= sharp.sum(axis=1, keepdims=True)
    # P(true = j | given = i) is proportional to P(given = i | true = j) P(j).
    for row in range(0, 2000, 13):
        given_if = np.full(6, estimate.noise / 5)
        given_if[given[row]] = 1 - estimate.noise
        posterior = given_if * sharp[row] / (given_if * sharp[row]).sum()
        assert found.probability[row] == pytest.approx(1 - posterior[given[row]], abs=1e-6)
        other = np.argsort(-np.where(np.arange(6) == given[row], -1, posterior))[0]
        if found.new_label[row] >= 0:
            assert (found.new_label[row], posterior[other] >= 0.8) == (other, True)


@given(st.integers(0, 10), st.sampled_from([0.0, 0.1, 0.4]))
@settings(max_examples=12, deadline=None)
def test_decisions_follow_from_the_probabilities_and_confident_learning(seed, noise):
    probability, labels, _ = drawn(n=400, noise=noise, seed=seed)
    contradicted = confident_labels([(probability.astype(np.float32), labels)]).contradicted
    both = judge_labels(probability, labels, NAMES, class_floor=0)
    assert (both.decision[both.probability >= 0.7] != "keep").all()
    assert (both.probability[both.decision == "drop"] >= 0.7).all()
    assert contradicted[both.decision == "relabel"].all()
    drop = judge_labels(probability, labels, NAMES, wrong="drop", class_floor=0)
    assert ((drop.decision == "drop") == (drop.probability >= 0.7)).all()
    relabel = judge_labels(probability, labels, NAMES, wrong="relabel", class_floor=0)
    np.testing.assert_array_equal(relabel.new_label, both.new_label)
    assert not (relabel.decision == "drop").any()
    flag = judge_labels(probability, labels, NAMES, wrong="flag", class_floor=0)
    assert (flag.decision == "keep").all()
    assert [text.startswith(FLAGGED) for text in flag.reason] == (flag.probability >= 0.7).tolist()


@pytest.mark.parametrize(("floor", "left"), [(0.0, 0), (0.1, 4), (0.01, 1)])
def test_a_class_keeps_its_floor_of_the_least_suspect_examples(floor, left):
    probability, given, _ = drawn(noise=0.0, n=600)
    # All 40 labels of the last class are wrong, and the models are sure of the first.
    probability = np.vstack([probability[:, :5], np.tile([0.96, 0.01, 0.01, 0.01, 0.01], (40, 1))])
    probability = np.hstack([probability, np.full((len(probability), 1), 1e-4)])
    probability[-40:, 5] += np.linspace(0, 0.002, 40)
    probability /= probability.sum(axis=1, keepdims=True)
    given = np.r_[np.minimum(given, 4), np.full(40, 5)]
    found = judge_labels(probability, given, NAMES, class_floor=floor)
    stay = (given == 5) & (found.decision == "keep")
    assert stay.sum() == left == found.n_spared
    assert np.flatnonzero(stay).tolist() == list(range(640 - left, 640))
    assert all(text.startswith(SPARED) for text in found.reason[stay])
    assert (found.new_label[stay] == -1).all()
