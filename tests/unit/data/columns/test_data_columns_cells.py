"""A cell is read as its column is meant, and one that isn't is reported with its row while the others are read."""

import datetime as dt
import math

import numpy as np
import pyarrow as pa
import pytest

from prunus.core.errors import DataError
from prunus.data.columns.cells import read_cells, recoded
from prunus.data.columns.column_kinds import guess_kind

NAN = math.nan


def cells(values, kind, missing=(), **options):
    return read_cells(pa.chunked_array([pa.array(values, **options)]), "c", kind, missing, "t.csv")


def guess(values, missing=(), **options):
    return guess_kind(pa.chunked_array([pa.array(values, **options)]), "c", missing, "t.csv")


@pytest.mark.parametrize(
    ("values", "kind", "wanted", "bad"),
    [
        ([1, None, 3], "number", [1, NAN, 3], []),
        ([1.5, NAN, math.inf], "number", [1.5, NAN, NAN], [2]),
        (["1", " 2.5 ", "", None, "x", "1e999", "1_0", "?"], "number", [1, 2.5, *[NAN] * 6], [4, 5, 6]),
        ([True, None, False], "boolean", [1, NAN, 0], []),
        (["true", "False", "maybe", ""], "boolean", [1, 0, NAN, NAN], [2]),
        ([1.0, 2.0], "boolean", [1, NAN], [1]),
        ([dt.date(1970, 1, 2), None], "date", [86_400, NAN], []),
        (["1970-01-02", "02.01.1970", "1970-01-01T01:00+01:00"], "date", [86_400, NAN, 0], [1]),
        ([dt.time(1, 0), None], "time", [3600, NAN], []),
        (["01:00", "25:00", "noon"], "time", [3600, NAN, NAN], [1, 2]),
        ([None, None], "number", [NAN, NAN], []),
    ],
)
def test_values_are_read_and_the_bad_ones_are_named(values, kind, wanted, bad):
    found = cells(values, kind, missing=("?",))
    assert np.array_equal(found.values, np.array(wanted, dtype=float), equal_nan=True)
    assert [cell.row for cell in found.bad] == bad
    assert all(cell.column == "c" and "\n" not in str(cell) for cell in found.bad)


@pytest.mark.parametrize("make", [list, lambda texts: pa.array(texts).dictionary_encode()])
def test_categories_are_sorted_words_whatever_holds_them(make):
    found = cells(make(["b", "a", None, "", "b", "?"]), "category", missing=("?",))
    assert found.words == ("a", "b")
    assert np.array_equal(found.values, [1, 0, NAN, NAN, 1, NAN], equal_nan=True)
    longer = recoded(found, ("0", "a", "aa", "b"))
    assert np.array_equal(longer.values, [3, 1, NAN, NAN, 3, NAN], equal_nan=True)


def test_a_number_as_a_category_is_one_word_whether_or_not_its_column_has_gaps():
    assert cells([7, 10, 7], "category").words == ("10", "7")
    assert cells([7.0, 10.0, None], "category").words == ("10", "7")
    assert cells([7.5, 10.0], "category").words == ("10", "7.5")
    assert cells(["x" * 10_001, "a"], "category").bad[0].got == "10001 letters"


def test_a_type_that_can_not_be_read_so_is_the_column_s_mistake():
    for values, kind in (
        ([[1], [2]], "number"),
        ([dt.date(2020, 1, 1)], "number"),
        ([1.5], "date"),
        ([{}], "category"),
    ):
        with pytest.raises(DataError, match=r"t.csv: column 'c': expected .*, got .*data.ignore: \[c\]"):
            cells(values, kind)


@pytest.mark.parametrize(
    ("values", "kind", "note"),
    [
        ([1, 2, 1], "number", ""),
        ([0.5, None], "number", ""),
        ([True, False], "boolean", ""),
        (["a", "b"], "category", ""),
        (["1", "2", "?", "3"], "number", "numbers as text"),
        ([f"{i % 70}" for i in range(200)], "number", "numbers as text"),
        ([f"w{i % 70}" for i in range(200)], "category", ""),
        ([f"w{i}" for i in range(51)], None, "another text in each of its 51 rows"),
        ([f"w{i}" for i in range(50)], "category", ""),
        ([f"w{i % 60}" for i in range(100)], None, "60 different texts in 100 rows"),
        (list(range(5, 56)), None, r"counts the rows \(5 to 55\)"),
        ([*range(50), 51], "number", ""),
        ([2**60 + 3 * i for i in range(51)], None, "another huge number in every row"),
        (["2024-01-01", "2024-05-05 10:00"], "date", "holds dates"),
        ([dt.datetime(2024, 1, 1, tzinfo=dt.UTC)], "date", "holds dates"),
        ([dt.time(1)], "time", ""),
        ([None, None], None, "is empty"),
        (["", "?"], None, "is empty"),
    ],
)
def test_a_column_is_what_it_looks_like_and_that_is_said(values, kind, note):
    found = guess(values, missing=("?",))
    assert found.kind == kind
    assert (found.note == "") == (note == "")
    assert __import__("re").search(note, found.note)


def test_a_stray_word_among_numbers_is_no_category():
    with pytest.raises(
        DataError, match=r"row 2 .*got 'oops'; if it means that there is none, data.missing: \['oops'\]"
    ):
        guess(["1", "2", "oops", "4"])
