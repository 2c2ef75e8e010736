"""Are the moments of shards those of the rows in memory, and do neither workers, a stop nor who is done first change a bit?"""

import random
import sys
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.errors import DataError, OutputError, RunError
from prunus.scale import moments_of_shards
from prunus.scale.moments.moments_of_shards import Moments, joined, shard_moments

moments_module = sys.modules[shard_moments.__module__]


def save(folder, rows, cuts):
    paths = []
    for number, part in enumerate(np.split(rows, cuts)):
        paths.append(folder / f"part-{number}.npy")
        np.save(paths[-1], part)
    return paths


@pytest.fixture
def shards(tmp_path):
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((9300, 6)) @ draw.standard_normal((6, 6)) + draw.standard_normal(6) * 50
    return save(tmp_path, rows, [700, 701, 6000, 6100]), rows


def bits(found):
    return found.n_rows, found.mean.tobytes(), found.covariance.tobytes()


def test_they_are_those_of_all_rows_in_memory(shards, tmp_path):
    paths, rows = shards
    found = moments_of_shards(paths, tmp_path / "out")
    assert found.n_rows == len(rows)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.covariance, np.cov(rows.T, bias=True), rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(found.gram, rows.T @ rows / len(rows), rtol=1e-12)
    np.testing.assert_allclose(found.second_moment, (rows**2).mean(axis=0), rtol=1e-12)
    held = np.load(tmp_path / "out" / "moments.npz")
    assert (held["n_rows"], held["mean"].tobytes(), held["covariance"].tobytes()) == bits(found)
    ours = {".lock", ".prunus-moments.json", "moments.npz"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == ours


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(1, 5), st.lists(st.integers(1, 300), min_size=1, max_size=6), st.integers(-5, 5)
)
def test_joined_moments_are_those_of_numpy_up_to_rounding_however_far_from_zero_the_rows_are(seed, width, sizes, far):
    draw = np.random.default_rng(seed)
    rows = draw.standard_normal((sum(sizes), width)) + 10.0**far
    total = None
    for part in np.split(rows, np.cumsum(sizes)[:-1]):
        values = torch.from_numpy(part)
        mean = values.mean(dim=0)
        total = joined(total, Moments(len(values), mean, (values - mean).t() @ (values - mean)))
    assert total.n == len(rows)
    np.testing.assert_allclose(total.mean, rows.mean(axis=0), rtol=1e-12, atol=1e-14)
    centred = rows - rows.mean(axis=0)
    np.testing.assert_allclose(total.scatter, centred.T @ centred, rtol=1e-9, atol=1e-9)


def test_one_core_adds_up_a_shard_whoever_asks(shards, tmp_path, monkeypatch):
    paths, _ = shards
    rows_of, seen = moments_module.rows_of, []
    monkeypatch.setattr(
        moments_module, "rows_of", lambda *args: (seen.append(torch.get_num_threads()), rows_of(*args))[1]
    )
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        moments_of_shards(paths, tmp_path / "out")
    finally:
        torch.set_num_threads(before)
    assert seen == [1] * len(paths)


def test_two_workers_give_what_one_gives_to_the_bit(shards, tmp_path):
    paths, _ = shards
    assert bits(moments_of_shards(paths, tmp_path / "one")) == bits(
        moments_of_shards(paths, tmp_path / "two", workers=2)
    )


@contextmanager
def shuffled(function, **options):
    """Do all tasks in another order than they came."""

    class Opened:
        def map(self, tasks):
            for number in random.Random(3).sample(range(len(tasks)), len(tasks)):
                yield number, function(tasks[number])

    yield Opened()


def test_they_hang_on_the_order_of_the_shards_and_not_on_who_is_done_first(tmp_path, monkeypatch):
    rows = np.random.default_rng(1).standard_normal((900, 4)) + 3
    paths = save(tmp_path, rows, list(range(20, 900, 20)))
    in_order = moments_of_shards(paths, tmp_path / "one")
    monkeypatch.setattr(moments_module, "_JOINED_AT_ONCE", 4)
    monkeypatch.setattr(moments_module, "open_workers", shuffled)
    assert bits(moments_of_shards(paths, tmp_path / "two")) == bits(in_order)


@pytest.mark.parametrize("at_once", [2, 32])
def test_a_run_that_was_stopped_adds_up_no_shard_twice(shards, tmp_path, monkeypatch, at_once):
    paths, _ = shards
    whole, done = moments_of_shards(paths, tmp_path / "whole"), []
    monkeypatch.setattr(moments_module, "_JOINED_AT_ONCE", at_once)

    def stops(task):
        if task.shard == paths[3]:
            raise KeyboardInterrupt
        done.append(task.shard)
        shard_moments(task)

    monkeypatch.setattr(moments_module, "shard_moments", stops)
    with pytest.raises(KeyboardInterrupt):
        moments_of_shards(paths, tmp_path / "out")
    held = {path.name for path in (tmp_path / "out").iterdir() if path.name.startswith((".shard", ".joined"))}
    assert held == ({".joined", ".shard-2"} if at_once == 2 else {".shard-0", ".shard-1", ".shard-2"})
    monkeypatch.setattr(moments_module, "shard_moments", lambda task: done.append(task.shard) or shard_moments(task))
    assert bits(moments_of_shards(paths, tmp_path / "out", resume=True)) == bits(whole)
    assert done == paths
    assert bits(moments_of_shards(paths, tmp_path / "out", resume=True)) == bits(whole)
    assert done == paths
    with pytest.raises(OutputError, match="holds a run of this kind"):
        moments_of_shards(paths, tmp_path / "out")
    np.save(paths[1], np.load(paths[1]) + 1)
    with pytest.raises(OutputError, match="a run with another shards"):
        moments_of_shards(paths, tmp_path / "out", resume=True)


def test_tables_are_read_by_their_columns(tmp_path):
    rows = np.random.default_rng(0).standard_normal((5000, 3)).astype(np.float32)
    pq.write_table(pa.table({"id": np.arange(5000), **{f"x{k}": rows[:, k] for k in range(3)}}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"e": rows.tolist()}), tmp_path / "b.parquet")
    np.save(tmp_path / "c.npy", rows)
    files = [tmp_path / name for name in ("a.parquet", "b.parquet", "c.npy")]
    by_name = moments_of_shards(files[:1], tmp_path / "a", columns=["x0", "x1", "x2"])
    assert bits(by_name) == bits(moments_of_shards(files[1:2], tmp_path / "b"))
    assert bits(by_name) == bits(moments_of_shards(files[2:], tmp_path / "c"))


def test_what_cannot_be_added_up_is_named_and_the_others_are_done(shards, tmp_path):
    paths, rows = shards
    broken = rows[:9].copy()
    broken[5, 2] = np.nan
    np.save(tmp_path / "odd.npy", broken)
    np.save(tmp_path / "none.npy", rows[:0])
    odd = [tmp_path / "odd.npy", tmp_path / "none.npy"]
    with pytest.raises(RunError, match=r"odd\.npy: .*row 5 has NaN or infinity; leave it out \(1 other shards failed"):
        moments_of_shards([*paths[:2], *odd, paths[4]], tmp_path / "out")
    assert (tmp_path / "out" / ".shard-4").exists()
    np.save(tmp_path / "narrow.npy", rows[:, :3])
    with pytest.raises(DataError, match=r"narrow\.npy: expected 6 numbers per row, as in .*part-0\.npy: got 3"):
        moments_of_shards([paths[0], tmp_path / "narrow.npy"], tmp_path / "narrow")


def test_a_sum_that_a_worker_left_elsewhere_is_missed_and_never_taken_for_the_whole(shards, tmp_path, monkeypatch):
    paths, _ = shards
    real = shard_moments
    monkeypatch.setattr(moments_module, "shard_moments", lambda task: None if task.shard == paths[3] else real(task))
    with pytest.raises(RunError, match=r"part-3\.npy: what a worker gave isn't in .*under the same path"):
        moments_of_shards(paths, tmp_path / "out")
    monkeypatch.undo()
    found = moments_of_shards(paths, tmp_path / "out", resume=True)
    assert bits(found) == bits(moments_of_shards(paths, tmp_path / "whole"))
