"""Are the clusters of shards those of the rows in memory, and do neither workers nor a lost one change a bit?"""

import sys

import numpy as np
import pytest

from prunus.core.errors import DataError, OutputError, RecipeError, RunError
from prunus.scale import k_means_shards
from prunus.scale.clusters.k_means_shards import Task, one_pass
from prunus.score import k_means

k_means_module = sys.modules[one_pass.__module__]


@pytest.fixture
def shards(tmp_path):
    draw = np.random.default_rng(0)
    middles = draw.standard_normal((12, 6)) * 3
    rows = (middles[draw.integers(0, 12, 3000)] + draw.standard_normal((3000, 6))).astype(np.float32)
    parts = np.split(rows, [700, 701, 2200])
    paths = [tmp_path / f"part-{number}.npy" for number in range(4)]
    for path, part in zip(paths, parts, strict=True):
        np.save(path, part)
    return paths, rows


@pytest.mark.parametrize("max_passes", [1, 25])
def test_they_are_those_of_all_rows_in_memory(shards, tmp_path, max_passes):
    paths, rows = shards
    found = k_means_shards(paths, 9, tmp_path / "out", seed=3, max_passes=max_passes)
    alone = k_means(rows, 9, seed=3, max_passes=max_passes)
    assert np.concatenate([np.load(path) for path in found.files]).tolist() == alone.cluster.tolist()
    np.testing.assert_allclose(found.centres, alone.centres, rtol=1e-6)
    assert (found.n_rows, found.n_passes) == (3000, alone.n_passes)
    ours = [".lock", ".prunus-k-means-centres.npy", ".prunus-k-means.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*ours, *(path.name for path in paths)]


def test_two_workers_give_what_one_gives_to_the_bit(shards, tmp_path):
    paths, _ = shards
    one = k_means_shards(paths, 9, tmp_path / "one")
    two = k_means_shards(paths, 9, tmp_path / "two", workers=2)
    assert one.centres.numpy().tobytes() == two.centres.numpy().tobytes()
    for path in one.files:
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_shard_that_is_done_again_finds_what_it_found_the_first_time(shards, tmp_path):
    paths, _ = shards
    output = tmp_path / "out"
    output.mkdir()
    np.save(tmp_path / "centres.npy", np.load(paths[0])[:9])
    first = Task(paths[0], tmp_path / "centres.npy", None, output / "1.npy")
    second = Task(paths[0], tmp_path / "centres.npy", output / "1.npy", output / "2.npy")
    assert [one.n_changed for one in map(one_pass, (first, first, second, second))] == [700, 700, 0, 0]


def test_the_folder_of_the_shards_is_no_output_and_they_stay_as_they_are(shards, tmp_path):
    paths, _ = shards
    before = [path.read_bytes() for path in paths]
    with pytest.raises(OutputError, match=r"isn't empty \(part-0\.npy\): choose another folder"):
        k_means_shards(paths, 9, tmp_path)
    assert [path.read_bytes() for path in paths] == before


def test_what_cannot_be_clustered_is_named(shards, tmp_path):
    paths, rows = shards
    with pytest.raises(RecipeError, match="3000 rows make 1 to 3000 clusters: got 0"):
        k_means_shards(paths, 0, tmp_path / "out")
    np.save(tmp_path / "narrow.npy", rows[:, :3])
    with pytest.raises(DataError, match=r"narrow\.npy: expected 6 features, as in .*part-0\.npy: got 3"):
        k_means_shards([*paths, tmp_path / "narrow.npy"], 3, tmp_path / "out")
    (tmp_path / "cut.npy").write_bytes(paths[0].read_bytes()[:300])
    with pytest.raises(DataError, match=r"cut\.npy: no matrix can be read from it"):
        k_means_shards([tmp_path / "cut.npy"], 3, tmp_path / "out")
    rows[5, 2] = np.nan
    np.save(tmp_path / "odd.npy", rows)
    with pytest.raises(RunError, match=r"odd\.npy: coverage needs finite rows: row 5 has NaN"):
        k_means_shards([paths[0], tmp_path / "odd.npy"], 3, tmp_path / "out")
    with pytest.raises(DataError, match="their clusters would have one name"):
        k_means_shards([paths[0], tmp_path / "other" / "part-0.npy"], 3, tmp_path / "out")


def test_a_finished_run_is_left_as_it_was(shards, tmp_path):
    paths, _ = shards
    found = k_means_shards(paths, 9, tmp_path / "out")
    held = {path: path.read_bytes() for path in found.files}
    with pytest.raises(OutputError, match="holds a run of this kind"):
        k_means_shards(paths, 8, tmp_path / "out")
    with pytest.raises(OutputError, match="a run with another n_clusters"):
        k_means_shards(paths, 8, tmp_path / "out", resume=True)
    assert {path: path.read_bytes() for path in found.files} == held


@pytest.mark.parametrize("stop_in", [1, 2, 4])
@pytest.mark.parametrize("max_passes", [4, 25])
def test_a_run_that_was_stopped_goes_on_in_the_pass_that_it_was_in(shards, tmp_path, monkeypatch, stop_in, max_passes):
    paths, _ = shards
    whole = k_means_shards(paths, 9, tmp_path / "whole", max_passes=max_passes)
    n_done, passes = [0], []

    def stops(task):
        n_done[0] += 1
        if n_done[0] == 4 * (stop_in - 1) + 3:
            raise KeyboardInterrupt
        return one_pass(task)

    monkeypatch.setattr(k_means_module, "one_pass", stops)
    with pytest.raises(KeyboardInterrupt):
        k_means_shards(paths, 9, tmp_path / "out", max_passes=max_passes)
    monkeypatch.setattr(k_means_module, "one_pass", lambda task: passes.append(task.after.name) or one_pass(task))
    found = k_means_shards(paths, 9, tmp_path / "out", max_passes=max_passes, resume=True)
    assert passes[0].startswith(f".pass-{stop_in}-")
    assert found.centres.numpy().tobytes() == whole.centres.numpy().tobytes()
    assert [file.read_bytes() for file in found.files] == [file.read_bytes() for file in whole.files]
    passes.clear()
    for name in (".pass-3-0.npy", ".centres-3.npy"):  # as after a kill between the end and the tidying
        (tmp_path / "out" / name).write_bytes(b"")
    again = k_means_shards(paths, 9, tmp_path / "out", max_passes=max_passes, resume=True)
    assert (passes, again.n_passes, again.files) == ([], found.n_passes, found.files)
    assert again.centres.numpy().tobytes() == whole.centres.numpy().tobytes()
    assert not list((tmp_path / "out").glob(".pass-*")) + list((tmp_path / "out").glob(".centres-*"))
