"""Are near-duplicates of shards at URLs, written to a URL, those of the same files here, to the byte?"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import prunus
from prunus.cli.app import invoke
from prunus.core.errors import OutputError, RecipeError
from prunus.core.files.urls import store as asked
from prunus.scale import near_duplicates_shards
from prunus.scale.duplicates.bucket_units import Units

sys.path.insert(0, str(Path(__file__).parent))
from test_scale_near_duplicates_shards import content, planted

driver = sys.modules["prunus.scale.duplicates.near_duplicates_shards"]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(asked, "_PAUSES_SECONDS", (0.0, 0.0))
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)


@pytest.fixture
def shards(tmp_path, store, bucket):
    """Rows in files of two kinds, here and in a bucket."""
    rows = planted(600, 6)
    folder = tmp_path / "in"
    folder.mkdir()
    np.save(folder / "a.npy", rows[:200])
    for name, part in (("b", rows[200:350]), ("c", rows[350:])):
        pq.write_table(
            pa.table({"e": pa.FixedSizeListArray.from_arrays(part.reshape(-1), 6)}), folder / f"{name}.parquet"
        )
    store.put_folder(bucket, "in", folder)
    return folder


def held(store, bucket, prefix="out/"):
    keys = [key for key in store.keys(bucket) if key.startswith(prefix) and key.endswith(".parquet")]
    return {key.removeprefix(prefix): store.get(bucket, key) for key in keys}


@pytest.mark.parametrize("workers", [1, 2])
def test_both_ends_at_urls_give_the_bytes_of_both_ends_here(shards, store, bucket, tmp_path, workers):
    alone = near_duplicates_shards([shards], tmp_path / "out", cosine=0.98)
    found = near_duplicates_shards([f"s3://{bucket}/in"], f"s3://{bucket}/out", cosine=0.98, workers=workers)
    assert held(store, bucket) == content(tmp_path / "out")
    assert len(content(tmp_path / "out")) == 3
    assert (found.rows, found.kept, found.groups) == (alone.rows, alone.kept, alone.groups)
    assert not [key for key in store.keys(bucket) if "work" in key]
    again = near_duplicates_shards([f"s3://{bucket}/in"], f"s3://{bucket}/out", cosine=0.98, resume=True)
    assert again == found


def test_what_stays_can_be_trained_on_where_it_lies(shards, store, bucket):
    there, out = [f"s3://{bucket}/in/{name}.parquet" for name in "bc"], f"s3://{bucket}/out"
    found = near_duplicates_shards(there, out, cosine=0.98)
    kept = prunus.kept_rows(there, out, where=lambda found: found["stays"])
    assert 0 < len(kept) == found.kept < found.rows


class Stopped(BaseException):
    pass


def test_what_was_stopped_goes_on_from_the_folder_that_is_named_for_it(shards, store, bucket, tmp_path, monkeypatch):
    def run(**more):
        return near_duplicates_shards(
            [f"s3://{bucket}/in"], f"s3://{bucket}/out", cosine=0.98, work=tmp_path / "w", **more
        )

    near_duplicates_shards([shards], tmp_path / "out", cosine=0.98)
    done, whole = [], Units.__call__
    monkeypatch.setattr(Units, "__call__", lambda self, task: done.append(task) or whole(self, task))
    finish = driver.ScoringState.finish

    def stopped(self, shard, path, facts):
        finish(self, shard, path, facts)
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(driver.ScoringState, "finish", stopped)
        with pytest.raises(Stopped):
            run()
    with pytest.raises(OutputError, match=r"holds a run of this kind: go on with --resume"):
        run()
    n = len(done)
    run(resume=True)
    assert len(done) == n, "no unit was done again"
    assert held(store, bucket) == content(tmp_path / "out")
    assert not list((tmp_path / "w").iterdir())


def test_without_such_a_folder_it_begins_anew_and_a_cluster_needs_one(shards, store, bucket, tmp_path, monkeypatch):
    url = f"s3://{bucket}/out"
    near_duplicates_shards([shards], tmp_path / "out", cosine=0.98)
    with monkeypatch.context() as patch:
        patch.setattr(driver, "_write_tables", lambda *_: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            near_duplicates_shards([f"s3://{bucket}/in"], url, cosine=0.98)
    near_duplicates_shards([f"s3://{bucket}/in"], url, cosine=0.98, resume=True)
    assert held(store, bucket) == content(tmp_path / "out")
    with pytest.raises(
        RecipeError, match=r"a folder that all of them see: .*which is a URL; name such a folder with --work"
    ):
        near_duplicates_shards([shards], f"s3://{bucket}/other", backend="ray")
    with pytest.raises(RecipeError, match="the folder of what is kept on the way can't be a URL"):
        near_duplicates_shards([shards], f"s3://{bucket}/other", work=f"s3://{bucket}/w")
    assert [key for key in store.keys(bucket) if key.startswith("other")] == []


def test_a_url_that_holds_something_else_is_left_alone(shards, store, bucket):
    before = held(store, bucket, "in/")
    with pytest.raises(OutputError, match=r"in isn't empty \(a\.npy\): choose another folder"):
        near_duplicates_shards([f"s3://{bucket}/in"], f"s3://{bucket}/in")
    assert held(store, bucket, "in/") == before


def test_an_object_that_is_damaged_or_goes_is_named_and_going_on_mends_it(shards, store, bucket, tmp_path, capsys):
    url, line = f"s3://{bucket}/out", ("--cosine", "0.98", "--work", str(tmp_path / "w"), "--json")
    near_duplicates_shards([shards], tmp_path / "out", cosine=0.98)
    store.put(bucket, "in/b.parquet", b"spoilt")
    assert invoke(["duplicates-shards", f"s3://{bucket}/in", "--output", url, *line]) == 10
    said = capsys.readouterr()
    assert list(json.loads(said.out)["failed"]) == [f"s3://{bucket}/in/b.parquet"]
    assert said.err.count(f"s3://{bucket}/in/b.parquet") == 1
    store.put(bucket, "in/b.parquet", (shards / "b.parquet").read_bytes())
    assert invoke(["duplicates-shards", f"s3://{bucket}/in", "--output", url, *line, "--resume"]) == 0
    assert held(store, bucket) == content(tmp_path / "out")
    rows = np.load(shards / "a.npy")[::-1]
    raw = io.BytesIO()
    np.save(raw, rows)
    store.put(bucket, "in/a.npy", raw.getvalue())
    with pytest.raises(OutputError, match=r"a\.npy was changed since the search that the output folder holds"):
        near_duplicates_shards([f"s3://{bucket}/in"], url, cosine=0.98, resume=True)
