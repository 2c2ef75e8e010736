"""Are shards scored row by row, and does a damaged one, a death or a kill cost no other?"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from patience import until
from prunus.core.errors import DataError, OutputError, RecipeError
from prunus.scale import score_shard, score_shards
from prunus.scale.scoring.scoring_state import read_done

sys.path.insert(0, str(Path(__file__).parent))
import shard_jobs


def table(n, seed=0):
    random = np.random.default_rng(seed)
    return pa.table({"id": [f"r{seed}-{i}" for i in range(n)], "a": random.random(n), "b": random.random(n)})


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(5):
        pq.write_table(table(300, number), folder / f"part-{number}.parquet", row_group_size=100)
    return folder


def run(shards, output, kind=shard_jobs.Sums, *given, **options):
    return score_shards([shards], output, shard_jobs.Opens(kind, *given), settings={"of": "test"}, **options)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


@pytest.mark.parametrize("ending", ["parquet", "arrow", "csv"])
@pytest.mark.parametrize("batch_rows", [1, 7, 1000])
def test_every_row_has_its_score_in_its_place_whatever_the_batches(tmp_path, ending, batch_rows):
    given, shard, output = table(40), tmp_path / f"x.{ending}", tmp_path / "out.parquet"
    if ending == "parquet":
        pq.write_table(given, shard, row_group_size=11)
    elif ending == "csv":
        pyarrow.csv.write_csv(given, shard)
    else:
        with pa.ipc.new_file(shard, given.schema) as writer:
            writer.write_table(given, max_chunksize=9)
    facts = score_shard(shard, output, shard_jobs.Sums(), batch_rows=batch_rows, keep=("id",))
    found = pq.read_table(output)
    assert facts.n_rows == 40
    assert facts.columns == tuple(found.column_names) == ("id", "sum")
    assert found["id"].to_pylist() == given["id"].to_pylist()
    np.testing.assert_allclose(found["sum"], np.array(given["a"]) + np.array(given["b"]))


def test_many_groups_of_scores_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["prunus.scale.scoring.score_shard"], "_GROUP_ROWS", 64)
    given = table(300)
    pq.write_table(given, tmp_path / "x.parquet")
    score_shard(tmp_path / "x.parquet", tmp_path / "y.parquet", shard_jobs.Sums(), batch_rows=10)
    np.testing.assert_allclose(
        pq.read_table(tmp_path / "y.parquet")["sum"], np.array(given["a"]) + np.array(given["b"])
    )
    assert pq.ParquetFile(tmp_path / "y.parquet").num_row_groups == 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "it is damaged, or no .parquet file"),
        (lambda path: path.write_bytes(b"nothing"), "it is damaged, or no .parquet file"),
        (lambda path: path.write_bytes(b""), "it is damaged, or no .parquet file"),
        (lambda path: pq.write_table(table(3).drop_columns("b"), path), "there is no column 'b'"),
        (lambda path: pq.write_table(table(0), path), "there is no row in it"),
        (lambda path: path.unlink(), "there is no such file"),
    ],
)
def test_what_is_wrong_with_a_shard_is_said_and_nothing_is_written(shards, tmp_path, change, said):
    change(shards / "part-2.parquet")
    with pytest.raises(DataError, match=said):
        score_shard(shards / "part-2.parquet", tmp_path / "out.parquet", shard_jobs.Sums())
    assert not list(tmp_path.glob("*out*"))


def test_a_page_with_a_flipped_byte_is_noticed_where_the_file_has_checksums(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(table(1000), path, write_page_checksum=True, compression="none", use_dictionary=False)
    bytes_ = bytearray(path.read_bytes())
    place = pq.read_metadata(path).row_group(0).column(1).data_page_offset + 3000
    bytes_[place] ^= 1
    path.write_bytes(bytes_)
    with pytest.raises(DataError, match=r"x\.parquet: it is damaged"):
        score_shard(path, tmp_path / "out.parquet", shard_jobs.Sums())


def test_a_scorer_that_changes_its_mind_is_refused(tmp_path):
    pq.write_table(table(30), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="the same columns for each batch: got two after one"):
        score_shard(tmp_path / "x.parquet", tmp_path / "y.parquet", shard_jobs.Different(), batch_rows=10)
    with pytest.raises(DataError, match="one value per row: got 1 of 's' for 10 rows"):
        score_shard(tmp_path / "x.parquet", tmp_path / "y.parquet", shard_jobs.Short(), batch_rows=10)


def test_a_damaged_shard_is_named_the_others_finish_and_going_on_mends_it(shards, tmp_path):
    whole = tmp_path / "whole"
    run(shards, whole)
    good = (shards / "part-2.parquet").read_bytes()
    (shards / "part-2.parquet").write_bytes(good[:1000])
    found = run(shards, tmp_path / "out")
    assert list(found.failed) == [str(shards / "part-2.parquet")]
    assert found.shards == 4
    assert found.rows == 1200
    assert sorted(content(tmp_path / "out")) == [f"part-{n}.parquet" for n in (0, 1, 3, 4)]
    (shards / "part-2.parquet").write_bytes(good)
    found = run(shards, tmp_path / "out", resume=True)
    assert (found.shards, found.shards_resumed, found.rows, dict(found.failed)) == (5, 4, 1500, {})
    assert content(tmp_path / "out") == content(whole)


def test_several_workers_write_what_one_does(shards, tmp_path):
    one = run(shards, tmp_path / "one")
    counts = tmp_path / "counts"
    counts.mkdir()
    opens = shard_jobs.Opens(shard_jobs.Sums, counts=counts)
    two = score_shards([shards], tmp_path / "two", opens, settings={"of": "test"}, workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert (one.shards, one.rows) == (two.shards, two.rows) == (5, 1500)
    assert len(list(counts.iterdir())) <= 2  # what scores is opened once in each process


def test_a_process_that_dies_is_replaced_and_its_shard_tried_again(shards, tmp_path):
    thirteen = table(300, 3).set_column(1, "a", pa.array([13.0] * 300))
    pq.write_table(thirteen, shards / "part-3.parquet", row_group_size=100)
    run(shards, tmp_path / "one")
    marks = tmp_path / "marks"
    marks.mkdir()
    found = run(shards, tmp_path / "two", shard_jobs.Dies, marks, 2, workers=2, retries=2)
    assert found.failed == {}
    assert content(tmp_path / "one") == content(tmp_path / "two")
    found = run(shards, tmp_path / "three", shard_jobs.Dies, marks, 99, workers=2, retries=1)
    (message,) = found.failed.values()
    assert message == "the process that had it was killed by signal 9, perhaps for lack of memory (2 tries)"
    assert found.shards == 4
    left = [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]
    assert left == []  # what the killed ones had half-written


def test_a_passing_fault_is_tried_again(shards, tmp_path):
    found = run(shards, tmp_path / "out", shard_jobs.Fails, retries=1)
    assert set(found.failed.values()) == {"RuntimeError: a passing fault (2 tries)"}
    assert found.shards == 0


def test_what_was_scored_of_another_source_or_was_changed_since_is_scored_anew(shards, tmp_path):
    out = tmp_path / "out"
    run(shards, out)
    pq.write_table(table(200, 99), shards / "part-1.parquet")
    (out / "part-4.parquet").write_bytes(b"changed")
    found = run(shards, out, resume=True)
    assert (found.shards, found.shards_resumed, found.rows) == (5, 3, 1400)
    run(shards, tmp_path / "anew")
    assert content(out) == content(tmp_path / "anew")


def test_a_run_with_other_settings_is_not_gone_on_with(shards, tmp_path):
    run(shards, tmp_path / "out")
    with pytest.raises(OutputError, match="go on with --resume"):
        run(shards, tmp_path / "out")
    with pytest.raises(OutputError, match="a run with another batch_rows"):
        run(shards, tmp_path / "out", batch_rows=5, resume=True)
    state = tmp_path / "out" / ".prunus-scores.json"
    state.write_text(state.read_text().replace("test", "text"))
    with pytest.raises(OutputError, match="this state is damaged or was changed"):
        run(shards, tmp_path / "out", resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(OutputError, match=r"isn't empty \(mine.txt\)"):
        run(shards, tmp_path / "full")


def test_shards_that_cannot_be_told_apart_or_are_not_there_are_refused(shards, tmp_path):
    (tmp_path / "b").mkdir()
    pq.write_table(table(3), tmp_path / "b" / "part-1.parquet")
    opens = shard_jobs.Opens(shard_jobs.Sums)
    with pytest.raises(DataError, match="would have one name"):
        score_shards([shards, tmp_path / "b"], tmp_path / "out", opens, settings={})
    with pytest.raises(DataError, match="there is no such file"):
        score_shards([tmp_path / "none.parquet"], tmp_path / "out", opens, settings={})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file in this folder ends in"):
        score_shards([tmp_path / "empty"], tmp_path / "out", opens, settings={})
    with pytest.raises(RecipeError, match="workers >= 1"):
        run(shards, tmp_path / "out", workers=0)


CHILD = """
import sys
sys.path.insert(0, {here!r})
import shard_jobs
from pathlib import Path
from prunus.scale import score_shards
if __name__ == "__main__":
    opens = shard_jobs.Opens(shard_jobs.StopsAfter, 9)
    score_shards([Path({shards!r})], Path({out!r}), opens, settings={{"of": "test"}}, batch_rows=50,
                 workers={workers})
"""


def noted(out):
    """How many shards the run's state says are done."""
    try:
        return len(read_done(out)[1])
    except (OSError, OutputError):
        return 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_files(shards, tmp_path, workers):
    out, script = tmp_path / "out", tmp_path / "child.py"
    here = str(Path(__file__).parent)
    script.write_text(CHILD.format(here=here, shards=str(shards), out=str(out), workers=workers))
    child = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
    until(lambda: noted(out) == workers)  # six batches a shard: each worker is in the middle of its second
    os.killpg(child.pid, signal.SIGKILL)  # with its workers
    child.wait()
    assert 0 < len(content(out)) < 5
    found = run(shards, out, batch_rows=50, resume=True)
    assert found.shards_resumed >= 1
    run(shards, tmp_path / "whole", batch_rows=50)
    assert content(out) == content(tmp_path / "whole")
    assert not [path for path in out.iterdir() if path.name.endswith(".part")]
