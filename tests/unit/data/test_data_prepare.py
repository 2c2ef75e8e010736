"""From a recipe to four sets of examples: fitted on train alone, noisy where asked, and the same each time."""

import contextlib
import hashlib
import struct

import numpy as np
import pytest
import torch

from prunus.core.errors import DataError
from prunus.core.recipes.recipe import Data, Split
from prunus.data import ArraySource, Scaler, content_digests, fingerprint, prepare, prepare_arrays

RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, (100, 4))
Y = RNG.integers(0, 3, 100)


def test_the_parts_are_the_splits_scaled_by_what_train_looks_like():
    prepared = prepare(Data(source="sklearn:wine"))
    for part in ("train", "validation", "calibration", "test"):
        examples = getattr(prepared, part)
        assert torch.equal(examples.rows, prepared.splits.part(part))
        batch = next(iter(examples.batches(1000)))
        assert torch.equal(batch.inputs, prepared.scaler(prepared.source.inputs(examples.rows)))
    expected = Scaler.fit(prepared.source, prepared.splits.train)
    assert torch.equal(prepared.scaler.mean, expected.mean)
    raw = prepare(Data(source="sklearn:wine", standardize=False))
    assert torch.equal(next(iter(raw.test.batches(5))).inputs, raw.source.inputs(raw.test.rows[:5]))


def test_what_is_prepared_is_the_same_each_time():
    first, again = (prepare(Data(source="sklearn:iris", label_noise=0.2)) for _ in range(2))
    assert first.fingerprint == again.fingerprint
    assert first.train.ids == again.train.ids
    assert torch.equal(first.train.targets, again.train.targets)
    assert torch.equal(first.scaler.mean, again.scaler.mean)


@pytest.mark.parametrize("share", [0.0, 0.005, 0.1, 0.5])
def test_exactly_the_asked_share_of_training_labels_is_flipped_to_another_class(share):
    clean = prepare(Data(source="sklearn:digits"))
    noisy = prepare(Data(source="sklearn:digits", label_noise=share))
    changed = torch.nonzero(noisy.train.targets != clean.train.targets).flatten()
    assert len(changed) == round(share * len(clean.train))
    for part in ("validation", "calibration", "test"):
        assert torch.equal(getattr(noisy, part).targets, getattr(clean, part).targets)
    assert noisy.fingerprint == clean.fingerprint
    if share == 0:
        assert noisy.noise is None
        return
    assert noisy.noise.ids == tuple(noisy.train.ids[position] for position in changed)
    assert torch.equal(noisy.noise.true_targets, clean.train.targets[changed])
    assert torch.equal(noisy.noise.flipped_targets, noisy.train.targets[changed])


def test_flipped_labels_are_spread_over_the_other_classes():
    n = 8000
    x = torch.arange(n, dtype=torch.float32)
    prepared = prepare_arrays(x, np.arange(n) % 5, Data(source="arrays", label_noise=0.9))
    steps = torch.bincount((prepared.noise.flipped_targets - prepared.noise.true_targets) % 5, minlength=5)
    assert steps[0] == 0
    assert steps[1:].min() > 0.9 * len(prepared.noise.ids) / 4


def test_labels_of_a_regression_can_not_be_flipped():
    with pytest.raises(DataError, match=r"label_noise flips classes, got a regression target"):
        prepare(Data(source="sklearn:diabetes", label_noise=0.1))


def test_arrays_lists_and_tensors_are_the_same_data():
    prints = {
        prepare_arrays(x, y).fingerprint
        for x, y in [(X, Y), (X.tolist(), Y.tolist()), (torch.tensor(X), torch.tensor(Y))]
    }
    assert len(prints) == 1
    named = prepare_arrays(X, np.array(["p", "q", "r"], dtype=object)[Y], feature_names=["a", "b", "c", "d"])
    assert named.train.class_names == ("p", "q", "r")
    assert named.train.feature_names == ("a", "b", "c", "d")
    assert prepare_arrays(X, Y, class_names=["p", "q", "r"]).train.class_names == ("p", "q", "r")


def test_changing_the_callers_array_changes_nothing():
    x = np.ones((40, 2), dtype=np.float32)
    x[:, 0] = np.arange(40)
    prepared = prepare_arrays(x, np.arange(40) % 2)
    before = prepared.source.inputs(torch.arange(40)).clone()
    x[:] = 0
    assert torch.equal(prepared.source.inputs(torch.arange(40)), before)


def test_what_a_user_should_know_is_noted():
    x, y = np.repeat(np.arange(60.0), 2), np.arange(120) % 2
    prepared = prepare_arrays(x, y, Data(source="arrays", split=Split(seed=3)))
    text = " | ".join(prepared.notes)
    assert "task: classification (2 classes), read off the target" in text
    assert f"{len(prepared.splits.duplicates)} examples have the same input as one of a stronger part" in text
    assert "of them have another label than their twin" in text
    assert f"{prepared.splits.repeats_in_train} training examples have the same input" in text


def test_a_class_that_is_not_tested_is_noted():
    y = np.arange(300) % 2
    y[:2] = 2
    notes = []
    for seed in range(20):
        with contextlib.suppress(DataError):  # no example of it in train either
            notes += prepare_arrays(np.arange(300.0), y, Data(source="arrays", split=Split(seed=seed))).notes
    assert "no example of '2' in test: nothing is measured for it there" in notes


BASE = ArraySource(
    "set", ("a", "b"), torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1]), "classification", ("x", "y"), ("f",)
)
CHANGES = {
    "an id": {"ids": ("a", "c")},
    "the ids' order": {"ids": ("b", "a")},
    "where an id ends": {"ids": ("ab", "")},
    "a value": {"values": torch.tensor([[1.0], [2.5]])},
    "the shape": {"values": torch.tensor([[[1.0]], [[2.0]]])},
    "a target": {"targets": torch.tensor([1, 1])},
    "a class name": {"class_names": ("x", "z")},
    "a feature name": {"feature_names": ("g",)},
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_fingerprint_notices_a_change_of(what):
    fields = {name: getattr(BASE, name) for name in ("ids", "values", "targets", "class_names", "feature_names")}
    changed = ArraySource(name="set", task="classification", **{**fields, **CHANGES[what]})
    assert fingerprint(changed, content_digests(changed)) != fingerprint(BASE, content_digests(BASE))


def test_the_fingerprint_ignores_where_the_data_lie_and_how_they_are_stored():
    stored = ArraySource(
        "elsewhere",
        BASE.ids,
        BASE.values.to(torch.uint8),
        BASE.targets,
        BASE.task,
        BASE.class_names,
        BASE.feature_names,
    )
    assert fingerprint(stored, content_digests(stored)) == fingerprint(BASE, content_digests(BASE))


def test_the_fingerprint_is_this_and_stays_this():
    """Saved plans and bundles hold it, so its definition is spelt out here a second time."""
    total = hashlib.sha256(b"('classification', ('x', 'y'), ('f',), (1,))")
    for name, value, target in ((b"a", 1.0, 0), (b"b", 2.0, 1)):
        total.update(
            struct.pack("<Q", 1) + name + hashlib.sha256(struct.pack("<f", value)).digest() + struct.pack("<q", target)
        )
    assert fingerprint(BASE, content_digests(BASE)) == total.hexdigest()
