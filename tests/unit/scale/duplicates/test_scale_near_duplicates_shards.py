"""Are the near-duplicates of shards those of all rows in memory, to the bit, whoever works and whatever was lost on the way?"""

import json
import sys
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import prunus
from prunus.core.errors import DataError, OutputError, RecipeError
from prunus.core.files.plain_files import folder_lock
from prunus.scale import near_duplicates_shards
from prunus.scale.duplicates.bucket_units import Task, Units, file_of, is_whole
from prunus.scale.duplicates.components import components
from prunus.score import near_duplicates

driver = sys.modules["prunus.scale.duplicates.near_duplicates_shards"]


def planted(n, width, crowd=0):
    """Rows of which a tenth is near another one, some are equal, one is nothing, and some lie on one heap."""
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((n, width)).astype(np.float32)
    rows[n // 2 : n // 2 + n // 10] = rows[: n // 10] + 0.02 * draw.standard_normal((n // 10, width))
    rows[-5:] = rows[3]
    rows[17] = 0
    rows[draw.permutation(n)[:crowd]] = rows[0] + 0.03 * draw.standard_normal((crowd, width))
    return rows


def write(folder, rows):
    folder.mkdir(exist_ok=True)
    paths = []
    n = len(rows)
    for number, part in enumerate(np.split(rows, [n // 7, n // 7 + 1, n // 2])):
        paths.append(folder / f"part-{number}.npy")
        np.save(paths[-1], part)
    return paths


def read(output, paths):
    """Return who stays for each row, counted through all shards, how alike they are, and their groups."""
    tables = [pq.read_table(output / f"{path.stem}.parquet") for path in paths]
    starts = dict(zip((path.stem for path in paths), np.cumsum([0, *map(len, tables[:-1])]).tolist(), strict=True))
    keeper, similarity, group = [], [], []
    for path, table in zip(paths, tables, strict=True):
        assert table["row"].to_pylist() == list(range(len(table)))
        assert set(table["shard"].to_pylist()) == {path.stem}
        keeper += [
            starts[name] + row
            for name, row in zip(
                table["representative_shard"].to_pylist(), table["representative"].to_pylist(), strict=True
            )
        ]
        similarity += table["similarity"].to_pylist()
        group += table["group"].to_pylist()
        assert table["stays"].to_pylist() == [
            starts[path.stem] + row == keep for row, keep in enumerate(keeper[starts[path.stem] :])
        ]
    return np.array(keeper), np.array(similarity, np.float32), np.array(group)


def content(output):
    return {path.name: path.read_bytes() for path in output.glob("*.parquet")}


@pytest.mark.parametrize(("n", "crowd"), [(700, 0), (3000, 0), (3000, 1200), (4000, 450)])
def test_they_are_those_of_all_rows_in_memory(tmp_path, n, crowd):
    rows = planted(n, 12, crowd)
    paths = write(tmp_path / "in", rows)
    found = near_duplicates_shards([tmp_path / "in"], tmp_path / "out", cosine=0.98)
    alone = near_duplicates(rows, cosine=0.98)
    keeper, similarity, group = read(tmp_path / "out", paths)
    assert keeper.tolist() == alone.keeper.tolist()
    assert similarity.tobytes() == alone.similarity.tobytes()
    assert (found.rows, found.kept, found.recall) == (n, int(alone.kept.sum()), alone.recall)
    assert (group[keeper] == group).all()
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    assert found.groups == len(np.unique(group[alone.keeper != np.arange(n)]))
    kept = unit[alone.kept]
    near = (kept @ kept.T)[np.triu_indices(len(kept), 1)] >= 0.98 + 1e-5
    assert near.sum() <= 0.01 * (n - len(kept)), "by brute force: what stays is unlike"
    assert not (tmp_path / "out" / ".work").exists()


def test_two_workers_write_what_one_writes_to_the_byte(tmp_path):
    paths = write(tmp_path / "in", planted(2000, 8, 300))
    near_duplicates_shards(paths, tmp_path / "one", cosine=0.98)
    near_duplicates_shards(paths, tmp_path / "two", cosine=0.98, workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_columns_of_numbers_and_of_arrays_are_the_rows_that_a_matrix_is(tmp_path):
    rows = planted(1500, 4)
    near_duplicates_shards(write(tmp_path / "in", rows), tmp_path / "npy", cosine=0.98)
    for kind in ("columns", "lists", "fixed"):
        (tmp_path / kind).mkdir()
        n = len(rows)
        for number, part in enumerate(np.split(rows, [n // 7, n // 7 + 1, n // 2])):
            held = {
                "columns": {name: part[:, place] for place, name in enumerate("abcd")},
                "lists": {"e": pa.array(list(part))},
                "fixed": {"e": pa.FixedSizeListArray.from_arrays(part.reshape(-1), 4)},
            }[kind]
            table = pa.table({"id": np.arange(len(part)), **held})
            pq.write_table(table, tmp_path / kind / f"part-{number}.parquet", row_group_size=100)
        columns = list("abcd") if kind == "columns" else None
        near_duplicates_shards([tmp_path / kind], tmp_path / f"{kind}-out", cosine=0.98, columns=columns)
        assert content(tmp_path / f"{kind}-out") == content(tmp_path / "npy")


@contextmanager
def killed_in(monkeypatch, step):
    """Have a search killed when it comes to a step of the driver."""
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(driver, step, lambda *_: (_ for _ in ()).throw(Killed))
        yield


class Killed(BaseException):
    pass


@pytest.mark.parametrize("n_units", [2, 6, 12])
def test_a_run_that_was_stopped_goes_on_and_does_nothing_twice(tmp_path, monkeypatch, n_units):
    paths = write(tmp_path / "in", planted(2000, 8))
    near_duplicates_shards(paths, tmp_path / "whole", cosine=0.98)
    done, whole = [], Units.__call__

    def counted(self, task):
        if len(done) == n_units:
            raise Killed
        whole(self, task)
        done.append(task)

    monkeypatch.setattr(Units, "__call__", counted)
    with pytest.raises(Killed):
        near_duplicates_shards(paths, tmp_path / "out", cosine=0.98)
    with pytest.raises(OutputError, match="go on with --resume"):
        near_duplicates_shards(paths, tmp_path / "out", cosine=0.98)
    before, n_units = list(done), None
    damaged = file_of(tmp_path / "out" / ".work", before[-1])
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert not is_whole(damaged)
    near_duplicates_shards(paths, tmp_path / "out", cosine=0.98, resume=True)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert [task for task in done[len(before) :] if task in before] == [before[-1]], "only what was damaged"
    done.clear()
    again = near_duplicates_shards(paths, tmp_path / "out", cosine=0.98, resume=True)
    assert (done, again.rows) == ([], 2000)


def test_a_shard_that_cannot_be_read_is_named_and_going_on_mends_it(tmp_path):
    paths = write(tmp_path / "in", planted(1200, 8))
    near_duplicates_shards(paths, tmp_path / "whole", cosine=0.98)
    good = paths[2].read_bytes()
    paths[2].write_bytes(good[:400])
    found = near_duplicates_shards(paths, tmp_path / "out", cosine=0.98)
    assert list(found.failed) == [str(paths[2])]
    assert "no matrix can be read from it" in found.failed[str(paths[2])]
    assert found.shards == 3
    paths[2].write_bytes(good)
    assert not near_duplicates_shards(paths, tmp_path / "out", cosine=0.98, resume=True).failed
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    np.save(paths[0], np.ones((3, 8), np.float32))
    with pytest.raises(OutputError, match=r"part-0\.npy was changed since the search"):
        near_duplicates_shards(paths, tmp_path / "out", cosine=0.98, resume=True)


def test_what_changed_while_a_run_was_stopped_is_looked_through_anew(tmp_path, monkeypatch):
    paths = write(tmp_path / "in", planted(2000, 8))
    with killed_in(monkeypatch, "_write_tables"):
        near_duplicates_shards(paths, tmp_path / "out", cosine=0.98)
    np.save(paths[3], np.load(paths[3])[::-1])
    near_duplicates_shards(paths, tmp_path / "out", cosine=0.98, resume=True)
    near_duplicates_shards(paths, tmp_path / "whole", cosine=0.98)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_rounds_of_a_shard_whose_rows_are_gone_are_not_taken_up_again(tmp_path, monkeypatch):
    paths = write(tmp_path / "in", planted(2000, 8))
    with killed_in(monkeypatch, "_write_tables"):
        near_duplicates_shards(paths, tmp_path / "out", cosine=0.98)
    np.save(paths[3], np.load(paths[3])[::-1])
    # as after a kill between forgetting the rows that changed and forgetting the rounds
    file_of(tmp_path / "out" / ".work", Task("rows", 3)).unlink()
    near_duplicates_shards(paths, tmp_path / "out", cosine=0.98, resume=True)
    near_duplicates_shards(paths, tmp_path / "whole", cosine=0.98)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_shard_that_changes_while_it_is_searched_is_never_vouched_for(tmp_path, monkeypatch):
    paths = write(tmp_path / "in", planted(2000, 8))
    whole = driver.keep_typical

    def changed(*given):
        np.save(paths[3], np.load(paths[3])[::-1])
        return whole(*given)

    monkeypatch.setattr(driver, "keep_typical", changed)
    with pytest.raises(OutputError, match=r"part-3\.npy was changed since .*: --resume looks through it anew"):
        near_duplicates_shards(paths, tmp_path / "out", cosine=0.98)
    assert content(tmp_path / "out") == {}
    monkeypatch.undo()
    near_duplicates_shards(paths, tmp_path / "out", cosine=0.98, resume=True)
    near_duplicates_shards(paths, tmp_path / "whole", cosine=0.98)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_what_was_kept_on_the_way_goes_also_after_a_kill_at_the_end(tmp_path, monkeypatch):
    paths = write(tmp_path / "in", planted(900, 8))
    with killed_in(monkeypatch, "discard"):
        near_duplicates_shards(paths, tmp_path / "out", cosine=0.98)
    assert (tmp_path / "out" / ".work").is_dir()
    near_duplicates_shards(paths, tmp_path / "out", cosine=0.98, resume=True)
    assert not (tmp_path / "out" / ".work").exists()


def test_what_stays_can_be_trained_on_where_it_lies(tmp_path):
    rows = planted(900, 6)
    write(tmp_path / "in", rows)
    near_duplicates_shards([tmp_path / "in"], tmp_path / "out", cosine=0.98)
    kept = prunus.kept_rows(tmp_path / "in", tmp_path / "out", where=lambda found: found["stays"])
    assert len(kept) == int(near_duplicates(rows, cosine=0.98).kept.sum())


def test_what_cannot_be_compared_is_named(tmp_path):
    paths = write(tmp_path / "in", planted(300, 6))
    before = {path: path.read_bytes() for path in paths}
    with pytest.raises(OutputError, match=r"isn't empty \(part-0\.npy\)"):
        near_duplicates_shards(paths, tmp_path / "in")
    assert {path: path.read_bytes() for path in paths} == before
    with pytest.raises(RecipeError, match=r"cosine of duplicates must be in \(0, 1\]: got 1\.5"):
        near_duplicates_shards(paths, tmp_path / "out", cosine=1.5)
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other" / "narrow.npy", np.ones((3, 2), np.float32))
    with pytest.raises(DataError, match=r"narrow\.npy: expected 6 numbers per row, as in .*part-0\.npy: got 2"):
        near_duplicates_shards([*paths, tmp_path / "other"], tmp_path / "wide")
    odd = np.ones((3, 2), np.float32)
    odd[1, 1] = np.nan
    np.save(tmp_path / "other" / "odd.npy", odd)
    table = pa.table({"a": [1.0, None], "t": ["x", "y"], "l": [[1.0, 2.0], [1.0]]})
    pq.write_table(table, tmp_path / "other" / "holes.parquet")
    told = {
        None: ("odd.npy", "row 1 has NaN"),
        ("l",): ("holes.parquet", "expected 2 numbers in each row, got 1 in row 1"),
        ("a",): ("holes.parquet", "column 'a', row 1: expected a number, got none"),
        ("t",): ("holes.parquet", "column 't' holds string: expected numbers"),
        ("z",): ("holes.parquet", "there is no column 'z'"),
    }
    for number, (columns, (name, words)) in enumerate(told.items()):
        found = near_duplicates_shards([tmp_path / "other" / name], tmp_path / f"out-{number}", columns=columns)
        assert words in found.failed[str(tmp_path / "other" / name)]


def test_groups_are_what_chains_of_pairs_join():
    draw = np.random.default_rng(0)
    for n_pairs in (0, 30, 80):
        pairs = draw.integers(0, 100, (n_pairs, 2))
        label = list(range(100))
        for one, other in pairs.tolist() * 100:  # by brute force, until nothing moves
            label[one] = label[other] = min(label[one], label[other])
        assert components(100, pairs).tolist() == label
    chain = np.stack([np.arange(999), np.arange(1, 1000)], axis=1)[::-1]
    assert set(components(1000, chain).tolist()) == {0}


def test_the_command_says_what_was_found(tmp_path, capsys):
    from prunus.cli.app import app

    paths = write(tmp_path / "in", planted(600, 6))
    arguments = [
        "duplicates-shards",
        str(tmp_path / "in"),
        "--output",
        str(tmp_path / "out"),
        "--cosine",
        "0.98",
        "--json",
    ]
    app(arguments, standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["shards"]) == (600, 4)
    app([*arguments[:3], str(tmp_path / "told")], standalone_mode=False)
    said = capsys.readouterr()
    assert "of 600 rows are near-duplicates of one that stays" in said.out
    assert said.err.startswith("near-duplicates: done in ")
    paths[1].write_bytes(b"spoilt")
    code = app([*arguments[:3], str(tmp_path / "odd"), "--quiet"], standalone_mode=False)
    assert code == 10
    warning, error = capsys.readouterr().err.splitlines()
    assert "part-1.npy: no matrix can be read from it" in warning
    assert error.startswith("error: 1 of 4 shards can't be read, so nothing was looked for")


def test_a_folder_of_work_is_held_by_one_search(tmp_path, monkeypatch):
    paths, given = write(tmp_path / "in", planted(900, 8)), {"cosine": 0.98, "work": tmp_path / "work"}
    with killed_in(monkeypatch, "_write_tables"):
        near_duplicates_shards(paths, tmp_path / "out", **given)
    (held,) = (tmp_path / "work").iterdir()
    with folder_lock(held), pytest.raises(OutputError, match=r"another run is writing to .*work"):
        near_duplicates_shards(paths, tmp_path / "out", resume=True, **given)
    near_duplicates_shards(paths, tmp_path / "out", resume=True, **given)
    near_duplicates_shards(paths, tmp_path / "whole", cosine=0.98)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert list((tmp_path / "work").iterdir()) == []
