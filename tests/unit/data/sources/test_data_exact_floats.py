"""What was given as different stays different: rows are compared before any rounding, and scaled before it."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from prunus.core.errors import DataError
from prunus.core.recipes.recipe import Data, Split
from prunus.data import Scaler, content_digests, open_inputs, open_source, prepare, prepare_arrays, prepare_dataset
from prunus.data.sources.datasets import DatasetSource, read_dataset
from prunus.data.split import PARTS

TIMES = np.arange(400) * 7 + 1_700_000_000
ROWS = np.stack([TIMES, np.arange(400) % 3], axis=1)
LABELS = np.arange(400) % 2


class Pairs(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        return self.rows[row], int(LABELS[row])


def given(kind, folder):
    """Return the same 400 rows, prepared from what a user may hand over."""
    if kind == "arrays":
        return prepare_arrays(ROWS, LABELS)
    if kind == "float64":
        return prepare_arrays(torch.tensor(ROWS).double(), LABELS)
    if kind == "dataset":
        return prepare_dataset(Pairs(ROWS))
    path = folder / f"set.{kind}"
    if kind == "npz":
        np.savez(path, x=ROWS, y=LABELS)
    elif kind == "csv":
        lines = [f"{time},{other},{label}" for (time, other), label in zip(ROWS, LABELS, strict=True)]
        path.write_text("time,other,label\n" + "\n".join(lines))
    else:
        pa.parquet.write_table(pa.table({"time": ROWS[:, 0], "other": ROWS[:, 1], "label": LABELS}), path)
    return prepare(Data(source=str(path)))


@pytest.mark.parametrize("kind", ["arrays", "float64", "dataset", "npz", "csv", "parquet"])
def test_rows_that_differ_beyond_float32_are_no_duplicates_and_the_model_tells_them_apart(kind, tmp_path):
    prepared = given(kind, tmp_path)
    assert sum(len(prepared.splits.part(part)) for part in PARTS) == 400
    assert prepared.splits.duplicates == ()
    seen = prepared.train.inputs_at(torch.arange(len(prepared.train)))
    assert seen.dtype == torch.float32
    assert len(set(seen[:, 0].tolist())) == len(prepared.train)
    times = ROWS[prepared.train.rows, 0]
    np.testing.assert_allclose(np.diff(seen[:, 0]), np.diff(times) / times.std(), rtol=1e-3)


def test_a_set_too_large_for_memory_is_read_as_exactly():
    source = read_dataset(Pairs(ROWS), Data(source="pairs"))
    assert isinstance(source, DatasetSource)
    assert len(set(content_digests(source))) == 400
    assert source.inputs(torch.arange(400))[:, 0].tolist() == TIMES.tolist()


def test_real_duplicates_are_still_found_in_either_precision():
    for rows in (ROWS, ROWS - ROWS.min(axis=0)):
        repeated = np.concatenate([rows, rows])
        prepared = prepare_arrays(repeated, np.tile(LABELS, 2))
        splits = prepared.splits
        assert len(splits.duplicates) + splits.repeats_in_train // 2 >= 200
        parts = [set(map(tuple, repeated[splits.part(part)])) for part in PARTS]
        assert sum(map(len, parts)) == len(set().union(*parts))


def test_a_row_has_one_content_whatever_type_it_came_in():
    few = np.array([[1.0, 2.5], [3.0, -0.0]])
    sources = [prepare_arrays(np.tile(few, (20, 1)) + np.arange(40)[:, None], LABELS[:40]).source]
    wide = prepare_arrays(np.vstack([sources[0].values.numpy(), [[1.7e9, 0], [1.7e9 + 1, 0]]]), LABELS[:42]).source
    assert wide.inputs(torch.arange(1)).dtype == torch.float64
    assert content_digests(wide)[:40] == content_digests(sources[0])


def test_ordinary_numbers_are_kept_as_float32():
    rng = np.random.default_rng(0)
    for values in (rng.normal(3, 2, (300, 4)), rng.integers(0, 1000, (300, 4)), rng.normal(size=(300, 4)).astype("f")):
        assert prepare_arrays(values, LABELS[:300]).source.values.dtype == torch.float32
    constant = np.column_stack([rng.normal(size=300), np.full(300, 0.1)])
    assert prepare_arrays(constant, LABELS[:300]).source.values.dtype == torch.float32


def test_what_the_model_can_not_tell_apart_unscaled_is_said():
    plain = prepare_arrays(ROWS, LABELS, Data(source="arrays", standardize=False))
    n_seen = len(np.unique(ROWS.astype(np.float32), axis=0))
    assert any(f"{400 - n_seen} examples differ from another one by less" in note for note in plain.notes)
    assert any("data.standardize" in note for note in plain.notes)
    assert not any("less than the model can see" in note for note in prepare_arrays(ROWS, LABELS).notes)


def test_a_wide_scaler_reads_back_and_takes_a_file_as_it_took_the_training_set(tmp_path):
    prepared = given("csv", tmp_path)
    again = Scaler.from_dict(prepared.scaler.to_dict())
    _, values = open_inputs(
        str(tmp_path / "set.csv"), input_shape=(2,), feature_names=("time", "other"), exact=again.wide
    )
    order = prepared.train.rows
    assert torch.equal(again(values)[order], prepared.train.inputs_at(torch.arange(len(order))))


def test_whole_numbers_that_float64_merges_are_refused(tmp_path):
    rows = np.array([2**53 + 1, 5, 7, 9])
    with pytest.raises(DataError, match=r"beyond 2\*\*53 .*got 5 to 9007199254740993; subtract"):
        prepare_arrays(rows, LABELS[:4])
    path = tmp_path / "set.parquet"
    pa.parquet.write_table(pa.table({"key": rows, "size": rows / 2, "label": LABELS[:4]}), path)
    with pytest.raises(DataError, match=r"column 'key', row 0 .*expected a whole number below 2\*\*53"):
        open_source(Data(source=str(path)))


def test_a_regression_target_that_float32_merges_is_refused_with_what_to_do():
    with pytest.raises(DataError, match=r"too close together for float32: got 1700000000 to 1700002793; subtract"):
        prepare_arrays(ROWS[:, 1:] + np.arange(400)[:, None], TIMES, Data(source="arrays", task="regression"))
    prepare_arrays(np.arange(400), TIMES - TIMES.min(), Data(source="arrays", task="regression", split=Split()))
