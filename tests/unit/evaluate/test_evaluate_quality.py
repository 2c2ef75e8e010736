import json

import numpy as np
import pytest
import torch

from evaluate_stand_ins import measure_quality
from prunus.core.errors import DataError
from prunus.core.types import Measurement
from prunus.evaluate import gap
from prunus.evaluate.quality import Quality, wilson

TASK = {"task": "classification", "bootstrap": 400}


def answers(*predicted, classes=3):
    return torch.nn.functional.one_hot(torch.tensor(predicted), classes).float()


def test_per_class_numbers_are_what_scikit_learn_says():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(3, size=(2, 90))
    quality = measure_quality(answers(*predicted.tolist()), torch.tensor(true), **TASK)
    expected = np.array(sklearn.precision_recall_fscore_support(true, predicted, labels=[0, 1, 2]))
    found = np.array([(c.precision.value, c.recall.value, c.f1.value, c.support) for c in quality.per_class]).T
    np.testing.assert_allclose(found, expected)
    assert np.array_equal(quality.confusion, sklearn.confusion_matrix(true, predicted))


def test_a_class_without_targets_counts_in_no_macro_average_and_has_no_recall():
    quality = measure_quality(answers(0, 0, 1, 2), torch.tensor([0, 0, 1, 1]), class_names=("a", "b", "c"), **TASK)
    assert quality.value("recall_macro") == pytest.approx((1.0 + 0.5) / 2)
    assert quality.per_class[2].support == 0
    assert np.isnan(quality.per_class[2].recall.value)
    assert quality.to_dict()["per_class"][2]["recall"]["value"] is None


def test_a_class_that_is_never_predicted_has_a_precision_of_zero():
    quality = measure_quality(answers(0, 0, 0), torch.tensor([0, 1, 0]), **TASK)
    assert quality.per_class[1].precision.value == 0.0
    assert (quality.per_class[1].precision.low, quality.per_class[1].precision.high) == (0.0, 1.0)


def test_wilson_is_what_its_quadratic_equation_says():
    """The limits solve (p - share)² = z² p (1 - p) / n."""
    for successes, n in [(0, 5), (3, 7), (7, 7), (440, 450)]:
        z = 1.959963984540054
        for limit in wilson(successes, n, 0.95):
            assert (limit - successes / n) ** 2 == pytest.approx(z * z * limit * (1 - limit) / n, abs=1e-12)


def test_accuracy_has_wilsons_interval_and_a_flawless_model_an_interval_with_a_width():
    quality = measure_quality(answers(*[0, 1, 2] * 20), torch.tensor([0, 1, 2] * 20), **TASK)
    for item in quality.metrics:
        assert item.value == 1.0
        assert item.low < 0.99
        assert item.high == 1.0
    accuracy = next(item for item in quality.metrics if item.name == "accuracy")
    assert (accuracy.low, accuracy.high) == wilson(60, 60, 0.95)
    assert all(c.f1.low < 0.95 and c.f1.high == 1.0 for c in quality.per_class)


def test_the_f1_of_a_class_has_the_interval_of_the_share_that_it_rises_with():
    """8 found, 1 missed, 2 wrongly named: F1 = 2 J / (1 + J) of the share J = 8 / 11."""
    true, predicted = [0] * 9 + [1] * 5, [0] * 8 + [1] + [0] * 2 + [1] * 3
    f1 = measure_quality(answers(*predicted), torch.tensor(true), **TASK).per_class[0].f1
    low, high = wilson(8, 11, 0.95)
    assert (f1.value, f1.low, f1.high) == pytest.approx((16 / 19, 2 * low / (1 + low), 2 * high / (1 + high)))


def test_more_confidence_makes_every_interval_wider():
    rng = np.random.default_rng(1)
    true, predicted = torch.tensor(rng.integers(3, size=80)), answers(*rng.integers(3, size=80).tolist())
    narrow, wide = (measure_quality(predicted, true, confidence=c, **TASK) for c in (0.8, 0.99))
    for one, other in zip(narrow.metrics, wide.metrics, strict=True):
        assert other.low < one.low < one.value < one.high < other.high


def test_the_macro_f1_interval_covers_the_truth_about_as_often_as_it_says():
    """Simulated: a model whose confusion probabilities, so whose true F1, are known."""
    rng = np.random.default_rng(0)
    chances = np.array([[0.8, 0.15, 0.05], [0.1, 0.85, 0.05], [0.2, 0.1, 0.7]])
    shares = np.array([0.5, 0.3, 0.2])
    joint = shares[:, None] * chances
    truth = np.mean(2 * np.diag(joint) / (joint.sum(axis=1) + joint.sum(axis=0)))
    covered = 0
    for trial in range(200):
        cells = rng.choice(9, size=120, p=joint.ravel())
        quality = measure_quality(
            answers(*(cells % 3).tolist()),
            torch.tensor(cells // 3),
            task="classification",
            metrics=["f1_macro"],
            bootstrap=200,
            seed=trial,
        )
        covered += quality.metrics[0].low <= truth <= quality.metrics[0].high
    assert 0.90 <= covered / 200 <= 0.99


def test_a_regression_interval_holds_its_value_and_shrinks_with_the_examples():
    rng = np.random.default_rng(2)
    widths = []
    for n in (40, 4000):
        targets = torch.tensor(rng.normal(size=n))
        quality = measure_quality(targets + torch.tensor(rng.normal(size=n)), targets, task="regression", bootstrap=200)
        assert all(item.low <= item.value <= item.high for item in quality.metrics)
        widths.append(quality.metrics[1].high - quality.metrics[1].low)
    assert widths[0] / widths[1] == pytest.approx(10, rel=0.5)


def test_the_gap_is_train_minus_test_and_is_surer_with_more_examples():
    rng = np.random.default_rng(3)

    def of(n, chance):
        right = rng.random(n) < chance
        return measure_quality(answers(*np.where(right, 0, 1).tolist()), torch.zeros(n, dtype=torch.long), **TASK)

    small, large = gap(of(100, 1.0), of(100, 0.8)), gap(of(10000, 1.0), of(10000, 0.8))
    for item in (small[0], large[0]):
        assert item.name == "accuracy"
        assert item.low < 0.2 < item.high
    assert large[0].high - large[0].low < small[0].high - small[0].low


def test_the_gap_is_least_where_train_is_low_and_test_is_high():
    def of(low, high):
        return Quality((Measurement("accuracy", 0.8, low, high),), (), None, 10)

    (item,) = gap(of(0.8 - 0.03, 0.8 + 0.12), of(0.8 - 0.05, 0.8 + 0.04))
    assert (item.value, item.low, item.high) == pytest.approx((0.0, -0.05, 0.13))


def test_a_thousand_classes_and_many_examples_need_little_memory():
    rng = np.random.default_rng(4)
    true = rng.integers(300, size=3000)
    outputs = torch.tensor(rng.normal(size=(3000, 300)), dtype=torch.float32)
    quality = measure_quality(outputs, torch.tensor(true), task="classification", metrics=["f1_macro"], bootstrap=300)
    assert quality.metrics[0].low <= quality.metrics[0].value <= quality.metrics[0].high


def test_it_goes_through_json_and_the_same_seed_gives_the_same_numbers():
    true, predicted = torch.tensor([0, 1, 2, 0]), answers(0, 1, 1, 0)
    one, other = (measure_quality(predicted, true, seed=7, **TASK).to_dict() for _ in range(2))
    assert json.loads(json.dumps(one, allow_nan=False)) == one == other


def test_no_examples_are_refused():
    with pytest.raises(DataError, match="at least one example: got an empty set"):
        measure_quality(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), **TASK)
