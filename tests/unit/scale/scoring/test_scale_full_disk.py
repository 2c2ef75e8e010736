"""Is a disk that is full while scores or a table are written one line, with nothing half-written, and does a resume go on?"""

import os
import resource
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prunus.core.errors import OutputError
from prunus.core.files.example_table import ExampleTable, read_example_table, write_example_table
from prunus.scale import score_shards

sys.path.insert(0, str(Path(__file__).parent))
import shard_jobs


def on_a_full_disk(work, n_bytes):
    """Return what ``work`` says in a process whose files can't become larger than so many bytes."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        said = "nothing was raised"
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
            work()
        except OutputError as error:
            said = str(error)
        except BaseException as error:
            said = repr(error)
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        return pipe.read()


@pytest.fixture
def shards(tmp_path):
    (tmp_path / "in").mkdir()
    for number, n in enumerate((200, 300, 20_000, 250)):
        random = np.random.default_rng(number)
        pq.write_table(
            pa.table({"a": random.random(n), "b": random.random(n)}), tmp_path / "in" / f"part-{number}.parquet"
        )
    return tmp_path / "in"


def score(shards, output, **options):
    return score_shards([shards], output, shard_jobs.Opens(shard_jobs.Sums), settings={"of": "test"}, **options)


def test_shards_that_were_done_stay_and_a_resume_ends_as_if_the_disk_had_not_been_full(shards, tmp_path):
    output = tmp_path / "out"
    said = on_a_full_disk(lambda: score(shards, output), 20_000)
    assert said.startswith(f"no space left to write {output / 'part-2.parquet'}: free some space")
    assert "\n" not in said
    assert sorted(path.name for path in output.glob("*.parquet")) == ["part-0.parquet", "part-1.parquet"]
    assert [path.name for path in output.iterdir() if path.name.endswith(".part")] == []
    found = score(shards, output, resume=True)
    assert (found.shards, found.shards_resumed, found.rows) == (4, 2, 20_750)
    whole = tmp_path / "whole"
    score(shards, whole)
    for path in whole.glob("*.parquet"):
        assert (output / path.name).read_bytes() == path.read_bytes()


def test_two_processes_say_it_once_too(shards, tmp_path):
    said = on_a_full_disk(lambda: score(shards, tmp_path / "out", workers=2), 20_000)
    assert said.startswith(f"no space left to write {tmp_path / 'out' / 'part-2.parquet'}")
    assert score(shards, tmp_path / "out", resume=True).rows == 20_750


def test_a_table_of_examples_stays_as_it_was(tmp_path):
    path = tmp_path / "examples.parquet"
    write_example_table(ExampleTable(("a",), "f"), path)
    large = ExampleTable(tuple(map(str, range(20_000))), "f", {"loss": np.random.default_rng(0).random(20_000)})
    said = on_a_full_disk(lambda: write_example_table(large, path), 20_000)
    assert said.startswith(f"no space left to write {path}")
    assert [child.name for child in tmp_path.iterdir()] == ["examples.parquet"]
    assert read_example_table(path).ids == ("a",)
    write_example_table(large, path)
    assert len(read_example_table(path)) == 20_000
