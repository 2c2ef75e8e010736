"""Are kept rows read by their index from a memory map, and is the conversion made once, whole and of these files?"""

import os
import pickle
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

import prunus
from prunus.core.errors import DataError, OutputError

sys.path.insert(0, str(Path(__file__).parent))
import row_jobs

MASK = np.random.default_rng(0).random(900) < 0.4


@pytest.fixture(params=["parquet", "arrow", "csv", "npy"])
def rows(request, tmp_path):
    return prunus.kept_rows(row_jobs.write(tmp_path / "in", request.param), MASK, target="label")


def test_an_index_a_slice_a_list_and_a_tensor_give_the_same_rows(rows, tmp_path):
    found, wanted = rows.mapped(tmp_path / "cache"), np.flatnonzero(MASK)
    assert len(found) == len(wanted) == len(rows)
    position, inputs, targets = found[:]
    assert position.tolist() == wanted.tolist()
    assert torch.equal(inputs, torch.stack([position, position / 2], dim=1))
    assert torch.equal(targets, position % 3)
    for which in ([5, 2, 100], torch.tensor([5, 2, 100]), np.array([5, 2, 100])):
        assert all(torch.equal(one, whole[[5, 2, 100]]) for one, whole in zip(found[which], found[:], strict=True))
    assert [int(found[k][0]) for k in (0, -1)] == [wanted[0], wanted[-1]]
    with pytest.raises(IndexError):
        found[len(found)]


def test_a_loader_takes_it_with_workers_by_example_and_by_batch(rows, tmp_path):
    found = rows.mapped(tmp_path / "cache")
    by_example = DataLoader(found, batch_size=32, num_workers=2)
    sampler = BatchSampler(RandomSampler(found, generator=torch.Generator().manual_seed(0)), 32, drop_last=False)
    by_batch = DataLoader(found, sampler=sampler, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    for loader in (by_example, by_batch):
        position, inputs, targets = (torch.cat(part) for part in zip(*loader, strict=True))
        assert position.sort().values.tolist() == np.flatnonzero(MASK).tolist()
        assert torch.equal(inputs[:, 0], position.float())
        assert torch.equal(targets, position % 3)


def test_an_epoch_sampler_draws_among_the_rows_that_stay(rows, tmp_path):
    found = rows.mapped(tmp_path / "cache")
    sampler = prunus.EpochSampler(len(found), keep_fraction=0.5, seed=0)
    position = torch.cat([batch[0] for batch in DataLoader(found, batch_size=32, sampler=sampler)])
    assert len(set(position.tolist())) == len(position) == sampler.n_drawn
    assert MASK[position.numpy()].all()


def test_it_goes_to_another_process_as_paths(rows, tmp_path):
    assert len(pickle.dumps(rows.mapped(tmp_path / "cache"))) < 6000


def test_files_are_converted_once_and_another_choice_of_rows_reads_the_same(tmp_path):
    folder, cache = row_jobs.write(tmp_path / "in", "parquet"), tmp_path / "cache"
    first = prunus.kept_rows(folder, MASK, target="label").mapped(cache)
    seen = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    other = prunus.kept_rows(folder, ~MASK, target="label").mapped(cache)
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == seen
    assert len(first) + len(other) == 900
    assert other[:][0].tolist() == np.flatnonzero(~MASK).tolist()


def test_arrays_are_read_as_they_lie_and_others_need_a_folder(tmp_path):
    arrays = prunus.kept_rows(row_jobs.write(tmp_path / "npy", "npy"), MASK, target="label")
    assert len(arrays.mapped()) == MASK.sum()
    with pytest.raises(DataError, match=r"mapped\('FOLDER'\)"):
        prunus.kept_rows(row_jobs.write(tmp_path / "in", "parquet"), MASK).mapped()


def test_a_folder_of_other_rows_or_columns_is_refused(tmp_path):
    folder, cache = row_jobs.write(tmp_path / "in", "parquet"), tmp_path / "cache"
    prunus.kept_rows(folder, target="label").mapped(cache)
    other = row_jobs.write(tmp_path / "other", "parquet", n=299)
    with pytest.raises(OutputError, match=r"otherwise \(files\)"):
        prunus.kept_rows(other, target="label").mapped(cache)
    with pytest.raises(OutputError, match=r"otherwise \(features\)"):
        prunus.kept_rows(folder, target="label", columns=["a"]).mapped(cache)
    (cache / "rows.json").write_text("[")
    with pytest.raises(OutputError, match="no folder of converted rows"):
        prunus.kept_rows(folder, target="label").mapped(cache)


def test_arrays_that_were_cut_off_are_refused(tmp_path):
    folder, cache = row_jobs.write(tmp_path / "in", "parquet"), tmp_path / "cache"
    prunus.kept_rows(folder, target="label").mapped(cache)
    path = cache / "inputs.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"inputs.npy: it is damaged"):
        prunus.kept_rows(folder, target="label").mapped(cache)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    folder = row_jobs.write(tmp_path / "in", "parquet")
    read, write = os.pipe()
    child = os.fork()
    if not child:
        said = "nothing was raised"
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
            prunus.kept_rows(folder, target="label").mapped(tmp_path / "cache")
        except OutputError as error:
            said = str(error)
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    said = os.read(read, 4096).decode()
    os.close(read)
    assert said.startswith(f"no space left to write {tmp_path / 'cache'}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    assert len(prunus.kept_rows(folder, target="label").mapped(tmp_path / "cache")) == 900
