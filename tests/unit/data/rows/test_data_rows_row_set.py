"""Are the rows of files numbered as they lie, whatever wrote them?"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import prunus
from prunus.core.errors import DataError
from prunus.data import open_row_set, row_files_of
from prunus.data.rows.file_prints import file_print
from prunus.data.rows.walk import walk

sys.path.insert(0, str(Path(__file__).parent))
import row_jobs


@pytest.mark.parametrize("ending", ["parquet", "arrow", "csv", "npy"])
@pytest.mark.parametrize("n_rows", [7, 5000])
def test_all_rows_are_walked_in_their_order(tmp_path, ending, n_rows):
    rows = open_row_set([row_jobs.write(tmp_path / "in", ending)])
    assert rows.n_rows == 900
    assert rows.file_rows() == [(0, 300), (300, 600), (600, 900)]
    seen = [(place, batch.column(0).to_pylist()) for place, batch in walk(rows, ["label"], n_rows)]
    assert [place for place, _ in seen] == np.cumsum([0, *(len(found) for _, found in seen)])[:-1].tolist()
    assert [label for _, found in seen for label in found] == [k % 3 for k in range(900)]


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_two_columns_of_one_name_are_told_in_one_line(tmp_path, ending):
    table = pa.table([pa.array([1.0]), pa.array([2.0]), pa.array([3.0])], names=["a", "b", "a"])
    path = tmp_path / f"twice.{ending}"
    if ending == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(DataError, match=r"twice\.\w+: the column 'a' is there twice; rename one"):
        open_row_set([path])


def test_a_set_that_datasets_saved_is_read_in_its_order(tmp_path):
    table = pa.table(row_jobs.columns(90))
    for number in range(2):
        with pa.ipc.new_stream(tmp_path / f"data-{number}.arrow", table.schema) as writer:
            writer.write_table(table.slice(45 * number, 45), max_chunksize=10)
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": f"data-{k}.arrow"} for k in (1, 0)]}))
    rows = open_row_set([tmp_path])
    assert [batch.column(0).to_pylist()[0] for _, batch in walk(rows, ["a"], 45)] == [
        45,
        55,
        65,
        75,
        85,
        0,
        10,
        20,
        30,
        40,
    ]
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../x.arrow"}]}))
    with pytest.raises(DataError, match="expected names of files in this folder"):
        open_row_set([tmp_path])
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [], "_indices_data_files": None}))
    with pytest.raises(DataError, match="no file in this set"):
        open_row_set([tmp_path])


def test_datasets_itself_reads_the_same(tmp_path):
    datasets = pytest.importorskip("datasets")
    given = datasets.Dataset.from_dict({"a": [1.0, 2.0, 3.0, 4.0], "label": [0, 1, 0, 1]})
    given.select([3, 0, 2]).save_to_disk(tmp_path / "one", num_shards=2)
    found = prunus.kept_rows(tmp_path / "one", target="label")
    position, inputs, targets = found.mapped(tmp_path / "cache")[:]
    oracle = datasets.load_from_disk(tmp_path / "one")
    assert (position.tolist(), inputs[:, 0].tolist(), targets.tolist()) == (
        [0, 1, 2],
        oracle["a"][:],
        oracle["label"][:],
    )
    datasets.DatasetDict({"train": given, "test": given}).save_to_disk(tmp_path / "both")
    with pytest.raises(DataError, match=r"these are several sets \(test, train\)"):
        prunus.kept_rows(tmp_path / "both")
    assert len(prunus.kept_rows(tmp_path / "both" / "train")) == 4


def test_files_that_do_not_go_together_are_refused_with_what_differs(tmp_path):
    pq.write_table(pa.table({"a": [1.0], "b": [1]}), tmp_path / "1.parquet")
    for table, said in (
        (pa.table({"a": [1.0]}), "expected a column 'b'"),
        (pa.table({"a": [1.0], "b": ["x"]}), "expected column 'b' to hold int64, got string"),
        (pa.table({"b": [1], "a": [1.0]}), "expected the columns a, b, got b, a"),
    ):
        pq.write_table(table, tmp_path / "2.parquet")
        with pytest.raises(DataError, match=rf"2.parquet: {said}"):
            open_row_set([tmp_path])


def test_columns_that_are_no_numbers_need_a_function_and_unknown_ones_are_refused(tmp_path):
    pq.write_table(pa.table({"a": [1.0], "t": ["x"], "label": [1]}), tmp_path / "1.parquet")
    with pytest.raises(DataError, match="column 't' holds string"):
        prunus.kept_rows(tmp_path, target="label")
    with pytest.raises(DataError, match="there is no column 'lable'; did you mean 'label'"):
        prunus.kept_rows(tmp_path, target="lable")


@pytest.mark.parametrize("name", ["x.txt", "x.parquet", "none.parquet", "empty"])
def test_what_is_no_file_of_rows_is_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.txt").write_text("1")
    (tmp_path / "x.parquet").write_text("1")
    with pytest.raises(DataError, match=name):
        open_row_set([tmp_path / name])


def test_an_array_has_a_column_for_each_file_beside_it(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 2, 3), np.uint8))
    np.save(tmp_path / "a.label.npy", np.arange(4))
    np.save(tmp_path / "a.b.label.npy", np.arange(5))
    np.save(tmp_path / "b.npy", np.array([(1, 2.0)], [("id", "i8"), ("v", "f4")]))
    assert [path.name for path in row_files_of([tmp_path])] == ["a.b.label.npy", "a.npy", "b.npy"]
    rows = open_row_set([tmp_path / "a.npy"])
    assert rows.schema.names == ["x", "label"]
    position, inputs, targets = prunus.kept_rows(tmp_path / "a.npy", target="label").mapped()[:2]
    assert tuple(inputs.shape) == (2, 2, 3)
    assert targets.tolist() == position.tolist() == [0, 1]
    assert open_row_set([tmp_path / "b.npy"]).schema.names == ["id", "v"]
    np.save(tmp_path / "a.label.npy", np.arange(5))
    with pytest.raises(DataError, match=r"expected 4 rows as in a.npy, got 5"):
        open_row_set([tmp_path / "a.npy"])


def test_an_array_of_objects_is_refused_and_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a.npy: it is damaged"):
        open_row_set([tmp_path / "a.npy"])


@pytest.mark.parametrize("ending", ["parquet", "arrow", "npy"])
def test_a_print_tells_files_apart_by_what_they_hold_and_not_by_their_names(tmp_path, ending):
    folder = row_jobs.write(tmp_path / "in", ending)
    path = folder / f"part-0.{ending}"
    before = file_print(path)
    moved = path.rename(tmp_path / f"moved.{ending}")
    assert file_print(moved) == before
    prints = {before}
    for number in range(1, 3):
        prints.add(file_print(folder / f"part-{number}.{ending}"))
    assert len(prints) == 3


def test_a_single_other_value_in_a_large_parquet_file_shows(tmp_path):
    values = np.random.default_rng(0).random(200_000)
    prints = set()
    for spot in (None, 100_001):
        other = values.copy()
        if spot is not None:
            other[spot] = 2.0
        pq.write_table(pa.table({"v": other}), tmp_path / "v.parquet")
        prints.add(file_print(tmp_path / "v.parquet"))
    assert len(prints) == 2
