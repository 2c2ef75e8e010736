"""Intervals of differences over seeds by their formula, and resamples by what they are made of."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
import torch

from evaluate_stand_ins import class_changes, compare, measure_quality, noninferiority, seen
from prunus.core.types import Measurement
from prunus.evaluate import resample as module
from prunus.evaluate.compare import _comparison, _interval
from prunus.evaluate.quality import wilson
from prunus.evaluate.resample import interval, resample
from prunus.evaluate.student import student_quantile
from prunus.tasks import Classification, Regression, default_metrics, measured, metrics, metrics_of
from prunus.tasks.counts import tally


def constant(*per_seed: float, resamples: int = 7) -> np.ndarray:
    """Differences that no resample changes, ``(seeds, 1 + resamples)``."""
    return np.repeat(np.array(per_seed)[:, None], 1 + resamples, axis=1)


def test_where_examples_leave_no_doubt_seeds_have_students_interval():
    stats = pytest.importorskip("scipy.stats")
    for values in ((0.1, 0.3), (0.1, 0.3, 0.2), (-1.0, 2.0, 0.5, 4.0)):
        value, low, high = _interval(constant(*values), 0.9)
        expected = stats.t.interval(0.9, len(values) - 1, np.mean(values), stats.sem(values))
        assert (value, low, high) == pytest.approx((np.mean(values), *expected))


def test_what_examples_alone_scatter_is_taken_off_the_scatter_of_seeds():
    resampled = np.array([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]])  # of each seed alone: variance 2 of two
    half = student_quantile(0.95, 1) * np.sqrt((8.0 - 2.0) / 2)
    assert _interval(np.c_[[0.0, 4.0], 2 + resampled], 0.95) == pytest.approx((2.0, 2 - half, 2 + half))
    assert _interval(np.c_[[1.9, 2.1], 2 + resampled], 0.95) == pytest.approx((2.0, 2.0, 2.0))


def test_one_seed_has_the_percentiles_and_a_resample_that_says_nothing_is_left_out():
    row = np.array([[0.5, 0.0, np.nan, 1.0, np.inf, 0.25]])
    assert _interval(row, 0.5) == pytest.approx((0.5, 0.125, 0.625))
    assert _interval(np.array([[2.0, 0.0, 1.0]]), 0.5) == (2.0, 0.25, 2.0), "an interval holds its value"
    assert _interval(np.array([[-2.0, 0.0, 1.0]]), 0.5) == (-2.0, -2.0, 0.75)


@pytest.mark.parametrize(
    ("change", "metric", "verdict"),
    [
        (0.0, "accuracy", "no measurable difference"),
        (0.1, "accuracy", "better"),
        (-0.1, "accuracy", "worse"),
        (0.1, "mae", "worse"),
        (-0.1, "mae", "better"),
    ],
)
def test_the_verdict_is_that_of_the_whole_interval(change, metric, verdict):
    dense = constant(0.5, 0.5)
    row = _comparison(metrics[metric], dense, dense + change, 0.95, "so")
    assert (row.verdict, row.method, row.n_seeds, row.metric) == (verdict, "so", 2, metric)
    assert (row.dense, row.pruned, row.difference.value) == pytest.approx((0.5, 0.5 + change, change))
    assert (row.dense_deviation, row.pruned_deviation) == (0.0, pytest.approx(0.0))
    assert row.difference.higher_is_better == metrics[metric].higher_is_better
    assert (row.difference.name, row.difference.unit) == (metric, metrics[metric].unit)
    uneven = constant(*([0.2] * 5), resamples=4)
    uneven[:, 1] = -1.0
    doubt = _comparison(metrics[metric], 0 * uneven, uneven, 0.95, "")
    assert doubt.verdict == "no measurable difference"


@pytest.mark.parametrize("confidence", [0.5, 0.9])
def test_percentiles_leave_half_of_the_rest_on_each_side(confidence):
    values = np.linspace(0, 1, 1001)
    assert interval(values, confidence) == pytest.approx(((1 - confidence) / 2, (1 + confidence) / 2))


@pytest.mark.parametrize("block", [1, 5, 40, 10**6])
def test_resamples_come_in_blocks_and_none_is_missing(monkeypatch, block):
    monkeypatch.setattr(module, "_BLOCK", block)
    sizes = []

    def weights(seen, times):
        parts = tally(seen["true"], seen["predicted"], 2, times)
        sizes.append(len(parts.support))
        return np.stack([parts.support.sum(axis=1), parts.right.sum(axis=1)], axis=1)

    true, one, other = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0]), np.array([0, 0, 1, 1, 1])
    found = resample(
        [{"true": true, "predicted": said} for said in (one, other)],
        weights,
        reads=("true", "predicted"),
        resamples=17,
        seed=5,
    )
    assert found.shape == (2, 18, 2)
    assert (found[:, :, 0] == 5).all(), "as many examples are drawn as there are"
    assert found[:, 0, 1].tolist() == [3, 5]
    assert (found[1, :, 1] == 5).all()
    assert len(set(found[0, 1:, 1])) > 1
    patterns = 4  # of class 0: right, wrong; of class 1: right, wrong
    assert max(sizes) == min(17, max(1, block // patterns))


def test_imagined_examples_are_drawn_and_are_not_in_the_plain_numbers():
    true, right = np.array([0] * 30 + [1] * 10), np.array([0] * 30 + [1] * 10)
    task, observed = Classification(n_classes=2), {"true": true, "predicted": right}
    made = task.imagine(observed)
    found = resample(
        [observed],
        lambda seen, times: np.concatenate(task.totals(seen, times), axis=1),
        reads=task.reads,
        imagined=([(True,), (False,)], made, 4 * made.shares),
        resamples=4000,
        seed=1,
    )[0]
    assert found[0].tolist() == [30, 10, 30, 10, 30, 10]
    mean = found[1:].mean(axis=0)
    # 40 seen and 8 imagined of which half are right; a wrong answer names the next class.
    assert mean == pytest.approx([33, 11, 36, 12, 34, 14], rel=0.02)


def test_errors_are_resampled_by_their_moments():
    rng = np.random.default_rng(0)
    targets, predicted = rng.normal(size=50), rng.normal(size=50)
    names, task = metrics_of("regression"), Regression()
    observed = seen(task, torch.tensor(predicted), torch.tensor(targets))
    found = resample(
        [observed], lambda one, times: measured(task, names, one, times), reads=task.reads, resamples=3000, seed=2
    )[0]
    error = predicted - targets
    plain = dict(zip(names, found[0], strict=True))
    assert plain["mae"] == pytest.approx(np.abs(error).mean())
    assert plain["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert plain["r2"] == pytest.approx(1 - (error**2).mean() / targets.var())
    at = names.index("mae")
    assert found[1:, at].std() == pytest.approx(np.abs(error).std() / np.sqrt(50), rel=0.06)


def test_a_class_that_only_its_name_shows_is_a_row_of_the_table():
    outputs, targets = torch.eye(2)[[0, 1, 1]], torch.tensor([0, 1, 0])
    named = measure_quality(outputs, targets, task="classification", class_names=("a", "b", "c"), bootstrap=20)
    assert [c.name for c in named.per_class] == ["a", "b", "c"]
    assert named.confusion == ((1, 1, 0), (0, 1, 0), (0, 0, 0))
    unnamed = measure_quality(torch.eye(3)[[0, 1, 1]], targets, task="classification", class_names=("a",), bootstrap=20)
    assert [c.name for c in unnamed.per_class] == ["a", "1", "2"]
    assert [m.name for m in unnamed.metrics] == list(default_metrics("classification"))
    assert str(unnamed).startswith("3 examples: ")
    assert unnamed.n == 3
    changes = class_changes([outputs], [outputs], targets, class_names=("a", "b", "c"), bootstrap=20)
    assert [(c.name, c.value, c.higher_is_better) for c in changes] == [("a", 0.0, True), ("b", 0.0, True)]


def test_each_part_of_a_class_has_the_interval_of_its_own_count():
    """Class 0: 3 examples, 2 found, 4 named so."""
    true, predicted = torch.tensor([0, 0, 0, 1, 1, 1, 1]), [0, 0, 1, 0, 0, 1, 1]
    quality = measure_quality(torch.eye(2)[predicted], true, task="classification", bootstrap=20, confidence=0.8)
    part = quality.per_class[0]
    assert (part.recall.low, part.recall.high) == pytest.approx(wilson(2, 3, 0.8))
    assert (part.precision.low, part.precision.high) == pytest.approx(wilson(2, 4, 0.8))
    low, high = wilson(2, 5, 0.8)
    assert (part.f1.low, part.f1.high) == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))
    assert (part.support, part.recall.higher_is_better, part.recall.name) == (3, True, "recall")
    accuracy = next(m for m in quality.metrics if m.name == "accuracy")
    assert (accuracy.low, accuracy.high) == pytest.approx(wilson(4, 7, 0.8))
    assert wilson(0, 0, 0.9) == (0.0, 1.0)


def test_regression_has_no_classes_and_its_default_metrics():
    quality = measure_quality(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]), task="regression", bootstrap=20)
    assert (quality.per_class, quality.confusion, quality.n) == ((), None, 2)
    assert isinstance(quality.metrics[0], Measurement)
    assert quality.to_dict()["confusion"] is None
    assert [item.higher_is_better for item in quality.metrics] == [True, False, False]


def test_comparing_by_more_confidence_and_other_seeds_of_the_draw():
    draw = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 2, (200,), generator=draw)
    dense, pruned = (torch.randn(200, 2, generator=draw) + torch.eye(2)[targets] for _ in range(2))
    options = {"task": "classification", "metrics": ("accuracy",), "bootstrap": 300}
    (narrow,), (wide,), (same,), (other,) = (
        compare([dense], [pruned], targets, **options, confidence=c, seed=s)
        for c, s in ((0.5, 0), (0.99, 0), (0.5, 0), (0.5, 1))
    )
    assert wide.difference.low < narrow.difference.low < narrow.difference.high < wide.difference.high
    assert same == narrow
    assert other != narrow


def drawn(n=120):
    draw = torch.Generator().manual_seed(3)
    targets = torch.randint(0, 2, (n,), generator=draw)
    return targets, *(torch.randn(n, 2, generator=draw) + torch.eye(2)[targets] for _ in range(2))


def test_who_says_nothing_gets_95_percent_of_a_thousand_resamples_by_the_first_seed():
    """As the recipe's defaults are; docs/reference says so."""
    targets, dense, pruned = drawn()
    said = {"confidence": 0.95, "bootstrap": 1000, "seed": 0}
    one = {"task": "classification", "metrics": ("f1_macro", "accuracy")}
    assert compare([dense], [pruned], targets, **one) == compare([dense], [pruned], targets, **one, **said)
    assert measure_quality(dense, targets, **one) == measure_quality(dense, targets, **one, **said)
    names = {"class_names": ("a", "b")}
    assert class_changes([dense], [pruned], targets, **names) == class_changes(
        [dense], [pruned], targets, **names, **said
    )
    contract = {"metric": "f1_macro", "max_drop": 0.1, "confidence": 0.9, "task": "classification"}
    assert noninferiority(dense, pruned, targets, **contract) == noninferiority(
        dense, pruned, targets, **contract, bootstrap=1000, seed=0
    )


def test_an_exact_metric_is_not_resampled_and_an_average_over_classes_is():
    targets, dense, _ = drawn()
    accuracy, f1 = measure_quality(dense, targets, task="classification", metrics=("accuracy", "f1_macro")).metrics
    again = measure_quality(dense, targets, task="classification", metrics=("accuracy", "f1_macro"), seed=5).metrics
    assert again[0] == accuracy
    assert again[1] != f1
    right = float((dense.argmax(1) == targets).sum())
    assert (accuracy.value, accuracy.low, accuracy.high) == pytest.approx((right / 120, *wilson(right, 120, 0.95)))


def test_a_bias_of_resamples_is_taken_back_twice_and_none_changes_nothing():
    """What resamples are off the value, the value is off the truth."""
    resampled = np.array([NormalDist(10, 2).inv_cdf((place + 0.5) / 4000) for place in range(4000)])
    for bias in (-1.0, 0.0, 0.5):
        low, high = interval(resampled + bias, 0.95, value=10.0)
        assert (low, high) == pytest.approx((10 - bias - 3.92, 10 - bias + 3.92), abs=0.1)
    assert interval(resampled, 0.95, value=10.0) == pytest.approx(interval(resampled, 0.95), abs=1e-2)
    assert interval([1.0] * 50, 0.95, value=1.0) == (1.0, 1.0)
    low, high = interval(resampled, 0.95, value=99.0)
    assert np.isfinite([low, high]).all()
