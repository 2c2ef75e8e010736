"""The scaler's numbers are NumPy's, and they survive JSON exactly."""

import json

import numpy as np
import pytest
import torch

from prunus.core.errors import DataError
from prunus.data import ArraySource, Scaler


def source_of(values):
    n = len(values)
    return ArraySource("set", tuple(map(str, range(n))), values, torch.arange(n) % 2, "classification", ("a", "b"))


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("shape", "axes", "kept"),
    [
        ((5,), (0,), (5,)),
        ((3, 4, 6), (0, 2, 3), (3, 1, 1)),
        ((4, 6), (0, 1, 2), (1, 1)),
        ((2, 3, 4, 5), (0, 2, 3, 4), (2, 1, 1, 1)),
    ],
)
def test_mean_and_deviation_are_per_feature_or_channel(shape, axes, kept):
    values = randn(70, *shape) * 3 + 7
    rows = torch.arange(0, 70, 2)
    scaler = Scaler.fit(source_of(values), rows, chunk_rows=16)
    chosen = values[rows].numpy().astype(np.float64)
    assert scaler.mean.shape == kept
    np.testing.assert_allclose(scaler.mean.numpy().ravel(), chosen.mean(axes).ravel(), rtol=1e-6)
    np.testing.assert_allclose(scaler.deviation.numpy().ravel(), chosen.std(axes).ravel(), rtol=1e-6)
    scaled = scaler(values[rows]).numpy()
    np.testing.assert_allclose(scaled.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axes), 1, rtol=1e-5)


def test_only_the_given_rows_count():
    values = randn(20, 3)
    changed = values.clone()
    changed[10:] = 1e6
    rows = torch.arange(10)
    assert torch.equal(Scaler.fit(source_of(values), rows).mean, Scaler.fit(source_of(changed), rows).mean)


def test_a_feature_that_never_changes_becomes_zero():
    values = torch.full((50, 1), 0.1)
    scaler = Scaler.fit(source_of(values), torch.arange(50), chunk_rows=7)
    assert scaler.deviation.item() == 1
    assert scaler(values).unique().tolist() == [0.0]


def test_a_small_change_on_a_large_value_is_not_lost():
    values = torch.tensor([16_000_000.0, 16_000_002.0] * 50)[:, None]
    assert Scaler.fit(source_of(values), torch.arange(100), chunk_rows=3).deviation.item() == 1.0


def test_identity_changes_nothing_of_any_shape():
    for values in (randn(3, 4), randn(2, 3, 4, 4)):
        assert torch.equal(Scaler.identity()(values), values)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 3), (3, 3)])
def test_json_brings_back_the_same_scaler(shape):
    scaler = Scaler.fit(source_of(randn(9, *shape)), torch.arange(9))
    again = Scaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    assert torch.equal(again.mean, scaler.mean)
    assert torch.equal(again.deviation, scaler.deviation)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"mean": [0.0]},
        {"mean": "x", "deviation": [1.0]},
        {"mean": [0.0], "deviation": [0.0]},
        {"mean": [0.0], "deviation": [-1.0]},
        {"mean": [float("nan")], "deviation": [1.0]},
        {"mean": [0.0, 1.0], "deviation": [1.0]},
        {"mean": [[0.0], [0.0, 1.0]], "deviation": [1.0]},
        {"mean": {"a": 1}, "deviation": [1.0]},
        None,
    ],
)
def test_a_damaged_scaler_is_refused(values):
    with pytest.raises(DataError, match="a scaler has"):
        Scaler.from_dict(values)
