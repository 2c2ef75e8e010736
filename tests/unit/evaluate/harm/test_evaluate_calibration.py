"""Calibration agrees with torchmetrics and sklearn, and the temperature with a search by scipy."""

import warnings
import weakref

import numpy as np
import pytest
import torch
from scipy import optimize
from sklearn.metrics import log_loss
from torch import nn

from prunus.core.batch import Batch
from prunus.data import Batches
from prunus.evaluate.harm import calibration as module
from prunus.evaluate.harm.calibration import MEASURES, calibration_change, calibration_of, fit_temperature
from prunus.tasks import Classification, Language, MultiLabel, Regression, Segmentation

NAMES = tuple("abcd")


def sample(n=700, scale=2.0, seed=0, n_classes=4):
    """Return logits, and labels drawn from what they mean: a model that is calibrated at ``scale`` 1."""
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, n_classes, generator=draw)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=draw)[:, 0]
    return scale * logits, labels


def measured(logits, labels, task=None, **more):
    both = calibration_change(
        nn.Identity(),
        nn.Identity(),
        Batches([(logits, labels)]),
        task or Classification(NAMES),
        fit_on=None,
        bootstrap=100,
        **more,
    )
    return {row.measure: row for row in both.rows}


def test_the_error_is_that_of_torchmetrics():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.functional.classification import multiclass_calibration_error
    logits, labels = sample()
    expected = multiclass_calibration_error(logits.softmax(dim=1), labels, 4, n_bins=15, norm="l1")
    assert measured(logits, labels)["ece"].dense.value == pytest.approx(float(expected), abs=1e-6)


def test_proper_scores_are_those_of_sklearn_and_the_definition():
    logits, labels = sample()
    chances = logits.double().softmax(dim=1).numpy()
    found = measured(logits, labels)
    assert found["log_loss"].dense.value == pytest.approx(log_loss(labels.numpy(), chances), abs=1e-6)
    brier = ((chances - np.eye(4)[labels.numpy()]) ** 2).sum(axis=1).mean()
    assert found["brier"].dense.value == pytest.approx(brier, abs=1e-6)


def test_what_a_calibrated_model_is_off_by_chance_is_taken_off():
    """The plain error of a calibrated model on few examples is far from zero; without its bias it is near."""
    plain, squares = [], []
    for seed in range(40):
        found = measured(*sample(n=150, scale=1.0, seed=seed))
        plain.append(found["ece"].dense.value)
        squares.append(found["rms_error"].dense.value ** 2)
    assert np.mean(plain) > 0.05
    assert np.mean(squares) < 0.003  # less than a third of the square of the plain one's mean


def test_the_temperature_is_what_scipy_finds():
    logits, labels = sample(scale=3.0)

    def surprise(temperature):
        return float(nn.functional.cross_entropy(logits.double() / temperature, labels))

    expected = optimize.minimize_scalar(surprise, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9}).x
    assert fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-5)
    assert fit_temperature(logits, labels) == pytest.approx(3.0, rel=0.15)


def test_a_temperature_of_other_examples_sets_an_overconfident_model_right():
    test, other = sample(scale=3.0), sample(scale=3.0, seed=1)
    found = calibration_change(
        nn.Identity(),
        nn.Identity(),
        Batches([test]),
        Classification(NAMES),
        fit_on=Batches([other]),
        fitted_on="validation",
        bootstrap=200,
    )
    before, after = ([row for row in found.rows if row.scaled == scaled] for scaled in (False, True))
    for one, two in zip(before, after, strict=True):
        assert one.measure == two.measure
        assert two.dense.value < one.dense.value
    assert before[0].dense.low > after[0].dense.high
    assert found.n_fitted == 700
    assert before[0].difference.value == before[0].difference.high == 0.0  # the two models are one


def test_labels_pixels_and_tokens_are_choices_too():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 3, generator=draw)
    labels = (torch.rand(40, 3, generator=draw) < logits.sigmoid()).long()
    seen = calibration_of(nn.Identity(), Batches([(logits, labels)]), MultiLabel())["sums"]
    expected = nn.functional.binary_cross_entropy_with_logits(logits.double(), labels.double(), reduction="none")
    assert seen[:, 0, -1] == pytest.approx(expected.sum(dim=1).numpy())
    assert seen[:, 0, :15].sum() == 120

    scores, masks = torch.randn(5, 3, 4, 4, generator=draw), torch.randint(0, 3, (5, 4, 4), generator=draw)
    masks[0, 0, 0] = 255
    seen = calibration_of(nn.Identity(), Batches([(scores, masks)]), Segmentation())["sums"]
    expected = nn.functional.cross_entropy(scores.double(), masks, ignore_index=255, reduction="none")
    assert seen[:, 0, -1] == pytest.approx(expected.flatten(1).sum(dim=1).numpy())
    assert seen[0, 0, :15].sum() == 15

    tokens = torch.randint(0, 7, (6, 5), generator=draw)
    said = torch.randn(6, 5, 7, generator=draw)
    batch = Batch(torch.arange(6), said, tokens)
    seen = calibration_of(nn.Identity(), Batches([(said, tokens)]), Language())["sums"]
    assert seen[:, 0, -1] == pytest.approx(Language().observe(said, batch)["nll"], rel=1e-5)


def test_a_task_without_probabilities_has_no_calibration():
    x = torch.randn(10, 1)
    made = calibration_change(nn.Identity(), nn.Identity(), Batches([(x, x)]), Regression(), fit_on=None)
    assert made is None


def test_every_measure_has_an_interval_that_holds_its_value():
    for row in measured(*sample(n=200)).values():
        for number in (row.dense, row.pruned, row.difference):
            assert number.low <= number.value <= number.high
    assert set(MEASURES) == set(measured(*sample(n=50)))


@pytest.mark.parametrize("most", [1, 50, 300, 100_000])
def test_a_temperature_is_fitted_on_some_choices_of_each_batch_and_holds_no_others(most, monkeypatch):
    n_batches, size, seen, n_alive = 40, 64, [], []
    logits, labels = (part.split(size) for part in sample(n_batches * size))

    def answers(model, examples):
        for number, (some, own) in enumerate(zip(logits, labels, strict=True)):
            kept = some.numpy().copy()
            seen.append(weakref.ref(kept))
            n_alive.append(sum(one() is not None for one in seen))
            yield Batch(torch.arange(size) + number * size, None, own), torch.from_numpy(kept)

    monkeypatch.setattr(module, "_answers", answers)
    scores, right = module._choices(nn.Identity(), range(n_batches * size), Classification(NAMES), most=most)
    step = max(1, n_batches * size // most)
    assert torch.equal(scores, torch.cat([part[::step] for part in logits])[:most])
    assert torch.equal(right, torch.cat([part[::step] for part in labels])[:most])
    assert max(n_alive) <= 3
