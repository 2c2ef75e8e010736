"""The laws of measuring: what must not matter does not, and an interval covers as often as it says."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate_stand_ins import compare, measure_quality
from prunus.evaluate.quality import wilson
from prunus.evaluate.resample import resample
from prunus.tasks import Classification, Tally, measured, metrics, metrics_of
from prunus.tasks.counts import tally
from tests_support import public_dataclasses

COMMON = settings(deadline=None, derandomize=True, max_examples=40)
CLASSIFICATION = [name for name in metrics_of("classification") if metrics[name].totals is None]


@st.composite
def answers(draw, models=1):
    """Draw classes, targets and the predicted classes of some models."""
    classes, n = draw(st.integers(2, 5)), draw(st.integers(1, 30))
    numbers = st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)
    return classes, *(np.array(draw(numbers)) for _ in range(models + 1))


def logits(predicted, classes):
    return torch.nn.functional.one_hot(torch.tensor(predicted), classes).double()


@COMMON
@given(answers(), st.randoms(use_true_random=False))
def test_the_order_of_the_examples_does_not_matter(drawn, random):
    classes, true, predicted = drawn
    order = np.array(random.sample(range(len(true)), len(true)))
    one, other = (
        measure_quality(logits(p, classes), torch.tensor(t), task="classification", bootstrap=100)
        for p, t in ((predicted, true), (predicted[order], true[order]))
    )
    assert one.to_dict() == other.to_dict()


@COMMON
@given(answers(), st.randoms(use_true_random=False))
def test_the_names_of_the_classes_do_not_matter(drawn, random):
    classes, true, predicted = drawn
    names = np.array(random.sample(range(classes), classes))
    one, other = (
        tally(t, p, classes, np.ones((1, len(true)))) for p, t in ((predicted, true), (names[predicted], names[true]))
    )
    for name in CLASSIFICATION:
        np.testing.assert_allclose(metrics[name].function(one), metrics[name].function(other))


@COMMON
@given(answers())
def test_every_metric_is_a_share_that_its_interval_holds_and_is_one_only_of_no_errors(drawn):
    classes, true, predicted = drawn
    quality = measure_quality(logits(predicted, classes), torch.tensor(true), task="classification", bootstrap=100)
    for item in quality.metrics:
        assert 0 <= item.low <= item.value <= item.high <= 1
    for of_class in quality.per_class:
        for item in (of_class.precision, of_class.recall, of_class.f1):
            assert of_class.support == 0 or 0 <= item.low <= item.value + 1e-12 <= item.high + 2e-12 <= 1 + 3e-12
    assert (quality.value("accuracy") == 1) == bool((true == predicted).all()) == (quality.value("recall_macro") == 1)


@COMMON
@given(answers())
def test_weighted_recall_is_accuracy(drawn):
    """An identity of the two formulas."""
    classes, true, predicted = drawn
    quality = measure_quality(logits(predicted, classes), torch.tensor(true), task="classification", bootstrap=100)
    assert quality.value("recall_weighted") == pytest.approx(quality.value("accuracy"))


@COMMON
@given(answers(), st.data())
def test_a_weight_of_k_is_an_example_seen_k_times(drawn, data):
    classes, true, predicted = drawn
    weights = np.array(data.draw(st.lists(st.integers(0, 4), min_size=len(true), max_size=len(true))))
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (true.repeat(weights), predicted.repeat(weights)), 1)
    found = tally(true, predicted, classes, weights[None])
    expected = Tally(np.diag(counts), counts.sum(axis=1), counts.sum(axis=0))
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one[0], other)


@COMMON
@given(answers(models=3))
def test_drawing_patterns_is_drawing_examples(drawn):
    """Without imagined examples, the mean of the resampled accuracy is the accuracy, and its variance p (1 - p) / n."""
    classes, true, *predictions = drawn
    task = Classification(n_classes=classes)
    found = resample(
        [{"true": true, "predicted": predicted} for predicted in predictions],
        lambda seen, weights: measured(task, ["accuracy"], seen, weights),
        reads=task.reads,
        resamples=2000,
        seed=0,
    )
    for values, predicted in zip(found[:, :, 0], predictions, strict=True):
        share = float((predicted == true).mean())
        assert values[0] == pytest.approx(share)
        deviation = np.sqrt(share * (1 - share) / len(true))
        assert values[1:].mean() == pytest.approx(share, abs=0.12 * deviation + 1e-9)
        assert values[1:].std() == pytest.approx(deviation, rel=0.15, abs=1e-9)


@COMMON
@given(answers(models=2))
def test_the_comparison_turned_round_is_the_opposite(drawn):
    """The value exactly; the interval up to the drawing and its steps of one example."""
    classes, true, one, other = drawn
    settings_ = {"task": "classification", "metrics": ("accuracy",), "bootstrap": 1000}
    outputs = [logits(one, classes)], [logits(other, classes)]
    there, back = (compare(*pair, torch.tensor(true), **settings_)[0] for pair in (outputs, outputs[::-1]))
    assert there.difference.value == pytest.approx(-back.difference.value)
    width = there.difference.high - there.difference.low
    assert there.difference.low == pytest.approx(-back.difference.high, abs=0.15 * width + 1.5 / len(true))


@COMMON
@given(st.integers(1, 60), st.data())
def test_wilson_holds_its_share_and_mirrors(n, data):
    successes = data.draw(st.integers(0, n))
    low, high = wilson(successes, n, 0.95)
    assert 0 <= low <= successes / n <= high + 1e-12
    mirrored = wilson(n - successes, n, 0.95)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high))


def simulated(rng, seeds, n, spread, difficulty, change=-0.05):
    """Return both models' answers; examples are hard for both, seeds vary in how much worse the pruned model is."""
    targets = torch.zeros(n, dtype=torch.long)
    hard = rng.random(n) < difficulty
    dense, pruned = [], []
    for _ in range(seeds):
        right = np.where(hard, 0.3, 0.98)
        seen = rng.random(n) < right
        drop = np.clip(-change + spread * rng.normal(), -1, 1)
        dense.append(logits(np.where(seen, 0, 1), 2))
        pruned.append(logits(np.where(seen & (rng.random(n) >= drop / 0.7), 0, 1), 2))
    return dense, pruned, targets


def test_pairing_beats_comparing_two_groups():
    rng = np.random.default_rng(0)
    dense, pruned, targets = simulated(rng, 1, 400, 0.0, 0.4)
    row = compare(dense, pruned, targets, task="classification", metrics=("accuracy",))[0]
    apart = [
        measure_quality(o[0], targets, task="classification", metrics=("accuracy",)).metrics[0] for o in (dense, pruned)
    ]
    unpaired = np.hypot(*((item.high - item.low) for item in apart))
    assert row.difference.high - row.difference.low < 0.6 * unpaired


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.0), (3, 0.05), (5, 0.02)])
def test_the_interval_covers_the_true_difference_about_as_often_as_it_says(seeds, spread):
    """The expected drop is known: the share that the dense model gets right, times the chance of losing it."""
    covered, trials, settings_ = 0, 150, {"task": "classification", "metrics": ("accuracy",), "bootstrap": 200}
    expected = -0.05 / 0.7 * (0.4 * 0.3 + 0.6 * 0.98)
    for trial in range(trials):
        drawn = simulated(np.random.default_rng((seeds, trial)), seeds, 300, spread, 0.4)
        row = compare(*drawn, **settings_, seed=trial)[0]
        covered += row.difference.low <= expected <= row.difference.high
    assert covered / trials >= 0.89


def test_what_is_handed_out_can_not_be_changed_by_one_who_has_it_behind_the_back_of_another():
    shown = list(public_dataclasses("prunus.evaluate"))
    assert len(shown) >= 5
    assert [kind.__name__ for kind in shown if not kind.__dataclass_params__.frozen] == []
