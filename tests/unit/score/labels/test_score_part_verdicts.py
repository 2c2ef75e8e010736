"""Of several labels each is judged as a class is, and an example goes for its worst one."""

import numpy as np
import pytest

from prunus.score import FLAGGED, SPARED, Parts, judge_labels, judge_parts

CLASSES = ("O", "PER", "LOC", "ORG")


def tokens(n=400, noise=0.1, seed=0):
    """Return tokens of ``n`` sentences, some with a wrong class, and which."""
    draw = np.random.default_rng(seed)
    example = np.repeat(np.arange(n), draw.integers(1, 12, n))
    place = np.concatenate([np.arange(k) for k in np.bincount(example)])
    logits = 3 * draw.normal(size=(len(example), 4))
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = (probability.cumsum(axis=1) > draw.random((len(example), 1))).argmax(axis=1)
    given = true.copy()
    rows = draw.permutation(len(given))[: round(noise * len(given))]
    given[rows] = (given[rows] + draw.integers(1, 4, len(rows))) % 4
    present = np.zeros((n, 4), bool)
    present[example, given] = True
    return Parts("token {place}", CLASSES, example, place, given, probability), given != true, present


def several(n=1500, labels=4, noise=0.1, seed=0):
    draw = np.random.default_rng(seed)
    probability = 1 / (1 + np.exp(-4 * draw.normal(size=(n, labels))))
    true = (draw.random((n, labels)) < probability).astype(np.int64)
    given = np.where(draw.random((n, labels)) < noise, 1 - true, true)
    rows = np.arange(n)
    parts = [
        Parts(f"label {k}", ("no", "yes"), rows, rows * 0, given[:, k], np.stack([1 - p, p], axis=1))
        for k, p in enumerate(probability.T)
    ]
    return parts, given != true, given > 0


def test_with_one_label_each_examples_are_judged_as_by_judge_labels():
    part, *_ = tokens(n=500)
    first = part.place == 0
    one = Parts(
        "token {place}", CLASSES, part.example[first], part.place[first], part.given[first], part.probability[first]
    )
    present = np.zeros((500, 4), bool)
    found = judge_parts([one], 500, present, wrong="drop", class_floor=0)
    alone = judge_labels(one.probability, one.given, CLASSES, wrong="drop", class_floor=0)
    np.testing.assert_array_equal(found.probability, alone.probability)
    np.testing.assert_array_equal(found.decision, alone.decision)
    assert found.noise == alone.noise
    assert found.dropped == alone.dropped


@pytest.mark.parametrize("noise", [0.03, 0.15])
def test_the_share_of_wrong_labels_and_the_precision_are_estimated(noise):
    part, wrong_tokens, present = tokens(n=800, noise=noise)
    labels, wrong_labels, there = several(noise=noise)
    for parts, n, classes, wrong in (
        ([part], 800, present, np.bincount(part.example, wrong_tokens, 800) > 0),
        (labels, 1500, there, wrong_labels.any(axis=1)),
    ):
        found = judge_parts(parts, n, classes, wrong="drop")
        assert found.noise.value == pytest.approx(noise, abs=0.03)
        listed = found.decision == "drop"
        by_chance = 2.5 * (found.dropped.value * (1 - found.dropped.value) / found.dropped.n) ** 0.5
        # An example that goes for one label may have another wrong one, too.
        assert wrong[listed].mean() > found.dropped.value - 0.02 - by_chance
        assert (listed == (found.probability >= 0.7)).all()


def test_the_reason_names_the_worst_label_and_what_is_said_instead():
    part, _, present = tokens(n=300, noise=0.1)
    found = judge_parts([part], 300, present)
    assert (found.decision == "keep").all()
    flagged = [row for row, text in enumerate(found.reason) if text.startswith(FLAGGED)]
    assert flagged
    for row in flagged:
        place = int(found.reason[row].removeprefix(f"{FLAGGED}token ").partition(" ")[0])
        at = np.flatnonzero((part.example == row) & (part.place == place))[0]
        assert f"given {CLASSES[part.given[at]]!r}" in found.reason[row]
        others = np.where(np.arange(4) == part.given[at], -1, part.probability[at])
        assert found.reason[row].endswith(f"say {CLASSES[others.argmax()]!r}")


def test_a_class_keeps_its_floor_of_examples():
    part, _, present = tokens(n=300, noise=0.3)
    present = np.hstack([present, np.zeros((300, 1), bool)])
    free = judge_parts([part], 300, present, wrong="drop", class_floor=0)
    rare = np.flatnonzero(free.decision == "drop")[:20]
    present[rare, 4] = True
    found = judge_parts([part], 300, present, wrong="drop", class_floor=0.25)
    stay = rare[found.decision[rare] == "keep"]
    assert len(stay) == 5 == found.n_spared
    gone = np.setdiff1d(rare, stay)
    assert found.probability[stay].max() <= found.probability[gone].min()
    assert all(found.reason[row].startswith(SPARED) for row in stay)
