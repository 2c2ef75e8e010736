"""Do the scores of a pass say which rows stay, and are those of other files refused?"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import prunus
from prunus.cli.app import invoke
from prunus.core.errors import DataError, PlanError


@pytest.fixture
def scored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "where_code.py").write_text(
        "def formula():\n    return lambda batch: {'twice': 2 * batch.column('a').to_numpy()}\n"
    )
    (tmp_path / "data").mkdir()
    for number in range(2):
        a = np.arange(100, dtype=np.float32) + 100 * number
        pq.write_table(
            pa.table({"a": a, "label": np.arange(100) % 2}), f"data/part-{number}.parquet", row_group_size=30
        )
    assert invoke(["score-shards", "where_code:formula", "data", "--output", "scores", "--quiet"]) == 0
    return tmp_path


def large(scores):
    return scores["twice"] >= 150


def test_the_rows_whose_scores_a_function_takes_are_streamed(scored):
    rows = prunus.kept_rows("data", "scores", target="label", where=large)
    assert len(rows) == 125
    found = np.concatenate([position.numpy() for position, _, _ in rows.loader(10)])
    assert sorted(found.tolist()) == list(range(75, 200))


def test_files_that_were_moved_are_the_same_and_changed_ones_are_refused(scored):
    (scored / "data").rename(scored / "moved")
    assert len(prunus.kept_rows("moved", "scores", where=large)) == 125
    pq.write_table(pa.table({"a": np.zeros(100, np.float32), "label": np.arange(100) % 2}), "moved/part-1.parquet")
    with pytest.raises(PlanError, match="scores of part-1 were made for another file"):
        prunus.kept_rows("moved", "scores", where=large)


def test_a_file_without_scores_is_named(scored):
    pq.write_table(pa.table({"a": np.zeros(10, np.float32), "label": np.arange(10) % 2}), "data/part-2.parquet")
    with pytest.raises(PlanError, match=r"part-2.parquet has no scores"):
        prunus.kept_rows("data", "scores", where=large)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (None, "say which rows stay"),
        (lambda scores: scores["loss"] > 0, "there is no score 'loss': got twice"),
        (lambda scores: scores["twice"], "a truth value per row, .100,. of bool: got float32"),
        (lambda scores: 1 / 0, "where failed: ZeroDivisionError"),
        (lambda scores: scores["twice"] < 0, "expected rows that stay: got none of 200"),
    ],
)
def test_a_function_that_says_nothing_of_use_is_refused(scored, where, said):
    with pytest.raises(DataError, match=said):
        prunus.kept_rows("data", "scores", where=where)


def test_a_function_goes_with_scores_alone(scored):
    with pytest.raises(DataError, match="where is for a folder of scores"):
        prunus.kept_rows("data", where=large)
