"""Which rows does a table of decisions, or an array, keep, and is one of other data refused?"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import prunus
from prunus.core.errors import DataError, PlanError
from prunus.core.files.example_table import FILES, ExampleTable, write_example_table
from prunus.data import kept_of_mask, open_row_set

sys.path.insert(0, str(Path(__file__).parent))
import row_jobs


@pytest.fixture
def folder(tmp_path):
    return row_jobs.write(tmp_path / "in", "parquet")


def table(folder, ids, path, **columns):
    path = folder.parent / path
    write_example_table(ExampleTable(tuple(map(str, ids)), "f", columns), path)
    return path


def made_for(folder, n):
    return np.full(n, open_row_set([folder]).fingerprint, object)


def whole(rows):
    return rows.mapped(rows.rows.files[0].parent.parent / "cache")[:]


def test_rows_that_are_dropped_or_not_in_the_table_do_not_stay_and_relabelled_ones_have_the_new_label(folder):
    ids = [5, 7, 300, 899, 2]
    decision = np.array(["keep", "drop", None, "relabel", "relabel"], object)
    new = np.array([None, None, None, "0", "1"], object)
    path = table(folder, ids, "t.parquet", decision=decision, new_label=new, **{FILES: made_for(folder, 5)})
    rows = prunus.kept_rows(folder, path, target="label")
    assert len(rows) == 4
    position, _, targets = whole(rows)
    assert position.tolist() == [2, 5, 300, 899]
    assert targets.tolist() == [1, 2, 0, 0]
    streamed = {int(p): int(t) for batch in rows.stream(3) for p, t in zip(batch[0], batch[2], strict=True)}
    assert streamed == dict(zip(position.tolist(), targets.tolist(), strict=True))


def test_rows_are_found_by_their_ids_where_the_data_have_some(tmp_path):
    folder = row_jobs.write(tmp_path / "in", "parquet", id=lambda n, first: [f"r{k}" for k in range(first, first + n)])
    path = table(folder, ["r899", "r0"], "t.parquet", **{FILES: made_for(folder, 2)})
    rows = prunus.kept_rows(folder, path, target="label")
    assert whole(rows)[0].tolist() == [0, 899]
    assert rows.form.features == ("a", "b")


def test_a_table_of_other_files_is_refused_by_their_print(folder, tmp_path):
    other = row_jobs.write(tmp_path / "other", "parquet", n=301)
    path = table(folder, range(9), "t.parquet", **{FILES: made_for(other, 9)})
    with pytest.raises(PlanError, match="was made for other files"):
        prunus.kept_rows(folder, path, target="label")


def test_the_order_of_files_counts_and_their_names_do_not(folder, tmp_path):
    path = table(folder, range(9), "t.parquet", **{FILES: made_for(folder, 9)})
    files = sorted(folder.iterdir())
    with pytest.raises(PlanError, match="in their order"):
        prunus.kept_rows(files[::-1], path)
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert len(prunus.kept_rows(moved, path)) == 9


def test_a_table_that_says_no_files_is_compared_by_its_labels(folder):
    right = np.array([str(k % 3) for k in range(9)], object)
    assert len(prunus.kept_rows(folder, table(folder, range(9), "t.parquet", label=right), target="label")) == 9
    wrong = right.copy()
    wrong[4] = "2"
    with pytest.raises(PlanError, match="row 4 has label '1' in the files and '2' in the table"):
        prunus.kept_rows(folder, table(folder, range(9), "w.parquet", label=wrong), target="label")
    with pytest.raises(PlanError, match="doesn't say for which files"):
        prunus.kept_rows(folder, table(folder, range(9), "u.parquet"), target="label")


@pytest.mark.parametrize(
    ("ids", "columns", "said"),
    [
        ([1, 900], {}, "1 rows are of no row of these files .the first is '900'"),
        (["x"], {}, "the first is 'x'"),
        ([1, 2], {"decision": np.array(["drop", "drop"], object)}, "drops all 2 examples"),
        ([1, 2], {"decision": np.array(["keep", "relabel"], object)}, "row 2 is to be relabelled and has no new_label"),
    ],
)
def test_a_table_that_cannot_be_carried_out_is_refused_with_its_row(folder, ids, columns, said):
    path = table(folder, ids, "t.parquet", **columns, **{FILES: made_for(folder, len(ids))})
    with pytest.raises(PlanError, match=said):
        prunus.kept_rows(folder, path, target="label")


def test_a_decision_that_is_none_and_an_id_twice_are_refused(folder):
    import pyarrow.parquet as pq

    for ids, decision, said in (
        (["1", "2"], ["keep", "maybe"], "decision of row 2: expected keep"),
        (["4", "4"], ["keep", "keep"], "'4' stands in rows 1 and 2"),
    ):
        columns = {"id": ids, "fingerprint": ["f", "f"], FILES: made_for(folder, 2).tolist(), "decision": decision}
        pq.write_table(pa.table(columns), folder.parent / "t.parquet")
        with pytest.raises(PlanError, match=said):
            prunus.kept_rows(folder, folder.parent / "t.parquet")


def test_a_new_label_that_is_no_class_is_refused(folder):
    columns = {"decision": np.array(["relabel"], object), "new_label": np.array(["zebra"], object)}
    path = table(folder, [1], "t.parquet", **columns, **{FILES: made_for(folder, 1)})
    with pytest.raises(DataError, match="'zebra': expected a class number"):
        prunus.kept_rows(folder, path, target="label").stream(2)


@pytest.mark.parametrize(
    "wrap", [np.asarray, torch.tensor, pa.array, lambda mask: pa.chunked_array([mask[:3], mask[3:]])]
)
def test_an_array_of_truth_values_of_any_kind_says_which_rows_stay(wrap):
    mask = [True, False, True, True, False, False, False, True, True]
    kept = kept_of_mask(wrap(mask), 9)
    assert kept.mask(0, 9).tolist() == mask
    assert kept.mask(2, 9).tolist() == mask[2:]
    assert kept.counts(np.array([0, 4]), np.array([4, 9])).tolist() == [3, 2]


@pytest.mark.parametrize(
    "mask", [np.ones(8, bool), np.ones(9), np.zeros(9, bool), pa.array([True, None] * 4 + [True]), [[True] * 9]]
)
def test_an_array_that_is_not_one_truth_value_per_row_is_refused(mask):
    with pytest.raises(DataError, match="expected"):
        kept_of_mask(mask, 9)
