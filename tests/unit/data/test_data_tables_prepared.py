"""A table comes as it is: what a model gets for it is fitted on train alone, and everything inferred is said."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from prunus.core.errors import DataError
from prunus.core.recipes.recipe import Data
from prunus.data import PARTS, prepare, prepare_source
from tests_support import fit_columns

N = 400


def columns(seed=0):
    draw = np.random.default_rng(seed)
    age = draw.normal(40, 10, N).round(1)
    return {
        "age": [None if gap else value for value, gap in zip(age.tolist(), draw.random(N) < 0.1, strict=True)],
        "city": [f"c{code:03d}" for code in np.minimum(draw.geometric(0.02, N), 250)],
        "when": pa.array((19_000 + draw.integers(0, 700, N)).astype(np.int32), pa.int32()).cast(pa.date32()),
        "member": draw.random(N) < 0.5,
        "key": [f"k{code}" for code in draw.permutation(N)],
        "label": draw.integers(0, 2, N).tolist(),
    }


def save(folder, given, name="t.parquet"):
    pyarrow.parquet.write_table(pa.table(given), folder / name)
    return str(folder / name)


def test_nothing_but_train_is_fitted_on(tmp_path):
    data = prepare(Data(source=save(tmp_path, columns())))
    raw = data.source.source
    on_train = fit_columns(raw.inputs(data.splits.train).numpy(), raw.table)
    on_all = fit_columns(raw.inputs(torch.arange(N)).numpy(), raw.table)
    assert data.columns == on_train
    for place in range(3):
        assert on_train.columns[place] != on_all.columns[place], "the test could not tell: it has to differ"
    given = columns()
    age = np.array([np.nan if value is None else value for value in given["age"]])
    assert data.columns.columns[0].fill == pytest.approx(np.nanmedian(age[data.splits.train]))


def test_what_other_parts_hold_changes_nothing_that_is_fitted(tmp_path):
    """Rows of test and validation are spoilt as far as they can be: the training examples stay the same bit for bit."""
    given = columns()
    given.pop("key")
    first = prepare(Data(source=save(tmp_path, given)))
    rows = torch.cat([first.splits.part(part) for part in PARTS if part != "train"]).tolist()
    given["age"] = [1e6 if row in rows else value for row, value in enumerate(given["age"])]
    given["city"] = [f"z{row}" if row in rows else value for row, value in enumerate(given["city"])]
    given["when"] = [None if row in rows else value for row, value in enumerate(given["when"].to_pylist())]
    again = prepare(Data(source=save(tmp_path, given), kinds={"city": "category"}))
    assert again.columns == first.columns
    assert torch.equal(again.scaler.mean, first.scaler.mean)
    for one, other in zip(first.train.batches(1000), again.train.batches(1000), strict=True):
        assert torch.equal(one.inputs, other.inputs)


def test_everything_that_was_inferred_is_said(tmp_path):
    given = {**columns(), "one": [1] * N, "count": list(range(N)), "void": pa.nulls(N)}
    given["label"][3] = None
    notes = prepare(Data(source=save(tmp_path, given))).notes
    for words in (
        "1 of 400 rows have no 'label' (the first: row 3, counted from 0) and were left out",
        "column 'age' has no value in ",
        "column 'city' has ",
        "column 'when' holds dates",
        "column 'key' has another text in each of its 399 rows: left out",
        "column 'one' has one value in all of train",
        "column 'void' is empty: left out",
    ):
        assert sum(words in note for note in notes) >= 1, words
    assert any("age is missing" in note and "the training's median" in note for note in notes)


def test_columns_are_chosen_left_out_and_said_to_be_what_they_are(tmp_path):
    path = save(tmp_path, {**columns(), "zip": [1000 + code % 7 for code in range(N)]})
    only = prepare(Data(source=path, columns=["zip", "age"], kinds={"zip": "category"}))
    assert only.train.feature_names == ("age", "age is missing", *(f"zip={code}" for code in range(1000, 1007)))
    without = prepare(Data(source=path, ignore=["zip", "city", "key"]))
    assert without.columns.names == ("age", "when", "member")
    spread = prepare(Data(source=path, columns=["age"], kinds={"age": "quantile"}))
    values = spread.source.inputs(spread.splits.train)[:, 0]
    assert 0 <= values.min() <= 0.02
    assert 0.98 <= values.max() <= 1
    taken = prepare(Data(source=path, columns=["key"], kinds={"key": "category"}))
    assert taken.train.feature_names[-1] == "key other 32"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ignore": ["agee"]}, r"no column 'agee' \(data.ignore\); did you mean 'age'"),
        ({"columns": ["aeg"]}, r"no column 'aeg' \(data.columns\); did you mean 'age'"),
        ({"columns": ["label"]}, r"'label' is the target and can't be a feature \(data.columns\)"),
        ({"kinds": {"member": "date"}}, "column 'member': expected dates, got bool"),
        (
            {"kinds": {"city": "number"}},
            r"column 'city', row 0 .*a finite number, got 'c\d+' \(400 such rows\); correct it, or",
        ),
        ({"columns": ["key"]}, "no feature is left beside the target 'label' and 'id': column 'key' has another text"),
    ],
)
def test_a_wrong_choice_is_one_line(tmp_path, options, said):
    with pytest.raises(DataError, match=said) as caught:
        prepare(Data(source=save(tmp_path, columns()), **options))
    assert "\n" not in str(caught.value)


def test_a_column_of_sentences_is_said_to_be_one_and_where_it_belongs(tmp_path):
    texts = [f"this film number {row} was very long" for row in range(N)]
    given = {**columns(), "review": texts}
    said = (
        r"'review' holds sentences \(has another text in each of its 400 rows, 7 words each\): left out.*ModelOptimizer"
    )
    assert any(re.search(said, note) for note in prepare(Data(source=save(tmp_path, given))).notes)
    with pytest.raises(DataError, match=f"no feature is left beside the target 'label'.*{said}"):
        prepare(Data(source=save(tmp_path, given), columns=["review"]))


def test_what_is_for_tables_is_refused_elsewhere_and_a_column_is_in_one_list():
    with pytest.raises(DataError, match=r"sklearn:iris: data.ignore is for tables \(CSV, Parquet\)"):
        prepare(Data(source="sklearn:iris", ignore=["a"]))
    with pytest.raises(ValueError, match="the column 'a' is in ignore and in kinds: take it out of one"):
        Data(source="t.csv", ignore=["a"], kinds={"a": "number"})


def test_a_word_for_nothing_leaves_a_target_of_numbers_one(tmp_path):
    given = columns()
    given["label"] = ["?" if row % 40 == 0 else f"{row * 0.25}" for row in range(N)]
    data = prepare(Data(source=save(tmp_path, given), missing=["?"]))
    assert data.train.task.name == "regression"
    assert sum(len(getattr(data, part)) for part in PARTS) == N - 10
    assert any("10 of 400 rows have no 'label'" in note for note in data.notes)


def test_a_test_set_of_its_own_is_read_as_the_training_table_is(tmp_path):
    given, other = columns(), columns(seed=1)
    given["code"] = [f"{code % 9}" for code in range(N)]
    other["code"] = [code % 9 for code in range(N)]  # whole numbers there, text here
    other["city"] = [f"new{code % 80}" for code in range(N)]
    other["extra"] = [1.5] * N
    other["age"][0] = None
    train, test = save(tmp_path, given), save(tmp_path, other, "test.parquet")
    data = prepare(Data(source=train, test=test))
    assert len(data.test) == N
    alone = prepare(Data(source=test, columns=["age"]))
    assert data.columns.names == ("age", "city", "when", "member", "code")
    encoded = data.source.inputs(data.splits.test)
    names = list(data.train.feature_names)
    assert encoded[0, names.index("age is missing")] == 1
    assert encoded[0, names.index("age")] == pytest.approx(data.columns.columns[0].fill)
    assert torch.equal(encoded[:, names.index("code=4")], torch.arange(N).remainder(9).eq(4).float())
    assert any("column 'city' has values in 4" in note and "outside of train that train" in note for note in data.notes)
    assert alone.columns.columns[0].fill != data.columns.columns[0].fill


def test_the_same_row_in_two_files_is_one_example_whatever_else_its_category_stands_beside(tmp_path):
    given, other = columns(), columns(seed=1)
    for name in ("city", "age", "member"):
        other[name] = [*list(given[name])[:20], *list(other[name])[20:]]
    other["when"] = pa.array([*given["when"].to_pylist()[:20], *other["when"].to_pylist()[20:]])
    other["city"] = [*other["city"][:20], *(f"a{code}" for code in range(N - 20))]
    own = Data(source=save(tmp_path, given), test=save(tmp_path, other, "test.parquet"), split={"shared": "leave_out"})
    data = prepare(own)
    assert {duplicate.removed_id for duplicate in data.splits.duplicates} >= {str(row) for row in range(20)}


def test_a_table_of_numbers_alone_is_as_it_was(tmp_path):
    draw = np.random.default_rng(0)
    path = save(tmp_path, {"a": draw.normal(size=N), "b": draw.integers(0, 9, N), "label": draw.integers(0, 3, N)})
    data = prepare(Data(source=path))
    raw = data.source.source
    assert torch.equal(data.source.inputs(torch.arange(N)), raw.inputs(torch.arange(N)))
    assert data.train.feature_names == ("a", "b")
    assert prepare_source(raw, Data(source=path)).fingerprint == data.fingerprint


@pytest.mark.parametrize("in_memory", [True, False])
def test_rows_without_a_label_are_said_of_every_table_that_has_some(tmp_path, in_memory):
    given, other = columns(), columns(seed=1)
    given["label"][3] = None
    for row in range(0, 70, 10):
        other["label"][row] = None
    train, test = save(tmp_path, given), save(tmp_path, other, "test.parquet")
    data = prepare(Data(source=train, test=test, in_memory=in_memory, cache=str(tmp_path / "cache")))
    assert len(data.test) == N - 7
    said = "rows have no 'label' (the first: row 0, counted from 0) and were left out"
    assert data.notes.count(f"data.test: 7 of {N} {said}") == 1
    assert sum("rows have no 'label'" in note for note in data.notes) == 2
