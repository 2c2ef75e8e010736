"""Is each kept row streamed once per epoch, in an order that no number of workers changes, and goes on exactly?"""

import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

import prunus
from prunus.core.errors import DataError, RecipeError

sys.path.insert(0, str(Path(__file__).parent))
import row_jobs

MASK = np.random.default_rng(0).random(900) < 0.4


@pytest.fixture
def folder(tmp_path):
    return row_jobs.write(tmp_path / "in", "parquet")


def stream_of(folder, mask=MASK, batch_size=16, **options):
    return prunus.kept_rows(folder, mask, target="label").stream(batch_size, **{"window_rows": 64, **options})


def read(stream, workers=0):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        return list(DataLoader(stream, batch_size=None, num_workers=workers))


def same(one, other):
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(x, y, strict=True))


def numbers(batches):
    return torch.cat([batch[0] for batch in batches])


@pytest.mark.parametrize("ending", ["parquet", "arrow", "feather", "csv", "npy"])
def test_every_kept_row_comes_once_with_its_own_inputs_and_label(tmp_path, ending):
    found = read(stream_of(row_jobs.write(tmp_path / "in", ending)))
    position, inputs, targets = (torch.cat(part) for part in zip(*found, strict=True))
    assert position.sort().values.tolist() == np.flatnonzero(MASK).tolist()
    assert torch.equal(inputs, torch.stack([position, position / 2], dim=1))
    assert torch.equal(targets, position % 3)
    assert targets.dtype == torch.int64
    assert inputs.dtype == torch.float32


def test_the_order_does_not_hang_on_the_number_of_workers_and_has_no_gap(folder):
    stream = stream_of(folder)
    alone = read(stream)
    assert len(alone) == len(stream) == len(DataLoader(stream, batch_size=None))
    assert {len(batch[0]) for batch in alone[:-1]} == {16}
    for workers in (1, 2, 4):
        assert same(alone, read(stream, workers))


@pytest.mark.parametrize("taken", [0, 1, 6, 7, 20, 21])
def test_a_stopped_epoch_goes_on_exactly_with_as_many_workers_as_one_likes(folder, taken):
    stream = stream_of(folder, seed=3)
    stream.set_epoch(2)
    whole = read(stream)
    state = pickle.loads(pickle.dumps(stream.state_dict(taken)))
    for workers in (0, 1, 2, 4):
        again = stream_of(folder, seed=3)
        again.load_state_dict(state)
        assert len(again) == len(whole) - taken
        assert same(whole[taken:], read(again, workers))


def test_workers_that_live_on_see_a_new_epoch(folder):
    stream = stream_of(folder)
    loader = DataLoader(stream, batch_size=None, num_workers=2, persistent_workers=True)
    epochs = []
    for epoch in range(2):
        stream.set_epoch(epoch)
        epochs.append(list(loader))
    stream.set_epoch(1)
    assert same(epochs[1], read(stream))
    assert not torch.equal(numbers(epochs[0]), numbers(epochs[1]))


def test_a_spawned_worker_reads_what_a_forked_one_does(folder):
    stream = stream_of(folder)
    spawned = DataLoader(stream, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert same(read(stream), list(spawned))


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_ranks_have_as_many_steps_and_together_every_row_once(folder, n_ranks):
    parts = [read(stream_of(folder, rank=rank, n_ranks=n_ranks)) for rank in range(n_ranks)]
    assert len({len(part) for part in parts}) == 1
    together = torch.cat([numbers(part) for part in parts])
    assert together.sort().values.tolist() == np.flatnonzero(MASK).tolist()


def test_rows_are_shuffled_within_a_window_and_over_files(folder):
    found = numbers(read(stream_of(folder, np.ones(900, bool), window_rows=256)))
    assert not torch.equal(found, found.sort().values)
    first = found[:128]
    assert len(set((first // 300).tolist())) == 3  # of every file
    assert (first.diff() < 0).any()


def test_what_holds_no_kept_row_is_not_decoded(folder, monkeypatch):
    read_groups = []
    module = sys.modules["prunus.data.rows.stream"]
    own = module.read_group
    monkeypatch.setattr(
        module, "read_group", lambda rows, group, *more: read_groups.append(group) or own(rows, group, *more)
    )
    mask = np.zeros(900, bool)
    mask[[3, 4, 150, 151, 890]] = True
    read(stream_of(folder, mask))
    # 47 rows a group: rows 3 and 4 in the first, 150 and 151 in the fourth, 890 in the sixth of the last of three files of seven.
    assert set(read_groups) == {0, 3, 20}


def test_full_batches_alone_leave_others_out_in_each_epoch(folder):
    stream = stream_of(folder, drop_last=True, batch_size=50)
    left = []
    for epoch in range(2):
        stream.set_epoch(epoch)
        found = read(stream)
        assert {len(batch[0]) for batch in found} == {50}
        left.append(set(np.flatnonzero(MASK)) - set(numbers(found).tolist()))
    assert left[0]
    assert left[0] != left[1]


def test_inputs_of_any_kind_are_made_by_a_function_of_the_users(folder):
    rows = prunus.kept_rows(folder, MASK, target="label", columns=["a", "b"], convert=row_jobs.as_mapping)
    for position, inputs, _ in read(rows.stream(16, window_rows=64), 2):
        assert torch.equal(inputs["x"], position.float())
        assert inputs["t"] == [str(v / 2) for v in position.tolist()]


def test_labels_that_are_words_become_class_numbers(tmp_path):
    words = np.array(["ant", "bee", "cat"], object)
    folder = row_jobs.write(tmp_path / "in", "parquet", word=lambda n, first: words[np.arange(first, first + n) % 3])
    rows = prunus.kept_rows(folder, MASK, target="word", columns=["a"])
    assert rows.class_names == ("ant", "bee", "cat")
    assert all(torch.equal(targets, position % 3) for position, _, targets in read(rows.stream(50)))
    with pytest.raises(DataError, match="unknown label 'cat'"):
        read(prunus.kept_rows(folder, MASK, target="word", columns=["a"], class_names=["ant", "bee"]).stream(50))


def test_without_a_label_there_are_numbers_and_inputs_alone(folder):
    rows = prunus.kept_rows(folder, MASK, columns=["b"])
    assert all(torch.equal(inputs[:, 0], position / 2) for position, inputs in read(rows.stream(50)))


def test_a_state_of_other_data_rows_or_settings_is_refused(folder, tmp_path):
    state = stream_of(folder).state_dict(3)
    other = row_jobs.write(tmp_path / "other", "parquet", n=200)
    with pytest.raises(DataError, match="99 batches were taken of an epoch of 21"):
        stream_of(folder).load_state_dict(state | {"n_taken": 99})
    for stream, key in (
        (stream_of(folder, ~MASK), "kept"),
        (stream_of(folder, seed=1), "seed"),
        (stream_of(folder, batch_size=8), "batch_size"),
        (stream_of(other, MASK[:600]), "data"),
    ):
        with pytest.raises(DataError, match=f"a stream with {key}"):
            stream.load_state_dict(state)


def test_workers_that_cannot_share_the_lanes_are_refused(folder):
    with pytest.raises(RecipeError, match="num_workers 3"):
        read(stream_of(folder), 3)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0, None, 2.0], "row 901: expected a number, got none"),
        ([1.0, 2.0, float("nan")], "row 902: expected a finite"),
    ],
)
def test_a_value_that_is_missing_or_not_finite_is_named_with_its_file_and_row(folder, values, said):
    table = pa.table({"a": pa.array(values, pa.float32()), "b": [1.0, 2.0, 3.0], "label": [0, 1, 2]})
    pq.write_table(table, folder / "part-9.parquet")
    with pytest.raises(DataError, match=rf"part-9.parquet: column 'a', {said}"):
        read(stream_of(folder, np.ones(903, bool)))


def test_a_value_that_is_too_large_is_told_as_it_stands_in_the_file(tmp_path):
    table = pa.table({"a": [1.0, 1e300, -1e300], "b": [1.0, 2.0, 3.0], "label": [0, 1, 2]})
    pq.write_table(table, tmp_path / "part-0.parquet")
    said = r"column 'a', row 1: expected a finite number that float32 can hold, got 1e\+300"
    with pytest.raises(DataError, match=said):
        read(stream_of(tmp_path, np.ones(3, bool)))


def test_a_file_that_was_changed_since_is_refused(folder):
    stream = stream_of(folder)
    pq.write_table(pa.table(row_jobs.columns(20)), folder / "part-1.parquet")
    with pytest.raises(DataError, match=r"part-1.parquet: it was changed"):
        read(stream)


def test_a_damaged_file_is_named(folder):
    stream = stream_of(folder)
    path = folder / "part-2.parquet"
    content = bytearray(path.read_bytes())
    content[4:2000] = b"\xff" * 1996
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"part-2.parquet: it is damaged"):
        read(stream)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"n_lanes": 0}, {"rank": 2, "n_ranks": 2}])
def test_settings_out_of_range_are_refused(folder, options):
    with pytest.raises(RecipeError, match="expected batch_size"):
        stream_of(folder, **options)
