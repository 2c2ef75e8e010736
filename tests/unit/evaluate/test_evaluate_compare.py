import json

import numpy as np
import pytest
import torch

from evaluate_stand_ins import class_changes, compare
from prunus.core.errors import DataError, RecipeError
from prunus.evaluate.student import student_quantile

SETTINGS = {"task": "classification", "class_names": ("no", "yes"), "metrics": ("accuracy",), "bootstrap": 400}


def answers(right, targets):
    """Return logits that hit the target where ``right``."""
    return torch.nn.functional.one_hot(torch.where(torch.as_tensor(right), targets, 1 - targets), 2).float()


def paired(only_dense, only_pruned, both, *, seeds=1):
    """Return a comparison on examples of which so many only one model gets right."""
    n = only_dense + only_pruned + both
    targets = torch.arange(n) % 2
    number = torch.arange(n)
    dense, pruned = number >= only_pruned, (number < only_pruned) | (number >= only_pruned + only_dense)
    return compare([answers(dense, targets)] * seeds, [answers(pruned, targets)] * seeds, targets, **SETTINGS)[0]


def test_the_difference_is_pruned_minus_dense():
    row = paired(6, 1, 93)
    assert (row.dense, row.pruned) == (0.99, 0.94)
    assert row.difference.value == pytest.approx(-0.05)
    assert row.difference.low < -0.05 < row.difference.high


@pytest.mark.parametrize(
    ("only_dense", "only_pruned", "verdict"),
    [
        (0, 0, "no measurable difference"),
        (4, 0, "no measurable difference"),  # McNemar's exact p is 0.125
        (10, 0, "worse"),  # 0.002
        (0, 10, "better"),
        (12, 8, "no measurable difference"),  # 0.5
        (40, 8, "worse"),  # 2e-6
    ],
)
def test_the_verdict_is_that_of_mcnemars_exact_test(only_dense, only_pruned, verdict):
    assert paired(only_dense, only_pruned, 400).verdict == verdict


def test_the_interval_is_bonett_and_prices_for_paired_proportions():
    n, b, c = 300, 9, 3
    row = paired(b, c, n - b - c)
    low_share, high_share = (c + 1) / (n + 2), (b + 1) / (n + 2)
    middle = low_share - high_share
    half = 1.96 * np.sqrt((low_share + high_share - middle**2) / (n + 2))
    assert row.difference.low == pytest.approx(middle - half, abs=0.006)
    assert row.difference.high == pytest.approx(middle + half, abs=0.006)


def test_two_models_that_never_differed_may_yet_differ():
    row = paired(0, 0, 50)
    assert row.difference.value == 0
    assert row.difference.low < 0 < row.difference.high


def test_an_error_that_grew_is_worse():
    rng = np.random.default_rng(0)
    targets = torch.tensor(rng.normal(size=200))
    dense, pruned = (targets + torch.tensor(scale * rng.normal(size=200)) for scale in (0.1, 1.0))
    rows = compare([dense], [pruned], targets, task="regression", metrics=("mae", "r2", "rmse"), bootstrap=200)
    assert [row.verdict for row in rows] == ["worse"] * 3
    assert [np.sign(row.difference.value) for row in rows] == [1, -1, 1]


def test_seeds_that_disagree_widen_the_interval_and_their_deviation_is_told():
    rng = np.random.default_rng(0)
    targets = torch.tensor(rng.integers(2, size=2000))
    dense = [answers(rng.random(2000) < 0.9, targets) for _ in range(3)]
    alike = [answers(rng.random(2000) < 0.88, targets) for _ in range(3)]
    apart = [answers(rng.random(2000) < share, targets) for share in (0.94, 0.88, 0.82)]
    one, other = (compare(dense, pruned, targets, **SETTINGS)[0] for pruned in (alike, apart))
    assert one.verdict == "worse"
    assert other.verdict == "no measurable difference"
    assert other.difference.high - other.difference.low > 5 * (one.difference.high - one.difference.low)
    assert other.pruned_deviation == pytest.approx(0.06, abs=0.01)
    assert one.dense_deviation is not None


def test_two_seeds_have_the_deviation_of_two_numbers():
    targets = torch.arange(100) % 2
    models = [answers(torch.arange(100) >= wrong, targets) for wrong in (10, 20, 30, 60)]
    row = compare(models[:2], models[2:], targets, **SETTINGS)[0]
    assert row.dense_deviation == pytest.approx(0.1 / np.sqrt(2))
    assert row.pruned_deviation == pytest.approx(0.3 / np.sqrt(2))


def test_one_seed_has_no_deviation_and_says_what_it_cannot_say():
    row = paired(1, 1, 98)
    assert (row.n_seeds, row.dense_deviation, row.pruned_deviation) == (1, None, None)
    assert "one seed" in row.method


def test_a_class_has_its_own_change_and_one_without_examples_has_none():
    targets = torch.tensor([0] * 40 + [1] * 40)
    dense = torch.nn.functional.one_hot(targets, 3).float()
    pruned = torch.nn.functional.one_hot(torch.where(torch.arange(80) < 20, 1, targets), 3).float()
    changes = class_changes([dense], [pruned], targets, class_names=("a", "b", "c"), bootstrap=200)
    assert [item.name for item in changes] == ["a", "b"]
    assert changes[0].value == -0.5
    assert changes[0].high < 0
    assert changes[1].value == 0
    assert changes[1].low < 0 < changes[1].high


def test_a_class_of_one_example_has_a_wide_interval_not_none():
    targets = torch.tensor([0] * 50 + [1])
    outputs = torch.nn.functional.one_hot(targets, 2).float()
    changes = class_changes([outputs], [outputs], targets, class_names=("a", "b"), bootstrap=300)
    assert changes[1].high - changes[1].low > 1.0


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 30])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_students_quantile_is_what_scipy_says(degrees, confidence):
    stats = pytest.importorskip("scipy.stats")
    assert student_quantile(confidence, degrees) == pytest.approx(stats.t.ppf((1 + confidence) / 2, degrees))


def test_a_dense_model_without_its_pruned_one_is_refused():
    outputs = torch.eye(2)
    with pytest.raises(DataError, match=r"one dense and one pruned model per seed: got 2 and 1"):
        compare([outputs] * 2, [outputs], torch.tensor([0, 1]), **SETTINGS)


def test_a_metric_that_does_not_fit_is_refused():
    with pytest.raises(RecipeError, match="measures regression"):
        compare([torch.eye(2)], [torch.eye(2)], torch.tensor([0, 1]), **{**SETTINGS, "metrics": ("mae",)})


def test_it_goes_through_json():
    facts = paired(3, 2, 95).to_dict()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
