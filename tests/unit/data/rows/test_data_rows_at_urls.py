"""Do rows at a URL read as those of this machine, of whatever kind the files are, and is no more fetched than is needed?"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import prunus
from prunus.core.errors import DataError
from prunus.core.files.urls.url_path import path_at
from prunus.core.recipes.recipe import Data
from prunus.data import open_row_set, rows_in
from prunus.data.rows.file_prints import file_print
from prunus.data.rows.walk import read_group, walk

sys.path.insert(0, str(Path(__file__).parent))
import row_jobs

N = 90


@pytest.fixture(params=["parquet", "arrow", "csv", "npy"])
def folder(request, tmp_path, store, bucket):
    found = row_jobs.write(tmp_path / "in", request.param, 2, N)
    store.put_folder(bucket, "in", found)
    return found


def rows_of(given, columns=None):
    return pa.Table.from_batches([batch for _, batch in walk(open_row_set([given]), columns, 50)])


def test_rows_prints_and_groups_are_those_of_the_same_files_here(folder, bucket):
    here, there = open_row_set([folder]), open_row_set([path_at(f"s3://{bucket}/in")])
    assert there.fingerprint == here.fingerprint
    assert there.schema == here.schema
    np.testing.assert_array_equal(there.ends, here.ends)
    assert rows_of(path_at(f"s3://{bucket}/in")) == rows_of(folder)
    names = here.schema.names[-1:]
    assert rows_of(path_at(f"s3://{bucket}/in"), names) == rows_of(folder, names)


def test_the_print_of_a_small_object_takes_one_way_to_the_store_for_its_facts(folder, store, bucket):
    path = next(folder.iterdir())
    n = len(store.requests)
    assert file_print(path_at(f"s3://{bucket}/in/{path.name}")) == file_print(path)
    asked = [method for method, *_ in store.requests[n:]]
    assert asked.count("HEAD") <= 2, "whether it is there, and for the file"


def test_a_pattern_names_files_and_no_class_folders(store, bucket):
    for name in ("mixed/a.csv", "mixed/plot.png", "classes/labels.csv", "classes/cats/0.png", "classes/dogs/0.png"):
        store.put(bucket, name, b"a,label\n1,0\n")

    def are_rows(name, **more):
        return rows_in(path_at(f"s3://{bucket}/{name}"), Data(source=f"s3://{bucket}/{name}", **more))

    assert are_rows("mixed/*")
    assert are_rows("mixed")
    assert are_rows("classes", target="label")
    assert not are_rows("classes", args={"mode": "L"})
    with pytest.raises(DataError, match="and class folders of images"):
        are_rows("classes")


def test_a_training_loop_gets_the_same_batches_with_and_without_workers(folder, bucket):
    mask = np.arange(2 * N) % 3 > 0
    found = []
    for given in (str(folder), f"s3://{bucket}/in"):
        for n_workers in (0, 2) if given.startswith("s3") else (0,):
            rows = prunus.kept_rows(given, mask, target="label")
            loader = rows.loader(16, num_workers=n_workers, n_lanes=2, window_rows=64)
            found.append([torch.cat([part.flatten().double() for part in batch]) for batch in loader])
    for other in found[1:]:
        assert len(other) == len(found[0])
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_what_lies_at_a_url_can_be_read_by_index_once_it_is_converted(folder, bucket, tmp_path):
    rows = prunus.kept_rows(f"s3://{bucket}/in", target="label")
    with pytest.raises(DataError, match="can't be read by index as it lies"):
        rows.mapped()
    made, own = rows.mapped(tmp_path / "made"), prunus.kept_rows(folder, target="label").mapped(tmp_path / "own")
    assert all(torch.equal(a, b) for a, b in zip(made[[0, 5, 150]], own[[0, 5, 150]], strict=True))


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_one_column_of_many_is_fetched_without_the_others(tmp_path, store, bucket, ending):
    random = np.random.default_rng(0)
    table = pa.table({"a": random.random(20_000), **{f"x{place}": random.random(20_000) for place in range(20)}})
    path = tmp_path / f"x.{ending}"
    if ending == "parquet":
        pq.write_table(table, path, row_group_size=5000)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=5000)
    store.put(bucket, path.name, path.read_bytes())
    rows = open_row_set([path_at(f"s3://{bucket}/{path.name}")])
    before = store.bytes_sent
    found = pa.Table.from_batches([batch for _, batch in walk(rows, ["a"])])
    assert found["a"].combine_chunks() == table["a"].combine_chunks()
    assert store.bytes_sent - before < path.stat().st_size / 4


def test_the_rows_of_one_group_are_fetched_without_the_others(tmp_path, store, bucket):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((200_000, 2)))
    store.put(bucket, "x.npy", (tmp_path / "x.npy").read_bytes())
    rows = open_row_set([path_at(f"s3://{bucket}/x.npy")])
    before = store.bytes_sent
    for place, batch in read_group(rows, 2, ["x"]):
        assert place >= 2 << 16
        assert batch.num_rows
    assert store.bytes_sent - before < 65536 * 16 * 2


def test_an_object_that_is_written_anew_between_opening_and_reading_is_refused(folder, store, bucket):
    rows = open_row_set([path_at(f"s3://{bucket}/in")])
    name = rows.files[1].name
    store.put(bucket, f"in/{name}", (folder / name).read_bytes()[::-1])
    with pytest.raises(DataError, match=f"{name}: it was changed since it was listed"):
        list(walk(rows, None))


def test_an_array_that_cannot_be_fetched_row_by_row_is_refused(tmp_path, store, bucket):
    np.save(tmp_path / "f.npy", np.asfortranarray(np.ones((3, 2))))
    np.save(tmp_path / "o.npy", np.array([{}, {}], object), allow_pickle=True)
    for name, said in (("f.npy", "column after column"), ("o.npy", "Python objects"), ("cut.npy", "holds")):
        raw = (tmp_path / name.replace("cut", "f")).read_bytes()
        store.put(bucket, name, raw.replace(b"True", b"False")[:-9] if name == "cut.npy" else raw)
        with pytest.raises(DataError, match=said):
            open_row_set([path_at(f"s3://{bucket}/{name}")])
