"""A split of the user's own: a column that says it, groups that stay together, the earlier before the later."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prunus.core.errors import DataError
from prunus.core.recipes.recipe import Data, Split
from prunus.data import PARTS, prepare, prepare_parts
from prunus.data.own_split import by_groups, by_time, named_parts

SHARES = {"test": 0.2, "validation": 0.15, "calibration": 0.1, "train": 0.55}


def whole(parts, n):
    assert sorted(row for rows in parts.values() for row in rows.tolist()) == list(range(n))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=40, max_size=200), st.integers(0, 5))
def test_groups_stay_whole_and_every_part_has_some(groups, seed):
    names = [f"g{group}" for group in groups]
    if len(set(names)) < 4:
        with pytest.raises(DataError, match="groups can't stay whole in 4 parts"):
            by_groups(names, np.zeros(len(names), dtype=np.int64), SHARES, seed, "t")
        return
    parts = by_groups(names, np.arange(len(names)) % 2, SHARES, seed, "t")
    whole(parts, len(names))
    held = {part: {names[row] for row in rows} for part, rows in parts.items()}
    assert all(held.values())
    assert sum(map(len, held.values())) == len(set(names)), "no group in two parts"


def test_groups_of_one_size_are_shared_out_as_asked_and_evenly_by_class():
    names = [f"g{row // 5}" for row in range(2000)]
    strata = np.array([row // 5 % 3 for row in range(2000)])
    parts = by_groups(names, strata, SHARES, 0, "t")
    for part, rows in parts.items():
        assert len(rows) == pytest.approx(SHARES[part] * 2000, abs=10)
        for stratum in range(3):
            assert (strata[rows] == stratum).mean() == pytest.approx(1 / 3, abs=0.03)
    other = by_groups(names, strata, SHARES, 1, "t")
    assert other["test"].tolist() != parts["test"].tolist()
    assert by_groups(names, strata, SHARES, 0, "t")["test"].tolist() == parts["test"].tolist()
    alone = by_groups([""] * 40, np.zeros(40, dtype=np.int64), SHARES, 0, "t")
    assert len(alone["test"]) == 8, "a row without a group is one of its own"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=30, max_size=120), st.integers(0, 5))
@example([0] * 27 + [1, 2, 3], 0)
def test_everything_trained_on_is_earlier_than_everything_decided_by_and_that_than_the_test(times, seed):
    sizes = {"test": len(times) // 5, "validation": len(times) // 6, "calibration": len(times) // 10}
    if len(set(times)) < 3:  # one for each of test, validation and what is learnt from
        return
    parts = by_time(times, sizes, seed, "t")
    whole(parts, len(times))
    moments = np.asarray(times)
    learnt = np.concatenate([parts["train"], parts["calibration"]])
    assert moments[learnt].max() < moments[parts["validation"]].min()
    assert moments[parts["validation"]].max() < moments[parts["test"]].min()
    assert len(parts["train"]) > 0


def test_moments_that_differ_are_cut_exactly_and_one_moment_not_at_all():
    parts = by_time(range(100), {"test": 20, "validation": 15, "calibration": 10}, 0, "t")
    assert {part: len(rows) for part, rows in parts.items()} == {
        "test": 20,
        "validation": 15,
        "train": 55,
        "calibration": 10,
    }
    assert parts["test"].tolist() == list(range(80, 100))
    with pytest.raises(DataError, match="1 different times are too few"):
        by_time([5.0] * 50, {"test": 10, "validation": 5}, 0, "t")
    with pytest.raises(DataError, match="row 1 of those with a label has no time"):
        by_time([5.0, float("nan")], {"test": 1}, 0, "t")


def test_a_part_is_named_as_people_name_it_or_refused():
    parts = named_parts(["TRAIN", " val ", "test", "dev", "calibration"], "abcde", "t.csv")
    assert {part: rows.tolist() for part, rows in parts.items()} == {
        "train": [0],
        "validation": [1, 3],
        "test": [2],
        "calibration": [4],
    }
    with pytest.raises(DataError, match=r"t.csv: sample 'b': expected train, .* got 'tset'; did you mean 'test'"):
        named_parts(["train", "tset"], "ab", "t.csv")
    with pytest.raises(DataError, match="expected some rows for train, got none of 1"):
        named_parts(["test"], "a", "t.csv")


N = 300


def table(folder, name="t.parquet", seed=0, **more):
    draw = np.random.default_rng(seed)
    columns = {
        "a": draw.normal(size=N),
        "b": draw.normal(size=N),
        "patient": [f"p{row // 6}" for row in range(N)],
        "day": pa.array(draw.permutation(N).astype(np.int32), pa.int32()).cast(pa.date32()),
        "part": np.where(np.arange(N) % 3 == 0, "test", "train"),
        "label": draw.integers(0, 2, N),
        **more,
    }
    pyarrow.parquet.write_table(pa.table(columns), folder / name)
    return str(folder / name)


def rows_of(data, part):
    return [int(name.rpartition(":")[2]) for name in getattr(data, part).ids]


def test_a_recipe_splits_by_a_column_and_says_so(tmp_path):
    data = prepare(Data(source=table(tmp_path), split=Split(column="part")))
    assert rows_of(data, "test") == list(range(0, N, 3))
    assert len(data.validation) == 30, "its share of what the column leaves"
    assert data.test_set == "the rows that your column 'part' names"
    assert "part" not in data.columns.names
    assert any("column 'part' is for data.split.column and no feature" in note for note in data.notes)


def test_a_recipe_splits_by_groups_and_says_so(tmp_path):
    data = prepare(Data(source=table(tmp_path), split=Split(groups="patient"), columns=["a", "b"]))
    held = [{row // 6 for row in rows_of(data, part)} for part in PARTS]
    assert sum(map(len, held)) == len(set().union(*held)) == N // 6
    assert data.test_set == "10 whole groups of 'patient', drawn by prunus: no other part has examples of theirs"


def test_a_recipe_splits_by_time_and_says_so(tmp_path):
    path = table(tmp_path)
    data = prepare(Data(source=path, split=Split(time="day"), ignore=["patient"]))
    days = np.array(pyarrow.parquet.read_table(path)["day"].cast(pa.int32()))
    assert sorted(days[rows_of(data, "test")]) == list(range(240, 300))
    assert days[rows_of(data, "train")].max() < days[rows_of(data, "validation")].min()
    assert data.test_set == "the latest by 'day': later than everything trained on"
    assert data.columns.names == ("a", "b", "part")
    kept = prepare(Data(source=path, split=Split(time="day"), kinds={"day": "date"}))
    assert "day days" in kept.train.feature_names


def test_a_test_set_of_ones_own_shares_no_group(tmp_path):
    train = table(tmp_path)
    others = table(tmp_path, "t2.parquet", seed=1, patient=[f"q{row // 6}" for row in range(N)])
    data = prepare(Data(source=train, test=others, split=Split(groups="patient"), columns=["a", "b"]))
    assert len(data.test) == N
    both = table(
        tmp_path, "t3.parquet", seed=1, patient=[f"q{row // 6}" if row > 17 else f"p{row}" for row in range(N)]
    )
    with pytest.raises(DataError, match=r"18 groups of 'patient' are in data.test and in data.source \('p0', 'p1', "):
        prepare(Data(source=train, test=both, split=Split(groups="patient"), columns=["a", "b"]))
    bare = save_without(tmp_path, both, "patient")
    with pytest.raises(DataError, match=r"bare.parquet: there is no column 'patient' \(data.split.groups\)"):
        prepare(Data(source=train, test=bare, split=Split(groups="patient"), columns=["a", "b"]))


def save_without(folder, path, column):
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).drop_columns([column]), folder / "bare.parquet")
    return str(folder / "bare.parquet")


def test_an_npz_has_arrays_for_it(tmp_path):
    draw = np.random.default_rng(0)
    arrays = {"x": draw.normal(size=(N, 2)), "y": np.arange(N) % 2, "who": np.arange(N) // 6, "when": np.arange(N)}
    np.savez(tmp_path / "a.npz", **arrays, bad=np.ones((N, 2)))
    source = str(tmp_path / "a.npz")
    grouped = prepare(Data(source=source, split=Split(groups="who")))
    held = [{row // 6 for row in rows_of(grouped, part)} for part in PARTS]
    assert sum(map(len, held)) == N // 6
    assert rows_of(prepare(Data(source=source, split=Split(time="when"))), "test") == list(range(240, N))
    with pytest.raises(DataError, match=r"there is no array 'whom' \(data.split.groups\); did you mean 'who'"):
        prepare(Data(source=source, split=Split(groups="whom")))
    with pytest.raises(DataError, match=r"the array 'bad' \(data.split.time\): expected 300 numbers or dates"):
        prepare(Data(source=source, split=Split(time="bad")))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": {"groups": "patint"}}, r"no column 'patint' \(data.split.groups\); did you mean 'patient'"),
        ({"groups": "sex"}, r"no column 'sex' \(data.groups\)"),
        ({"split": {"column": "patient"}}, "column 'patient': sample '0': expected train, validation, .* got 'p0'"),
        ({"split": {"time": "patient"}}, "data.split.time: column 'patient', row 0 .*expected a finite number"),
        ({"split": {"column": "part"}, "test": "t2.parquet"}, "'part' names test, and data.test gives it; take one"),
    ],
)
def test_a_column_that_can_not_split_is_one_line(tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    path = table(tmp_path)
    table(tmp_path, "t2.parquet", seed=1)
    with pytest.raises(DataError, match=said) as caught:
        prepare(Data(source=path, **options))
    assert "\n" not in str(caught.value)


def test_a_split_goes_by_one_column_and_only_where_there_are_columns():
    with pytest.raises(ValueError, match="split goes by one column: got groups and time"):
        Split(groups="a", time="b")
    for options in ({"split": Split(groups="a")}, {"groups": "a"}):
        with pytest.raises(DataError, match=r"groups names a column, and this source has none"):
            prepare(Data(source="sklearn:iris", **options))


def test_parts_of_ones_own_that_share_examples_are_refused_unless_told(tmp_path):
    train, test = table(tmp_path), table(tmp_path, "t2.parquet", seed=1)
    assert len(prepare(Data(source=train, test=test)).test) == N
    both = pa.concat_tables([pyarrow.parquet.read_table(test), pyarrow.parquet.read_table(train).slice(7, 12)])
    pyarrow.parquet.write_table(both, tmp_path / "t2.parquet")
    with pytest.raises(
        DataError,
        match=r"12 examples are in two parts, one of .* in test and .*'test:3\d\d' = '\d+'",
    ) as caught:
        prepare(Data(source=train, test=test))
    assert "data.split.shared: leave_out" in str(caught.value)
    told = prepare(Data(source=train, test=test, split=Split(shared="leave_out")))
    assert not {f"{row}" for row in range(7, 19)} & {name for p in PARTS for name in getattr(told, p).ids}
    twice = table(tmp_path, "t3.parquet", a=np.arange(N) // 2, b=[0.5] * N, patient=["x"] * N, day=[None] * N)
    with pytest.raises(DataError, match="examples are in two parts, one of which is your own: "):
        prepare(Data(source=twice, split=Split(column="part"), kinds={"a": "number"}))
    x, y = torch.randn(90, 4), torch.arange(90) % 3
    with pytest.raises(DataError, match="12 examples are in two parts"):
        prepare_parts({"train": (x, y), "test": (x[:12], y[:12])}, Data(source="arrays"))
