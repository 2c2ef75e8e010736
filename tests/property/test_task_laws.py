"""What holds of every registered task and metric: an example's weight is how often it was seen, and no order matters."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.tasks import check_metrics, default_metrics, measured, metrics_of, rows_of, tasks
from prunus.tasks.multilabel import MultiLabel
from prunus.tasks.segmentation import Segmentation
from task_samples import SAMPLES, Sample, learning, rows

TASKS = sorted(SAMPLES)
SEEDS = st.integers(0, 10**6)
SIZES = st.integers(2, 12)
few = settings(max_examples=15, deadline=None)


def names_of(sample):
    """Every metric, but those that need another kind of answer."""
    named = metrics_of(sample.task.name)
    return tuple(name for name in named if name != "kl" or sample is SAMPLES["agreement"])


def observed(sample, n, seed):
    outputs, batch = sample.drawn(n, seed)
    return sample.task.settled(sample.task.observe(outputs, batch))


def values(sample, seen, weights=None):
    n = len(next(iter(seen.values())))
    return measured(sample.task, names_of(sample), seen, np.ones((1, n)) if weights is None else weights)


def holds_weights(sample, n, seed):
    """The law: totals under whole weights are those of examples that come so often, weight 0 never."""
    seen = observed(sample, n, seed)
    weights = np.random.default_rng(seed).integers(0, 4, size=(3, n))
    weights[:, seed % n] += 1
    found = values(sample, seen, weights.astype(np.float64))
    for row, one in zip(weights, found, strict=True):
        repeated = rows_of(seen, np.repeat(np.arange(n), row))
        np.testing.assert_allclose(one, values(sample, repeated)[0], rtol=1e-9, atol=1e-9)


def test_every_registered_task_has_a_sample_and_every_sample_is_of_one():
    sampled = {name.partition(",")[0] for name in SAMPLES}
    assert sampled - {"own"} == set(tasks)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_metrics_and_one_of_them_leads(name):
    sample = SAMPLES[name]
    check_metrics(names_of(sample), sample.task.name)
    assert default_metrics(sample.task.name)


@pytest.mark.parametrize("name", TASKS)
@given(SIZES, SEEDS)
@few
def test_a_weight_is_how_often_an_example_was_seen(name, n, seed):
    holds_weights(SAMPLES[name], n, seed)


@pytest.mark.parametrize("name", TASKS)
@given(SIZES, SEEDS)
@few
def test_the_order_of_examples_changes_nothing(name, n, seed):
    sample = SAMPLES[name]
    outputs, batch = sample.drawn(n, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    moved = sample.task.settled(sample.task.observe(*rows(outputs, batch, order)))
    found, expected = values(sample, moved), values(sample, observed(sample, n, seed))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", TASKS)
@given(SIZES, SEEDS)
@few
def test_the_batches_change_nothing(name, n, seed):
    sample = SAMPLES[name]
    outputs, batch = sample.drawn(n, seed)
    whole = sample.task.observe(outputs, batch)
    cut = 1 + seed % (n - 1)
    parts = [
        sample.task.observe(*rows(outputs, batch, torch.arange(n)[part])) for part in (slice(0, cut), slice(cut, n))
    ]
    for column, value in whole.items():
        assert len(value) == n
        np.testing.assert_allclose(
            np.concatenate([part[column] for part in parts]), value, rtol=1e-5, atol=1e-6, err_msg=column
        )


@pytest.mark.parametrize("name", TASKS)
@given(SIZES, SEEDS)
@few
def test_a_loss_is_a_number_for_each_example_and_has_a_gradient(name, n, seed):
    sample = SAMPLES[name]
    outputs, batch = sample.drawn(n, seed)
    sample.task.check(outputs, batch)
    outputs, leaves = learning(outputs)
    loss, losses = sample.task.loss(outputs, batch), sample.task.losses(outputs, batch)
    assert loss.shape == ()
    assert losses.shape == (n,)
    assert bool(losses.isfinite().all())
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    there = [one for one in gradients if one is not None]
    assert there
    assert all(bool(one.isfinite().all()) for one in there)
    if float(loss.detach()) > 0:
        assert any(float(one.abs().sum()) > 0 for one in there)


@pytest.mark.parametrize("name", TASKS)
@given(SIZES, SEEDS)
@few
def test_what_a_person_reads_is_plain(name, n, seed):
    outputs, _ = SAMPLES[name].drawn(n, seed)
    labels = SAMPLES[name].task.decode(outputs).labels
    assert len(labels) == n
    assert json.loads(json.dumps(labels)) == list(labels)


class Unweighted(MultiLabel):
    """A planted fault: every example counts once, whatever its weight."""

    def totals(self, observed, weights):
        return super().totals(observed, np.minimum(weights, 1))


class Batchwise(Segmentation):
    """A planted fault: an observation that hangs on the batch."""

    def observe(self, outputs, batch):
        found = super().observe(outputs, batch)
        return {**found, "n_said": np.broadcast_to(found["n_said"].mean(axis=0), found["n_said"].shape)}


def test_a_wrong_statistic_is_caught():
    faulty = Sample(Unweighted(), SAMPLES["multilabel"].make)
    with pytest.raises(AssertionError):
        for seed in range(5):
            holds_weights(faulty, 6, seed)
    faulty = Sample(Batchwise(), SAMPLES["segmentation"].make)
    outputs, batch = faulty.drawn(6, 0)
    whole = faulty.task.observe(outputs, batch)
    half = faulty.task.observe(*rows(outputs, batch, torch.arange(3)))
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(half["n_said"], whole["n_said"][:3])
