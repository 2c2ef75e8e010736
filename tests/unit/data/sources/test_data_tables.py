"""A CSV and a Parquet table with the same content are the same data set."""

import contextlib
import datetime
import decimal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

from prunus.core.errors import DataError
from prunus.core.recipes.recipe import Data
from prunus.data import content_digests, encoded_as, fingerprint, open_source, prepare
from tests_support import fitted

COLUMNS = {
    "size": [1.5, 2.5, 3.5, 4.5],
    "count": [1, 2, 3, 4],
    "color": ["red", "blue", "red", "green"],
    "label": ["b", "a", "b", "a"],
}


def write(path, columns):
    table = pa.table(columns)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)
    return path


def opened(path, **options):
    return open_source(Data(source=str(path), **options))


def encoded(path, **options):
    """Return the features of a table whose every row is for training."""
    source = opened(path, **options)
    return encoded_as(source, fitted(source))


def refused(path, message, **options):
    with pytest.raises(DataError, match=message) as caught:
        opened(path, **options)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


@pytest.fixture(params=["t.csv", "t.parquet"])
def path(request, tmp_path):
    return tmp_path / request.param


def test_numbers_are_features_and_text_becomes_one_feature_per_value(path):
    source = encoded(write(path, COLUMNS))
    assert source.feature_names == ("size", "count", "color=blue", "color=green", "color=red")
    assert source.inputs(torch.arange(4)).tolist() == [
        [1.5, 1, 0, 0, 1],
        [2.5, 2, 1, 0, 0],
        [3.5, 3, 0, 0, 1],
        [4.5, 4, 0, 1, 0],
    ]
    assert source.class_names == ("a", "b")
    assert source.targets.tolist() == [1, 0, 1, 0]
    assert source.ids == ("0", "1", "2", "3")


def test_csv_and_parquet_have_one_fingerprint(tmp_path):
    prints = set()
    for name in ("t.csv", "t.parquet"):
        source = opened(write(tmp_path / name, COLUMNS))
        prints.add(fingerprint(source, content_digests(source)))
    assert len(prints) == 1


def test_an_id_column_names_the_rows_and_is_no_feature(path):
    source = opened(write(path, {"id": ["p", "q", "r", "s"], **COLUMNS}))
    assert source.ids == ("p", "q", "r", "s")
    assert "id" not in source.feature_names
    assert opened(write(path, {"id": [9, 8, 7, 6], **COLUMNS})).ids == ("9", "8", "7", "6")
    refused(write(path, {"id": [9, 8, 9, 6], **COLUMNS}), "the id '9' is given twice .rows 0 and 2")
    refused(write(path, {"id": [9.5, 8, 9, 6], **COLUMNS}), "'id' must hold whole numbers or text, got double")


@pytest.mark.parametrize("name", ["label", "target", "y"])
def test_the_target_is_found_or_named(path, name):
    columns = {"a": [1, 2, 3], name: [0, 1, 1]}
    assert opened(write(path, columns)).feature_names == ("a",)
    assert opened(path, target="a", task="regression").feature_names == (name,)


def test_a_missing_target_is_named_with_the_near_one(path):
    write(path, {"size": [1, 2], "species": ["a", "b"]})
    refused(path, "no target column 'specis' .data.target.; did you mean 'species'", target="specis")
    refused(path, "no target column: expected label, target or y, got size, species; name it with data.target")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": [1.5, float("inf"), 3.5, 4.5]}, "column 'size', row 1 .*expected a finite number.*got inf"),
        ({"size": [1.5, 1e300, 3.5, 4.5]}, "column 'size', row 1 .*expected a finite number that float32 .*got 1e.300"),
        ({"label": ["a", "a", "a", "a"]}, "two classes or more, got only 'a'"),
        (
            {"label": [datetime.date(2020, 1, day) for day in (1, 2, 3, 4)]},
            "'label': expected numbers or text as targets",
        ),
        (
            {"size": ["1", "2", "3", "4"], "count": ["1", "2", "oops", "4"]},
            "row 2 .*expected a number as in most rows, got 'oops'",
        ),
    ],
)
def test_a_bad_value_is_named_with_its_column_and_row(path, changed, message):
    refused(write(path, {**COLUMNS, **changed}), message)


def test_an_empty_table_and_one_without_features_are_refused(path):
    refused(write(path, {name: values[:0] for name, values in COLUMNS.items()}), "empty set")
    refused(write(path, {"label": [0, 1]}), "no feature is left")


def test_columns_without_a_name_or_with_one_name_are_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(",a,label\n0,1,0\n1,2,1\n")
    refused(path, "column 1 has no name")
    path.write_text("a,a,label\n0,1,0\n1,2,1\n")
    refused(path, "column 'a' is there twice")
    path.write_text("color,color=1,label\nx,1,0\n1,2,1\n")
    path.write_text("color,color=1,label\n" + "".join(f"x,{n},0\n1,{n},1\n" for n in range(40)))
    with pytest.raises(DataError, match="two features would be called 'color=1'; rename a column"):
        prepare(Data(source=str(path), split={"test": 0.1, "validation": 0.1, "calibration": 0.1}))


def test_what_pandas_adds_to_parquet_is_left_out(tmp_path):
    source = opened(write(tmp_path / "t.parquet", {"a": [1, 2], "label": [0, 1], "__index_level_0__": [7, 8]}))
    assert source.feature_names == ("a",)


def test_parquet_types_that_csv_does_not_have(tmp_path):
    columns = {
        "decimal": pa.array([decimal.Decimal("1.25"), decimal.Decimal("2.50")]),
        "category": pa.array(["u", "v"]).dictionary_encode(),
        "flag": pa.array([True, False]),
        "label": pa.array(["x", "y"]).dictionary_encode(),
    }
    source = encoded(write(tmp_path / "t.parquet", columns))
    assert source.feature_names == ("decimal", "category=u", "category=v", "flag")
    assert source.inputs(torch.arange(2)).tolist() == [[1.25, 1, 0, 1], [2.5, 0, 1, 0]]
    assert source.class_names == ("x", "y")
    refused(
        write(tmp_path / "t.parquet", {**columns, "list": [[1], [2]]}),
        "column 'list': expected numbers, .*got list.*data.ignore: .list",
    )
    refused(
        write(tmp_path / "t.parquet", {"void": pa.nulls(2), "label": [0, 1]}), "no feature is left.*'void' is empty"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty set"),
        (b"a,label\n1,0\n2\n", "not a readable CSV file in UTF-8: .*Expected 2 columns, got 1"),
        (b"a,label\n1,\xff\xfe\n2,b\n", "not a readable CSV file in UTF-8|can't be read as CSV|got binary"),
        (b"a;label\n1;0\n2;1\n", "one column 'a;label', is it separated by another character"),
        (b"PAR1\x00\x01\x02", "."),
    ],
)
def test_a_damaged_csv_is_refused(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    refused(path, message)


def test_a_csv_can_have_another_delimiter_a_byte_mark_and_line_breaks_in_quotes(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffa;kind;label\n1;"x\ny";0\n2;z;1\n'.encode())
    assert encoded(path, args={"delimiter": ";"}).feature_names == ("a", "kind=x\ny", "kind=z")
    refused(path, "must be one character, got 'ab'", args={"delimiter": "ab"})
    refused(path, "unknown argument 'delimeter' .*did you mean 'delimiter'", args={"delimeter": ";"})


@pytest.mark.parametrize("share", [0.0, 0.4, 0.99])
def test_a_damaged_parquet_is_refused(tmp_path, share):
    path = write(tmp_path / "t.parquet", COLUMNS)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(path, "not a readable Parquet file")


def test_a_parquet_with_flipped_bytes_is_refused_or_read_but_never_crashes(tmp_path):
    path = write(tmp_path / "t.parquet", {"a": list(range(200)), "label": [0, 1] * 100})
    whole = path.read_bytes()
    for place in range(4, len(whole) - 8, 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(DataError):
            opened(path)


def test_the_type_of_a_column_is_read_off_the_whole_file(tmp_path):
    path = tmp_path / "t.csv"
    rows = "".join(f"{row},{row % 2}\n" for row in range(200_000))
    path.write_text(f"a,label\n{rows}0.5,1\n")
    assert opened(path).inputs(torch.tensor([200_000])).item() == 0.5
