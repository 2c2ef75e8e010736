"""A drop that is as large as the margin is taken for smaller no more often than the confidence allows."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
import torch

from evaluate_stand_ins import noninferiority
from prunus import evaluate
from prunus.core.batch import Batch
from prunus.core.errors import DataError, UnknownNameError
from prunus.evaluate import examples_needed, promises
from prunus.evaluate.noninferiority import accuracy_bound, no_worse_accuracy, tango_z
from prunus.tasks import MultiLabel, Regression

N, MARGIN = 300, 0.02


def answers(right):
    """Return outputs whose predicted class is 0 where right, and 1 elsewhere."""
    return torch.stack([torch.tensor(right, dtype=torch.float32), torch.full((len(right),), 0.5)], dim=1)


def judged(lost, gained, n=N, **settings):
    dense, pruned = np.ones(n), np.ones(n)
    pruned[:lost] = 0
    dense[lost : lost + gained] = 0
    options = {"metric": "accuracy", "max_drop": MARGIN, "confidence": 0.95, "task": "classification"} | settings
    return noninferiority(answers(dense), answers(pruned), torch.zeros(n, dtype=torch.long), **options)


def test_the_score_is_tangos():
    """The share that fits best, by brute force over the likelihood."""
    for lost, gained, n, margin in ((4, 2, 540, 0.01), (10, 2, 100, 0.05), (0, 3, 80, 0.1)):
        q = np.linspace(1e-9, (1 - margin) / 2 - 1e-9, 400_001)
        likelihood = lost * np.log(q + margin) + gained * np.log(q) + (n - lost - gained) * np.log(1 - 2 * q - margin)
        best = q[likelihood.argmax()]
        score = (lost - gained - n * margin) / np.sqrt(n * (2 * best + margin * (1 - margin)))
        assert float(tango_z(lost, gained, n, margin)) == pytest.approx(score, abs=2e-3)


@pytest.mark.parametrize("gained_share", [0.0, 0.003, 0.02])
def test_a_drop_of_the_margin_passes_in_at_most_one_of_twenty(gained_share):
    """Exactly: the chances of all counts that pass, added up."""
    n, margin = 200, 0.02
    chance = 0.0
    lost_share = gained_share + margin
    most_lost, most_gained = 14, 14
    log_fact = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    for lost in range(most_lost):
        for gained in range(most_gained):
            if gained and not gained_share:
                continue
            logs = log_fact[n] - log_fact[lost] - log_fact[gained] - log_fact[n - lost - gained]
            logs += lost * np.log(lost_share) + (gained * np.log(gained_share) if gained else 0.0)
            logs += (n - lost - gained) * np.log(1 - lost_share - gained_share)
            if float(np.exp(logs)) > 1e-7 and no_worse_accuracy(lost, gained, n, margin) <= 0.05:
                chance += float(np.exp(logs))
    assert 0.005 < chance <= 0.05


def test_the_plain_score_would_pass_too_often_where_no_example_differs():
    assert no_worse_accuracy(0, 0, 268, 0.01) > 0.05 > NormalDist().cdf(float(tango_z(0, 0, 275, 0.01)))
    assert no_worse_accuracy(0, 0, 299, 0.01) <= 0.05


def test_counts_that_speak_most_against_a_small_drop_have_a_chance_of_one():
    assert no_worse_accuracy(10, 0, 10, 0.1) == 1.0


def test_the_bound_and_the_verdict_say_the_same():
    for lost, gained in ((0, 0), (1, 0), (3, 2), (6, 1), (2, 9)):
        found = judged(lost, gained)
        assert found.kept == (found.bound <= MARGIN + 6e-5)
        assert found.drop == pytest.approx((lost - gained) / N)
        assert found.bound > found.drop
        assert (found.n_lost, found.n_gained) == (lost, gained)


def test_more_losses_are_worse_and_more_gains_are_better():
    bounds = [accuracy_bound(lost, 2, N, 0.95) for lost in range(6)]
    assert bounds == sorted(bounds)
    assert accuracy_bound(4, 4, N, 0.95) < accuracy_bound(4, 1, N, 0.95)


def test_many_discordant_pairs_take_the_normal_approximation():
    n = 4000
    assert no_worse_accuracy(60, 50, n, 0.02) == NormalDist().cdf(float(tango_z(60, 50, n, 0.02)))


def test_the_fewest_examples_are_those_on_which_no_difference_shows_it():
    for margin, confidence in ((0.01, 0.95), (0.02, 0.9), (0.05, 0.95)):
        n = examples_needed(margin, confidence)
        assert (1 - margin) ** n <= 1 - confidence < (1 - margin) ** (n - 1)


def test_a_drop_of_everything_needs_one_example():
    assert examples_needed(1.0, 0.95) == 1


@pytest.mark.parametrize(("metric", "worse"), [("r2", -1), ("rmse", 1), ("mae", 1)])
def test_other_metrics_have_a_bootstrap_and_a_drop_is_always_worse(metric, worse):
    draw = torch.Generator().manual_seed(0)
    targets = torch.randn(400, generator=draw)
    noise = torch.randn(400, generator=draw)
    dense, pruned = targets + 0.1 * noise, targets + 0.12 * noise
    options = {"metric": metric, "confidence": 0.95, "task": "regression", "bootstrap": 200}
    strict = noninferiority(dense[:, None], pruned[:, None], targets, max_drop=1e-4, **options)
    loose = noninferiority(dense[:, None], pruned[:, None], targets, max_drop=0.2, **options)
    assert strict.drop > 0
    assert strict.drop == pytest.approx(worse * (strict.pruned - strict.dense))
    assert (strict.kept, loose.kept) == (False, True)
    assert promises(loose, 100)
    assert not promises(strict, 100)


def test_a_promise_is_what_as_many_examples_as_will_be_tested_would_show():
    found = judged(0, 0, n=100, max_drop=0.02)
    assert not found.kept
    assert promises(found, 400)
    assert not promises(judged(4, 0, n=100, max_drop=0.02), 400)


def test_bad_input_is_refused():
    with pytest.raises(UnknownNameError, match="acuracy"):
        judged(0, 0, metric="acuracy")
    with pytest.raises(DataError, match=r"data\.split\.validation"):
        noninferiority(
            torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0), metric="accuracy", max_drop=0.1, confidence=0.9,
            task="classification",
        )  # fmt: skip


@pytest.mark.parametrize("name", ["f1_micro", "f1_macro"])
def test_models_that_answer_every_example_alike_show_no_more_than_so_many_examples_can(name):
    """A bootstrap of no difference has no width: five examples would have kept any contract."""
    task, labels = MultiLabel(), torch.tensor([[1, 0, 1]])

    def same(n, max_drop):
        seen = task.observe(9.0 * labels.repeat(n, 1) - 4, Batch(torch.arange(n), None, labels.repeat(n, 1)))
        options = {"metric": name, "max_drop": max_drop, "confidence": 0.95, "bootstrap": 50}
        return evaluate.noninferiority(seen, seen, task, **options)

    few = same(5, 0.1)
    assert not few.kept
    assert few.bound == pytest.approx(1 - 0.05 ** (1 / 5))
    assert same(299, 0.01).kept
    assert not same(298, 0.01).kept


def test_only_a_share_of_models_that_answer_alike_is_bounded_by_what_so_few_examples_can_show():
    def judge(task, pruned, dense, targets, metric):
        seen = [task.observe(outputs, Batch(torch.arange(len(targets)), None, targets)) for outputs in (dense, pruned)]
        return evaluate.noninferiority(*seen, task, metric=metric, max_drop=0.1, confidence=0.95, bootstrap=50)

    labels = torch.tensor([[1, 0, 1]]).repeat(30, 1)
    dense = 9.0 * labels - 4
    pruned = torch.cat([-dense[:1], dense[1:]])
    differ = judge(MultiLabel(), pruned, dense, labels, "f1_micro")
    assert differ.method == "paired bootstrap over examples, one-sided"
    targets = torch.arange(30.0)[:, None]
    alike = judge(Regression(), targets + 1, targets + 1, targets, "mae")
    assert (alike.bound, alike.method) == (0.0, "paired bootstrap over examples, one-sided")
