"""AUROC, average precision and log loss: against torchmetrics and scikit-learn, with ties and with classes that lack."""

import numpy as np
import pytest
import torch
from torchmetrics.functional import classification

from prunus.core.errors import RecipeError
from prunus.evaluate import measure_quality
from prunus.tasks import Classification
from prunus.tasks.classification import RANKED_CLASSES
from task_samples import batch_of, value_of


def drawn(seed, classes, n=70):
    draw = torch.Generator().manual_seed(seed)
    targets = torch.randint(classes, (n,), generator=draw)
    logits = torch.randn(n, classes, generator=draw) + torch.nn.functional.one_hot(targets, classes)
    return logits.mul(2).round().div(2), targets


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [3, 5])
def test_of_several_classes_each_is_ranked_against_the_rest(seed, classes):
    logits, targets = drawn(seed, classes)
    task, batch = Classification(), batch_of(targets)
    # In the order of the probabilities, with ties where only rounding tells them apart.
    probabilities = 1 / (1 - logits.double().log_softmax(dim=1).float().double())
    options = {"num_classes": classes, "average": "macro"}
    assert value_of(task, "auroc", logits, batch) == pytest.approx(
        float(classification.multiclass_auroc(probabilities, targets, **options)), abs=1e-6
    )
    assert value_of(task, "average_precision", logits, batch) == pytest.approx(
        float(classification.multiclass_average_precision(probabilities, targets, **options)), abs=1e-6
    )


@pytest.mark.parametrize("seed", range(3))
def test_of_two_classes_the_second_is_ranked_by_one_logit_or_two(seed):
    logits, targets = drawn(seed, 2)
    single = logits[:, 1] - logits[:, 0]
    named = Classification(("no", "yes"))
    for name, oracle in (
        ("auroc", classification.binary_auroc),
        ("average_precision", classification.binary_average_precision),
    ):
        expected = float(oracle(single, targets))
        assert value_of(named, name, logits, batch_of(targets)) == pytest.approx(expected, abs=1e-6)
        assert value_of(named, name, single[:, None], batch_of(targets)) == pytest.approx(expected, abs=1e-6)


def test_a_confident_model_is_ranked_beyond_what_a_probability_can_hold():
    targets = torch.tensor([0, 1, 0, 1])
    logits = torch.tensor([[0.0, 80.0], [0.0, 100.0], [0.0, 60.0], [0.0, 90.0]])
    assert value_of(Classification(("no", "yes")), "auroc", logits, batch_of(targets)) == 1.0


def test_scores_that_all_tie_rank_nothing():
    targets = torch.tensor([0, 1, 0, 1, 1])
    task, batch = Classification(("no", "yes")), batch_of(targets)
    assert value_of(task, "auroc", torch.zeros(5, 2), batch) == pytest.approx(0.5)
    assert value_of(task, "average_precision", torch.zeros(5, 2), batch) == pytest.approx(3 / 5)


def test_a_class_that_no_example_has_counts_in_no_mean():
    logits, targets = drawn(0, 4)
    there = targets != 2
    logits, targets = logits[there], targets[there]
    task, batch = Classification(), batch_of(targets)
    probabilities = logits.double().softmax(dim=1)
    each = [float(classification.binary_auroc(probabilities[:, c], (targets == c).long())) for c in (0, 1, 3)]
    assert value_of(task, "auroc", logits, batch) == pytest.approx(np.mean(each), abs=1e-6)


def test_where_all_examples_are_of_one_class_nothing_is_ranked():
    task, batch = Classification(("no", "yes")), batch_of(torch.ones(4, dtype=torch.int64))
    assert value_of(task, "auroc", torch.randn(4, 2), batch) == 0.5
    assert value_of(task, "average_precision", torch.randn(4, 2), batch) == pytest.approx(1.0)


@pytest.mark.parametrize("classes", [2, 5])
def test_log_loss_is_that_of_scikit_learn(classes):
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, targets = drawn(1, classes)
    expected = sklearn.log_loss(targets.numpy(), logits.double().softmax(dim=1).numpy(), labels=list(range(classes)))
    assert value_of(Classification(), "log_loss", logits, batch_of(targets)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["auroc", "average_precision", "log_loss"])
def test_an_interval_holds_the_value_and_has_a_width_even_where_no_answer_is_wrong(name):
    targets = torch.arange(30) % 3
    logits = 5.0 * torch.nn.functional.one_hot(targets, 3)
    task = Classification(n_classes=3)
    seen = task.observe(logits, batch_of(targets))
    (item,) = measure_quality(seen, task, metrics=[name], bootstrap=300).metrics
    assert item.low <= item.value <= item.high
    assert item.high > item.low


def test_a_resample_of_the_ranking_is_the_ranking_of_the_resample():
    logits, targets = drawn(3, 3)
    task = Classification(n_classes=3)
    seen = task.observe(logits, batch_of(targets))
    found = measure_quality(seen, task, metrics=["auroc"], bootstrap=500).metrics[0]
    rng, probabilities, means = np.random.default_rng(0), logits.double().softmax(dim=1), []
    for _ in range(300):
        rows = torch.from_numpy(rng.integers(0, len(targets), len(targets)))
        means.append(
            float(classification.multiclass_auroc(probabilities[rows], targets[rows], num_classes=3, average="macro"))
        )
    low, high = np.quantile(means, [0.025, 0.975])
    # The four imagined examples of prunus move the ends by about one in seventy.
    assert found.low == pytest.approx(low, abs=0.03)
    assert found.high == pytest.approx(high, abs=0.03)


def test_of_very_many_classes_no_scores_are_kept():
    targets = torch.arange(RANKED_CLASSES + 1)
    logits = torch.eye(RANKED_CLASSES + 1)
    task = Classification()
    assert task.observe(logits, batch_of(targets))["scores"].shape[1] == 0
    with pytest.raises(RecipeError, match="at most 100 classes"):
        value_of(task, "auroc", logits, batch_of(targets))
    assert value_of(task, "log_loss", logits, batch_of(targets)) > 0
