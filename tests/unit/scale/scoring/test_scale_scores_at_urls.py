"""Are shards at a URL scored as those of this machine, bit for bit, whatever breaks on the way?"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from patience import PATIENCE_S
from prunus.core.errors import OutputError
from prunus.core.files.urls import store as asked
from prunus.core.files.urls.url_path import path_at
from prunus.scale import score_shards

sys.path.insert(0, str(Path(__file__).parent))
import shard_jobs

N = 8_000


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(asked, "_PAUSES_SECONDS", (0.0, 0.0))
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)


@pytest.fixture
def shards(tmp_path, store, bucket):
    """Three shards of this machine, and the same in a bucket; half of their bytes is a column that nobody reads."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        random = np.random.default_rng(number)
        columns = {name: random.random(N) for name in ("a", "b")} | {"wide": random.random((N, 6)).tolist()}
        pq.write_table(pa.table(columns), folder / f"part-{number}.parquet", row_group_size=N // 4)
    store.put_folder(bucket, "in", folder)
    return folder


def run(given, output, kind=shard_jobs.Sums, *arguments, **options):
    return score_shards([given], output, shard_jobs.Opens(kind, *arguments), settings={"of": "test"}, **options)


def held(store, bucket, prefix="out/"):
    keys = [key for key in store.keys(bucket) if key.startswith(prefix) and key.endswith(".parquet")]
    return {key.removeprefix(prefix): store.get(bucket, key) for key in keys}


def content(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


@pytest.mark.parametrize("workers", [1, 2])
def test_scores_are_the_same_to_the_bit_and_only_the_columns_that_are_scored_are_fetched(
    shards, store, bucket, tmp_path, workers
):
    before = store.bytes_sent
    found = run(path_at(f"s3://{bucket}/in"), path_at(f"s3://{bucket}/out"), workers=workers)
    sent = store.bytes_sent - before
    run(shards, tmp_path / "local")
    assert not found.failed
    assert found.rows == 3 * N
    assert held(store, bucket) == content(tmp_path / "local")
    needed = 0
    for path in shards.iterdir():
        metadata = pq.read_metadata(path)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        needed += sum(group.column(place).total_compressed_size for group in groups for place in (0, 1))
    whole = sum(path.stat().st_size for path in shards.iterdir())
    # What is beside the columns: where a file ends, and the whole of it once, for its print.
    assert sent < needed + 3 * (3 << 16) + whole
    assert 3 * needed < whole


def test_each_shards_weight_stands_beside_it_and_a_resume_reads_no_data_again(shards, store, bucket):
    given, output = path_at(f"s3://{bucket}/in"), path_at(f"s3://{bucket}/out")
    run(given, output)
    state = json.loads(store.get(bucket, "out/.prunus-scores.json"))
    assert {name: entry["sha256"] for name, entry in state["done"].items()} == {
        name: hashlib.sha256(raw).hexdigest() for name, raw in held(store, bucket).items()
    }
    n = len(store.requests)
    again = run(given, output, resume=True)
    assert (again.shards, again.shards_resumed) == (3, 3)
    assert not [path for method, path, _ in store.requests[n:] if method == "GET" and path.endswith(".parquet")]


def test_what_changed_at_either_end_is_done_again_and_nothing_else(shards, store, bucket, tmp_path):
    given, output = path_at(f"s3://{bucket}/in"), path_at(f"s3://{bucket}/out")
    run(given, output)
    expected = held(store, bucket)
    store.put(bucket, "out/part-0.parquet", b"spoilt")
    store.client().delete_object(Bucket=bucket, Key="out/part-1.parquet")
    assert run(given, output, resume=True).shards_resumed == 1
    assert held(store, bucket) == expected
    pq.write_table(pa.table({"a": [1.0], "b": [2.0]}), tmp_path / "new.parquet")
    store.put(bucket, "in/part-2.parquet", (tmp_path / "new.parquet").read_bytes())
    found = run(given, output, resume=True)
    assert (found.shards_resumed, found.rows) == (2, 2 * N + 1)


def test_a_folder_that_holds_a_run_or_anything_is_refused(shards, store, bucket):
    given, output = path_at(f"s3://{bucket}/in"), path_at(f"s3://{bucket}/out")
    run(given, output)
    with pytest.raises(OutputError, match="go on with --resume"):
        run(given, output)
    with pytest.raises(OutputError, match=r"isn't empty \(part-0.parquet\)"):
        run(given, given)


def test_two_runs_into_one_url_are_noticed_though_it_cannot_be_locked(shards, store, bucket):
    given, output = path_at(f"s3://{bucket}/in"), path_at(f"s3://{bucket}/out")

    def other(event):
        if event.kind == "progress" and event.done == 1:
            store.put(bucket, "out/.prunus-scores.json", b"{}")

    with pytest.raises(OutputError, match="another run is writing to"):
        run(given, output, listener=other)


def test_a_shard_that_lists_but_does_not_read_is_named_and_the_others_are_scored(shards, store, bucket):
    given, output = path_at(f"s3://{bucket}/in"), path_at(f"s3://{bucket}/out")

    def fault(method, path):
        return "deny" if method == "GET" and path.endswith("in/part-1.parquet") else None

    with store.faults(fault):
        found = run(given, output)
    assert found.shards == 2
    ((name, said),) = found.failed.items()
    assert name == f"s3://{bucket}/in/part-1.parquet"
    assert said.startswith("access denied, these credentials may not read it")
    assert run(given, output, resume=True).shards_resumed == 2
    assert sorted(held(store, bucket)) == [f"part-{number}.parquet" for number in range(3)]


def test_a_read_that_breaks_once_costs_nothing_and_one_that_always_does_is_named(shards, store, bucket, tmp_path):
    given = path_at(f"s3://{bucket}/in")
    run(shards, tmp_path / "local")
    n_broken = []

    def now_and_then(method, path):
        if method == "GET" and path.endswith(".parquet") and len(store.requests) % 5 == 0:
            n_broken.append(path)
            return "break"
        return None

    with store.faults(now_and_then):
        run(given, path_at(f"s3://{bucket}/out"))
    assert n_broken
    assert held(store, bucket) == content(tmp_path / "local")
    with store.faults(lambda method, path: "break" if method == "GET" and path.endswith("0.parquet") else None):
        found = run(given, path_at(f"s3://{bucket}/other"), retries=1)
    ((name, said),) = found.failed.items()
    assert name.endswith("part-0.parquet")
    assert "the connection to the store broke, 3 times" in said
    assert said.endswith("(2 tries)")


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import shard_jobs
from prunus.core.files.urls.url_path import path_at
from prunus.scale import score_shards
score_shards([path_at(sys.argv[2])], path_at(sys.argv[3]), shard_jobs.Opens(shard_jobs.Sums), settings={"of": "test"})
"""


@pytest.mark.parametrize("put", [2, 4])
def test_a_kill_while_something_is_sent_leaves_nothing_half_written_and_a_resume_finishes(
    shards, store, bucket, tmp_path, put
):
    run(shards, tmp_path / "local")
    n_puts, processes = [0], []

    def kill(method, path):
        if method == "PUT" and "/out/" in path:
            n_puts[0] += 1
            if n_puts[0] == put:
                processes[0].kill()
                processes[0].wait()
                return "deny"
        return None

    with store.faults(kill):
        where = [f"s3://{bucket}/in", f"s3://{bucket}/out"]
        processes.append(
            subprocess.Popen([sys.executable, "-c", CHILD, str(Path(__file__).parent), *where], env={**os.environ})
        )
        processes[0].wait(timeout=PATIENCE_S)
    expected = content(tmp_path / "local")
    assert all(raw == expected[name] for name, raw in held(store, bucket).items()), "whole, or not at all"
    run(path_at(where[0]), path_at(where[1]), resume=True)
    assert held(store, bucket) == expected
