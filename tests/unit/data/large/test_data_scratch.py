import numpy as np
import pytest
import torch

from prunus.data.large import scratch as module
from prunus.data.large.scratch import places_of, scratch_full, scratch_take


@pytest.mark.parametrize("n", [0, 1, 5, 1000])
@pytest.mark.parametrize("in_files", [True, False])
def test_places_and_taken_rows_are_those_of_numpy(n, in_files, monkeypatch):
    monkeypatch.setattr(module, "SCRATCH_BYTES", 0 if in_files else 1 << 30)
    monkeypatch.setattr(module, "_AT_ONCE", 64)
    values = np.random.default_rng(0).integers(-1, 3, n)
    for wanted in (-1, 0, 2, 7):
        np.testing.assert_array_equal(places_of(values, wanted), np.flatnonzero(values == wanted))
    truths = values > 0
    np.testing.assert_array_equal(places_of(truths, 0), np.flatnonzero(~truths))
    rows = torch.from_numpy(np.random.default_rng(1).permutation(n))
    assert torch.equal(scratch_take(torch.from_numpy(values), rows), torch.from_numpy(values)[rows])


@pytest.mark.parametrize("n", [0, 3, 1 << 19])
@pytest.mark.parametrize("value", [0, -1])
def test_a_number_stands_in_every_place(n, value):
    np.testing.assert_array_equal(scratch_full(n, value, np.int8), np.full(n, value, np.int8))
