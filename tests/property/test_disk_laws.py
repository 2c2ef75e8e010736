"""Laws of data that are read from disk: whatever the table, they are what memory would hold, to the last bit."""

import datetime
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.errors import DataError, OutputError
from prunus.core.recipes.recipe import Data
from prunus.data import PARTS, prepare
from prunus.data.columns import summary
from prunus.data.disk import convert
from prunus.data.large import read_ahead, scratch, sorted_buckets

N = 160
WORDS = ["red", "green", "blue", "a b", "ü", "7"]


def column(kind: str, random: np.random.Generator, n: int) -> pa.Array:
    """Return a random column of a kind."""
    gaps = random.random(n) < random.choice([0.0, 0.1])
    made = {
        "single": lambda: random.standard_normal(n).astype(np.float32),
        "double": lambda: random.standard_normal(n),
        "wide": lambda: 1.7e9 + random.permutation(n) * 0.5,
        "tens": lambda: np.round(random.standard_normal(n), 1),
        "whole": lambda: random.integers(-5, 6, n),
        "huge": lambda: random.integers(0, 2**52, n),
        "row": lambda: np.arange(n) + 1,
        "shuffled": lambda: random.permutation(n),
        "few": lambda: random.integers(0, 3, n).astype(np.uint8),
        "flag": lambda: random.random(n) < 0.5,
        "word": lambda: [WORDS[k] for k in random.integers(0, len(WORDS), n)],
        "number as text": lambda: [str(k) for k in random.integers(0, 90, n)],
        "name": lambda: [f"n{k}" for k in range(n)],
        "date": lambda: [
            datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(hours=int(k))
            for k in random.integers(0, 9999, n)
        ],
        "one": lambda: np.full(n, 2.5),
        "empty": lambda: [None] * n,
    }[kind]()
    array = pa.array(made)
    if kind == "word" and random.random() < 0.5:
        array = array.dictionary_encode()
    if kind in ("row", "name", "empty") or not gaps.any():
        return array
    return pa.array([None if gap else value for gap, value in zip(gaps, array.to_pylist(), strict=True)], array.type)


KINDS = [
    "single", "double", "wide", "tens", "whole", "huge", "row", "shuffled", "few", "flag", "word", "number as text", "name",
    "date", "one", "empty",
]  # fmt: skip


def label(kind: str, random: np.random.Generator, n: int) -> pa.Array:
    """Return a label for each row; some rows have none."""
    made = {
        "words": [["no", "yes", "perhaps"][k] for k in random.integers(0, 3, n)],
        "numbers": random.integers(0, 4, n).tolist(),
        "flags": (random.random(n) < 0.5).tolist(),
        "values": random.standard_normal(n).tolist(),
        "many": random.integers(0, 10_000, n).tolist(),
    }[kind]
    return pa.array([None if random.random() < 0.03 else one for one in made])


def both(path: Path, folder: Path, **more) -> tuple:
    """Return the data, or what is wrong with them, as they come from memory and from disk."""
    found = []
    for in_memory in (True, False):
        config = Data(source=str(path), in_memory=in_memory, cache=str(folder / "cache"), **more)
        try:
            found.append(prepare(config))
        except DataError as error:
            found.append(str(error))
    return tuple(found)


def assert_same(memory, disk) -> None:
    """Compare all that a run sees."""
    if isinstance(memory, str) or isinstance(disk, str):
        assert memory == disk
        return
    assert disk.fingerprint == memory.fingerprint
    assert disk.columns == memory.columns
    assert [note for note in disk.notes if "read from disk" not in note] == list(memory.notes)
    assert len(disk.notes) == len(memory.notes) + 1
    assert disk.test_set == memory.test_set
    assert list(disk.splits.duplicates) == list(memory.splits.duplicates)
    assert disk.splits.repeats_in_train == memory.splits.repeats_in_train
    assert disk.source.label_kind == memory.source.label_kind
    for name in ("mean", "deviation"):
        assert torch.equal(getattr(disk.scaler, name), getattr(memory.scaler, name))
    for part in PARTS:
        one, two = getattr(memory, part), getattr(disk, part)
        assert torch.equal(one.rows, two.rows)
        assert tuple(two.ids) == one.ids
        assert torch.equal(one.targets, two.targets)
        draws = [torch.Generator().manual_seed(3) for _ in range(2)]
        for first, second in zip(one.batches(7, draws[0]), two.batches(7, draws[1]), strict=True):
            assert torch.equal(first.index, second.index)
            assert torch.equal(first.inputs, second.inputs)
            assert torch.equal(first.targets, second.targets)


@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=5),
    labels=st.sampled_from(["words", "numbers", "flags", "values", "many"]),
    seed=st.integers(0, 2**31),
    shards=st.integers(1, 3),
    ending=st.sampled_from(["parquet", "arrow"]),
    names=st.booleans(),
    doubled=st.booleans(),
)
@settings(deadline=None, derandomize=True, max_examples=25)
def test_what_is_read_from_disk_is_what_memory_holds(kinds, labels, seed, shards, ending, names, doubled):
    random = np.random.default_rng(seed)
    columns = {f"c{number}": column(kind, random, N) for number, kind in enumerate(kinds)}
    if names:
        columns["id"] = pa.array([f"é{k}" for k in random.permutation(N)])
    table = pa.table({**columns, "label": label(labels, random, N)})
    if doubled and not names:
        table = pa.concat_tables([table, table.slice(0, 40)])
    config = {}
    if kinds[0] in ("whole", "word", "tens", "single"):
        config["kinds"] = {"c0": random.choice(["category", "quantile"] if kinds[0] != "word" else ["category"])}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = folder / "data"
        data.mkdir()
        for number, rows in enumerate(np.array_split(np.arange(len(table)), shards)):
            write(table.take(pa.array(rows)), data / f"part-{number}.{ending}")
        path = data if shards > 1 else data / f"part-0.{ending}"
        assert_same(*both(path, folder, **config))


def test_very_many_rows_go_the_same_ways_as_few(tmp_path, monkeypatch):
    """Small sizes stand for large ones: scratch files, many buckets, medians that are counted, windows that are read ahead."""
    random = np.random.default_rng(1)
    columns = {f"c{number}": column(kind, random, 900) for number, kind in enumerate(KINDS) if kind != "wide"}
    table = pa.table({**columns, "label": label("words", random, 900)})
    pq.write_table(pa.concat_tables([table, table.slice(100, 200)]), tmp_path / "t.parquet", row_group_size=100)
    memory, _ = both(tmp_path / "t.parquet", tmp_path)
    monkeypatch.setattr(scratch, "SCRATCH_BYTES", 0)
    monkeypatch.setattr(scratch, "_AT_ONCE", 7)
    monkeypatch.setattr(sorted_buckets, "_BUCKET_ROWS", 20)
    monkeypatch.setattr(summary, "_SORTED", 0)
    monkeypatch.setattr(read_ahead, "_WINDOW_BYTES", 5_000)
    monkeypatch.setattr(convert, "_AT_ONCE", 13)
    cache = str(tmp_path / "another cache")
    assert_same(memory, prepare(Data(source=str(tmp_path / "t.parquet"), in_memory=False, cache=cache)))
    chosen = torch.randperm(len(memory.train), generator=torch.Generator().manual_seed(0))[:50]
    parts = [
        prepared.train.take(chosen)
        for prepared in (memory, prepare(Data(source=str(tmp_path / "t.parquet"), cache=cache)))
    ]
    assert torch.equal(*(part.inputs_at(torch.arange(50)) for part in parts))
    assert tuple(parts[0].ids) == tuple(parts[1].ids)


def write(table: pa.Table, path: Path) -> None:
    """Write a table as the ending says, in several pieces."""
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=50)
    else:
        pyarrow.feather.write_feather(table, path, chunksize=50, compression="uncompressed")


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64", "wide"])
def test_arrays_come_from_disk_as_from_memory(tmp_path, dtype):
    random = np.random.default_rng(0)
    x = random.integers(0, 99, (N, 3, 4))
    x = (
        1.7e9 + x * 0.25
        if dtype == "wide"
        else x.astype(dtype)
        if dtype[0] in "ui"
        else random.random((N, 3, 4)).astype(dtype)
    )
    np.save(tmp_path / "part.npy", x)
    np.save(tmp_path / "part.label.npy", random.integers(0, 3, N))
    memory, disk = both(tmp_path / "part.npy", tmp_path)
    assert not isinstance(memory, str), memory
    assert memory.source.input_shape == (3, 4)
    assert_same(memory, disk)


def arrays(seed: int = 0, **more) -> pa.Table:
    """Return rows whose inputs are arrays; some have no label."""
    random = np.random.default_rng(seed)
    x = pa.FixedShapeTensorArray.from_numpy_ndarray(random.random((N, 2, 3)))
    return pa.table({"x": x, "label": label("words", random, N), **more})


@pytest.mark.parametrize("names", [True, False])
def test_array_rows_without_a_label_are_left_out_and_a_note_says_so(tmp_path, names):
    table = arrays(**({"id": [f"n{k}" for k in range(N)]} if names else {}))
    (tmp_path / "shards").mkdir()
    for number in range(2):
        pq.write_table(table.slice(80 * number, 80), tmp_path / "shards" / f"{number}.parquet")
    lacking = [row for row, one in enumerate(table["label"].to_pylist()) if one is None]
    memory, disk = both(tmp_path / "shards", tmp_path)
    assert not isinstance(memory, str), memory
    assert_same(memory, disk)
    said = f"{len(lacking)} of {N} rows have no 'label' (the first: row {lacking[0]}, counted from 0) and were left out"
    assert said in memory.notes
    kept = {f"n{row}" if names else str(row) for row in range(N)} - {
        f"n{row}" if names else str(row) for row in lacking
    }
    assert set(memory.source.ids) == kept
    (tmp_path / "test").mkdir()
    other = arrays(1)
    pq.write_table(other, tmp_path / "test" / "t.parquet")
    memory, disk = both(tmp_path / "shards", tmp_path, test=str(tmp_path / "test"))
    assert_same(memory, disk)
    assert said in memory.notes
    assert any(note.startswith(f"data.test: {other['label'].null_count} of {N} rows have no") for note in memory.notes)


@pytest.mark.parametrize(
    ("columns", "more", "said"),
    [
        ({"label": pa.array([None] * N, pa.string())}, {}, f"'label': expected labels, got none in {N} rows"),
        ({}, {"split": {"groups": "who"}}, "there is no column 'who' (data.split.groups)"),
        ({"id": [*range(N - 1), None]}, {}, f"the column 'id', row {N - 1} (the first is 0): expected an id, got none"),
        ({"id": [[1]] * N}, {}, "the column 'id' must hold whole numbers or text"),
    ],
)
def test_what_is_wrong_with_array_rows_is_said_alike_from_disk_and_from_memory(tmp_path, columns, more, said):
    (tmp_path / "rows").mkdir()
    pq.write_table(arrays(**columns), tmp_path / "rows" / "t.parquet")
    memory, disk = both(tmp_path / "rows", tmp_path, **more)
    assert said in memory
    assert disk == memory


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"a": [1.0, np.inf] * 50, "label": [0, 1] * 50}, "a finite number"),
        ({"a": ["1"] * 96 + ["2", "3", "4", "x"], "label": [0, 1] * 50}, "got 'x'"),
        ({"a": np.arange(100) * 0.5, "label": pa.array([None] * 100, pa.int64())}, "expected labels, got none"),
        ({"a": np.arange(100) * 0.5, "label": [3] * 100}, "only '3'"),
        ({"a": np.arange(100) * 0.5, "label": [0.5, np.inf] * 50}, "expected a label"),
        ({"a": np.arange(100) * 0.5, "label": [-1, 1] * 50}, "out of range"),
        ({"a": np.arange(100) * 0.5, "id": [7] * 100, "label": [0, 1] * 50}, "the id '7' is given twice"),
        ({"a": [[1]] * 100, "label": [0, 1] * 50}, "expected numbers, text"),
    ],
)
def test_what_is_wrong_is_said_alike_from_disk_and_from_memory(tmp_path, columns, said):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    memory, disk = both(tmp_path / "t.parquet", tmp_path)
    assert said in memory
    assert disk == memory
    assert not list((tmp_path / "cache").glob("*/rows"))


def test_a_group_or_a_time_splits_rows_from_disk_as_from_memory(tmp_path):
    random = np.random.default_rng(0)
    table = {
        "a": random.standard_normal(N),
        "who": [f"p{k}" for k in random.integers(0, 30, N)],
        "when": [datetime.date(2024, 1, 1) + datetime.timedelta(days=int(k)) for k in random.integers(0, 300, N)],
        "label": random.integers(0, 2, N),
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    for how in ({"groups": "who"}, {"time": "when"}):
        assert_same(*both(tmp_path / "t.parquet", tmp_path, split=how))


def test_a_test_set_with_other_words_is_read_from_disk_as_from_memory(tmp_path):
    random = np.random.default_rng(0)
    for name, words in (("train", ["red", "blue"]), ("test", ["amber", "blue", "violet"])):
        held = {"c": [words[k] for k in random.integers(0, len(words), N)], "x": random.random(N)}
        pq.write_table(pa.table({**held, "label": random.integers(0, 2, N)}), tmp_path / f"{name}.parquet")
    memory, disk = both(tmp_path / "train.parquet", tmp_path, test=str(tmp_path / "test.parquet"))
    assert_same(memory, disk)
    assert memory.test_set.startswith("your own")


def test_what_was_converted_is_read_again_and_other_data_are_not_taken_for_it(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    config = Data(source=str(path), in_memory=False, cache=str(tmp_path / "cache"))
    pq.write_table(pa.table({"a": np.arange(100) * 0.5, "label": [0, 1] * 50}), path)
    first = prepare(config)

    def refuse(*_):
        raise AssertionError("it was converted before")

    with monkeypatch.context() as patched:
        patched.setattr(convert, "look_at_columns", refuse)
        assert prepare(config).fingerprint == first.fingerprint
    pq.write_table(pa.table({"a": np.arange(100) * 0.25, "label": [0, 1] * 50}), path)
    assert prepare(config).fingerprint != first.fingerprint
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": np.arange(100) * 0.5, "label": [0, 1] * 50}), path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(
        OSError, match=r"needs 10400 bytes on disk, and 1000 are free: name another folder \(data.cache\)"
    ):
        prepare(Data(source=str(path), in_memory=False, cache=str(tmp_path / "cache")))
    assert not list((tmp_path / "cache").glob("*/rows"))


@pytest.mark.parametrize("cache", ["/proc/nope", "t.parquet"])
def test_a_cache_that_cannot_be_made_is_said_by_its_key(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"a": np.arange(100) * 0.5, "label": [0, 1] * 50}), "t.parquet")
    with pytest.raises(
        OutputError, match=rf"can't write {cache}/.*name another folder \(data.cache, or PRUNUS_CACHE\)"
    ):
        prepare(Data(source="t.parquet", in_memory=False, cache=cache))


def test_what_cannot_be_read_from_disk_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,label\n1,0\n2,1\n")
    with pytest.raises(DataError, match=r"can be read from disk .data.in_memory: false.: convert it to Parquet"):
        prepare(Data(source=str(tmp_path / "t.csv"), in_memory=False))


def test_data_may_be_linked(tmp_path):
    pq.write_table(pa.table({"a": np.arange(100) * 0.5, "label": [0, 1] * 50}), tmp_path / "there.parquet")
    (tmp_path / "t.parquet").symlink_to(tmp_path / "there.parquet")
    assert_same(*both(tmp_path / "t.parquet", tmp_path))


def test_a_shard_with_another_type_is_named(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    pq.write_table(pa.table({"a": [0.5, 1.5], "label": [0, 1]}), data / "a.parquet")
    pq.write_table(pa.table({"a": ["x", "y"], "label": [0, 1]}), data / "b.parquet")
    with pytest.raises(
        DataError, match=r"b.parquet: expected column 'a' to hold double, got string, as in .*a.parquet"
    ):
        prepare(Data(source=str(data), in_memory=False, cache=str(tmp_path / "cache")))
