"""Every formula against torchmetrics and scikit-learn."""

import numpy as np
import pytest
import torch
from torchmetrics.functional import classification, regression

from evaluate_stand_ins import measure_quality
from prunus.core.errors import RecipeError, UnknownNameError
from prunus.report import format as words
from prunus.tasks import Moments, check_metrics, default_metrics, metric, metrics, metrics_of

CLASSES = 4
COUNTED = [name for name in metrics_of("classification") if metrics[name].totals is None]
"""Those of counts per class; test_tasks_ranking has the others."""


def logits_and_targets(seed=0, n=200, classes=CLASSES):
    draw = torch.Generator().manual_seed(seed)
    targets = torch.randint(classes, (n,), generator=draw)
    logits = torch.randn(n, classes, generator=draw) + 2 * torch.nn.functional.one_hot(targets, classes)
    return logits, targets


def oracle(name, logits, targets):
    what, _, average = name.partition("_")
    function = {
        "accuracy": classification.multiclass_accuracy,
        "precision": classification.multiclass_precision,
        "recall": classification.multiclass_recall,
        "f1": classification.multiclass_f1_score,
    }[what]
    return float(function(logits, targets, num_classes=CLASSES, average=average or "micro"))


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("seed", range(3))
def test_a_classification_metric_is_what_torchmetrics_says(name, seed):
    logits, targets = logits_and_targets(seed)
    found = measure_quality(logits, targets, task="classification", metrics=[name], bootstrap=100)
    assert found.value(name) == pytest.approx(oracle(name, logits, targets), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_a_regression_metric_is_what_torchmetrics_says(seed):
    draw = torch.Generator().manual_seed(seed)
    targets = 50 + 3 * torch.randn(80, generator=draw)
    outputs = (targets + torch.randn(80, generator=draw)).unsqueeze(1)
    found = measure_quality(outputs, targets, task="regression", bootstrap=100)
    assert found.value("mae") == pytest.approx(float(regression.mean_absolute_error(outputs[:, 0], targets)), rel=1e-5)
    squared = float(regression.mean_squared_error(outputs[:, 0], targets))
    assert found.value("rmse") == pytest.approx(squared**0.5, rel=1e-5)
    assert found.value("r2") == pytest.approx(float(regression.r2_score(outputs[:, 0], targets)), rel=1e-4)


@pytest.mark.parametrize(("predicted", "expected"), [([7.0, 7.0, 7.0], 1.0), ([7.0, 7.0, 8.0], 0.0)])
def test_r2_of_constant_targets_is_one_when_all_are_met_and_else_zero(predicted, expected):
    sklearn = pytest.importorskip("sklearn.metrics")
    targets = [7.0, 7.0, 7.0]
    found = measure_quality(
        torch.tensor(predicted), torch.tensor(targets), task="regression", metrics=["r2"], bootstrap=100
    )
    assert found.value("r2") == expected == sklearn.r2_score(targets, predicted)


def test_a_far_offset_of_the_targets_does_not_cost_r2_its_digits():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=100)
    outputs = targets + rng.normal(size=100) / 2
    near, far = (
        measure_quality(
            torch.tensor(outputs + shift), torch.tensor(targets + shift), task="regression", bootstrap=100
        ).value("r2")
        for shift in (0.0, 1e6)
    )
    assert far == pytest.approx(near, rel=1e-6)


def test_r2_does_not_depend_on_where_the_targets_are_counted_from():
    one = Moments(*(np.array([x]) for x in (0.0, 0.5, 0.0, 2.0)))
    other = one._replace(target=np.array([3.0]), square_target=np.array([11.0]))
    assert metrics["r2"].function(one) == metrics["r2"].function(other) == 0.75


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """What a test adds to the registry is gone after it."""
    monkeypatch.setattr(metrics, "_items", dict(metrics._items))


def test_a_new_metric_is_in_no_report_that_does_not_name_it():
    before = default_metrics("regression")
    metric("only_named", task="regression", higher_is_better=False, unit="target units")(lambda m: m.target)
    assert default_metrics("regression") == before
    assert "only_named" in metrics_of("regression")


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_one_metric_leads_a_task(task):
    assert [metrics[name].default for name in default_metrics(task)].count(0) == 1


def test_what_accuracy_is_stands_in_its_fields():
    """The exact test, Wilson's interval and the number of examples that a contract needs hang on a field, not on a name."""
    assert [name for name in metrics_of("classification") if metrics[name].exact_test] == ["accuracy"]


def test_a_metric_that_is_called_like_a_share_is_none():
    metric("recall_rank", task="regression", higher_is_better=False, label="rank")(lambda m: m.target)
    assert words.value("recall_rank", 3.25) == "3.25"
    assert words.called("recall_rank") == "rank"


def test_an_unknown_metric_names_the_near_one():
    with pytest.raises(UnknownNameError, match=r"got 'f1_makro'; did you mean 'f1_macro'\?"):
        check_metrics(["f1_makro"], "classification")


def test_a_metric_of_another_task_names_those_that_fit():
    with pytest.raises(RecipeError, match=r"'accuracy' measures classification, the data ask for regression.*mae"):
        check_metrics(["accuracy"], "regression")
