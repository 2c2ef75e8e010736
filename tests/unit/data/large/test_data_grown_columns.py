import errno

import numpy as np
import pytest

from prunus.core.errors import OutputError
from prunus.data.large import grown_columns as module
from prunus.data.large.grown_columns import GrownColumns

WIDE = np.random.default_rng(0).standard_normal((300, 3))
PARTS = {
    "numbers": [np.arange(7), np.arange(5), np.zeros(0, np.int64), np.arange(300)],
    "truths": [np.array([True, False]), np.ones(40, np.bool_)],
    "rows of numbers": [WIDE[:7], WIDE, WIDE[::-1]],
    "rows of nothing": [np.zeros((9, 0), np.float32), np.zeros((70, 0), np.float32)],
    "a wider kind later": [np.arange(90), np.arange(90) / 2, np.arange(9)],
    "longer texts later": [np.array(["a"] * 200), np.array(["long"] * 200)],
    "objects": [np.array([{"a": 1}] * 90, object), np.array([None] * 90, object)],
    "columns that aren't side by side": [WIDE[:, 1], WIDE[:, 2]],
}


@pytest.mark.parametrize("in_files", [True, False])
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_a_column_is_what_concatenating_makes_of_its_parts(parts, in_files, monkeypatch):
    monkeypatch.setattr(module, "SCRATCH_BYTES", 100)
    columns = GrownColumns(in_files=in_files)
    for part in parts:
        columns.add({"one": part, "other": part[::-1]})
    expected = np.concatenate(parts)
    found = columns.whole()
    assert list(found) == ["one", "other"]
    assert found["one"].dtype == expected.dtype
    np.testing.assert_array_equal(found["one"], expected)
    np.testing.assert_array_equal(found["other"], np.concatenate([part[::-1] for part in parts]))


def test_large_columns_lie_in_files_and_small_ones_in_memory(monkeypatch):
    monkeypatch.setattr(module, "SCRATCH_BYTES", 1000)
    columns = GrownColumns(in_files=True)
    for _ in range(10):
        columns.add({"large": np.arange(100), "small": np.ones(5, np.bool_)})
    found = columns.whole()
    assert isinstance(found["large"].base, np.memmap)
    assert not isinstance(found["small"].base, np.memmap)


def test_what_nothing_was_added_to_has_no_columns():
    assert GrownColumns(in_files=True).whole() == {}


def test_a_full_disk_is_said_in_one_line(monkeypatch):
    class Full:
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "SCRATCH_BYTES", 100)
    monkeypatch.setattr(module.tempfile, "TemporaryFile", Full)
    columns = GrownColumns(in_files=True)
    with pytest.raises(OutputError, match="no space left to write"):
        columns.add({"one": np.arange(100)})
