"""Which classes and groups lose: the counts are right, and a planted loss is found where it was planted."""

import numpy as np
import pytest

from prunus.evaluate import Pairs
from prunus.evaluate.harm import change_by_class, change_by_group
from prunus.tasks import Classification, Language, MultiLabel, Regression


def seen_of(true, predicted):
    return {"true": true, "predicted": predicted, "right": true == predicted}


def planted(n=600, n_classes=5, harmed=2, seed=0):
    """Return a pair of which the pruned model misses a third of one class more, and otherwise errs as often as the dense one."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, n_classes, n)
    answers = []
    for share in (0.0, 0.33):
        wrong = rng.random(n) < np.where(true == harmed, 0.05 + share, 0.05)
        answers.append(seen_of(true, np.where(wrong, (true + 1) % n_classes, true)))
    return Pairs([answers[0]], [answers[1]], Classification(tuple("abcde"[:n_classes])), 0.95, 300)


def test_every_class_is_counted_as_by_hand():
    pairs = planted()
    found = change_by_class(pairs)
    dense, pruned = pairs.dense[0], pairs.pruned[0]
    for number, row in enumerate(found.changes):
        here = dense["true"] == number
        assert row.n == here.sum()
        assert row.n_lost == (dense["right"] & ~pruned["right"])[here].sum()
        assert row.n_gained == (~dense["right"] & pruned["right"])[here].sum()
        assert row.change.value == pytest.approx(pruned["right"][here].mean() - dense["right"][here].mean())
        assert row.change.low <= row.change.value <= row.change.high


def test_the_class_that_was_harmed_is_the_one_that_is_named():
    verdicts = {row.name: row.verdict for row in change_by_class(planted()).changes}
    assert verdicts == {name: "worse" if name == "c" else "no measurable difference" for name in "abcde"}


def test_without_harm_the_family_errs_as_rarely_as_it_says():
    n_found = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        true = rng.integers(0, 12, 700)
        one, two = (seen_of(true, np.where(rng.random(700) < 0.2, (true + 1) % 12, true)) for _ in range(2))
        found = change_by_class(Pairs([one], [two], Classification(n_classes=12)))
        n_found += any(row.verdict != "no measurable difference" for row in found.changes)
    assert n_found <= 10  # 5 % of 200, and an exact test keeps below


def test_a_class_that_isnt_there_is_left_out_and_one_of_one_example_shows_nothing():
    true = np.array([0, 0, 0, 2])
    pairs = Pairs([seen_of(true, true)], [seen_of(true, np.array([0, 0, 0, 1]))], Classification(("a", "b", "c")))
    found = {row.name: row for row in change_by_class(pairs).changes}
    assert list(found) == ["a", "c"]
    assert found["c"].n_lost == 1
    assert found["c"].verdict == "no measurable difference"


def test_labels_that_an_example_has_several_of_are_resampled_together():
    rng = np.random.default_rng(0)
    there = rng.random((500, 4)) < 0.4
    answers = []
    for miss in ([0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.45, 0.1]):
        said = there & (rng.random(there.shape) >= np.array(miss))
        answers.append(
            {"n_there": there, "n_said": said, "n_right": there & said, "right": (there == said).all(axis=1)}
        )
    pairs = Pairs([answers[0]], [answers[1]], MultiLabel(tuple("wxyz")), 0.95, 400)
    found = change_by_class(pairs)
    assert "max-T" in found.method
    verdicts = {row.name: row.verdict for row in found.changes}
    assert verdicts == {"w": verdicts["w"], "x": verdicts["x"], "y": "worse", "z": verdicts["z"]}
    assert list(verdicts.values()).count("worse") == 1
    for number, row in enumerate(found.changes):
        expected = [(a["n_right"][:, number].sum() / there[:, number].sum()) for a in answers]
        assert (row.dense, row.pruned) == pytest.approx(tuple(expected))


def test_a_task_without_classes_has_no_change_by_class():
    seen = {"nll": np.ones(3), "tokens_right": np.ones(3), "tokens": np.ones(3), "right": np.ones(3, bool)}
    assert change_by_class(Pairs([seen], [seen], Language())) is None


def test_a_group_that_was_harmed_is_found_by_accuracy_and_by_an_error():
    rng = np.random.default_rng(0)
    groups = rng.choice(["old", "young", "child"], 600).tolist()
    harmed = np.array(groups) == "old"
    true = rng.integers(0, 3, 600)
    dense = seen_of(true, true)
    wrong = rng.random(600) < np.where(harmed, 0.2, 0.01)
    pruned = seen_of(true, np.where(wrong, (true + 1) % 3, true))
    found = change_by_group(Pairs([dense], [pruned], Classification(tuple("abc"))), groups, "accuracy", by="age")
    assert {row.name for row in found.changes if row.verdict == "worse"} == {"old"}
    assert found.by == "age"

    task = Regression()
    target = rng.standard_normal((600, 1))
    near = target + 0.1 * rng.standard_normal((600, 1))
    far = near + np.where(harmed, 0.5, 0.0)[:, None]
    observed = [_regressed(task, target, answer) for answer in (near, far)]
    found = change_by_group(Pairs([observed[0]], [observed[1]], task, 0.95, 300), groups, "mae", by="age")
    assert {row.name for row in found.changes if row.verdict == "worse"} == {"old"}
    row = next(row for row in found.changes if row.name == "old")
    expected = np.abs(far - target)[harmed].mean() - np.abs(near - target)[harmed].mean()
    assert row.change.value == pytest.approx(expected, abs=1e-6)


def _regressed(task, target, answer):
    import torch

    from prunus.core.batch import Batch

    tensors = [torch.tensor(value, dtype=torch.float32) for value in (answer, target)]
    return task.observe(tensors[0], Batch(torch.arange(len(target)), None, tensors[1]))
