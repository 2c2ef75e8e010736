"""A small data file that would become a large set is refused before it is read; an honest one loads, however well it compresses."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from patience import no_hang
from prunus.core.errors import DataError
from prunus.core.files.expansion import VARIABLE
from prunus.core.recipes.recipe import Data
from prunus.data import open_source


def refused_soon(path, words, **config):
    with no_hang(), pytest.raises(DataError, match=words) as caught:
        open_source(Data(source=str(path), **config))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def member(shape, dtype="<f8", content=b""):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return header.getvalue() + content


def test_zeros_that_deflate_a_thousand_times_are_counted_first(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as file:
        file.write(member((20_000, 1000)))
        for _ in range(160):
            file.write(bytes(1_000_000))
    refused_soon(tmp_path / "a.npz", f"would become 160.* set {VARIABLE}=")


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2**40,), "<f8"), ((2**62, 2**62), "<f8"), ((4,), "<U500000000"), ((1,), "|V2000000000"), ((-1, 4), "<f8")],
)
def test_an_array_larger_than_its_member_is_refused(tmp_path, shape, dtype):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", member(shape, dtype, bytes(64)))
    refused_soon(tmp_path / "a.npz", "not a readable .npz file")


@pytest.mark.parametrize("order", ["C", "F"])
def test_honest_arrays_come_back_as_numpy_reads_them(tmp_path, order):
    values = np.asarray(np.arange(12.0).reshape(4, 3), order=order)
    np.savez_compressed(tmp_path / "a.npz", x=values, y=np.array([0, 1, 0, 1]), id=np.array(list("abcd")))
    source = open_source(Data(source=str(tmp_path / "a.npz")))
    assert source.ids == ("a", "b", "c", "d")
    assert np.array_equal(source.values.numpy(), values)


def test_a_billion_equal_rows_are_counted_first(tmp_path):
    with pq.ParquetWriter(tmp_path / "a.parquet", pa.schema([("a", pa.int64()), ("label", pa.int8())])) as writer:
        rows = pa.table({"a": np.zeros(10_000_000, np.int64), "label": np.zeros(10_000_000, np.int8)})
        for _ in range(3):
            writer.write_table(rows)
    assert (tmp_path / "a.parquet").stat().st_size < 300_000
    refused_soon(tmp_path / "a.parquet", "refused, it would become")


@pytest.mark.parametrize("store_schema", [False, True])
def test_one_long_text_in_a_million_rows_is_counted_first(tmp_path, store_schema):
    column = pa.DictionaryArray.from_arrays(np.zeros(1_000_000, np.int32), pa.array(["x" * 100_000]))
    pq.write_table(
        pa.table({"a": column, "label": np.zeros(1_000_000, np.int8)}),
        tmp_path / "a.parquet",
        store_schema=store_schema,
    )
    refused_soon(tmp_path / "a.parquet", "column 'a': refused, it would become 100000000000 bytes")


def test_an_honest_table_of_few_values_loads(tmp_path):
    rows = {"a": ["red", "blue"] * 50_000, "b": [None, 0.5] * 50_000, "label": [0, 1] * 50_000}
    pq.write_table(pa.table({**rows, "b": [1.0, 0.5] * 50_000}), tmp_path / "a.parquet", compression="zstd")
    source = open_source(Data(source=str(tmp_path / "a.parquet")))
    assert len(source.ids) == 100_000
    assert source.feature_names == ("a", "b")


def test_one_huge_field_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("a,label\n" + "x" * 20_000_000 + ",1\n" + "y,0\n" * 1000)
    refused_soon(tmp_path / "a.csv", "at most 10000 letters, got 20000000 letters|not a readable CSV")
    for row in ("{},1", "1,{}"):
        (tmp_path / "a.csv").write_text("a,label\n" + row.format("x" * 1_000_000) + "\n" + "y,0\n" * 1000)
        refused_soon(tmp_path / "a.csv", "(a label has|a category of) at most 10000 letters, got 1000000")


def test_fifty_thousand_columns_of_one_name_are_one_error(tmp_path):
    (tmp_path / "a.csv").write_text(",".join([f"c{i}" for i in range(50_000)] + ["c7"]) + "\n")
    refused_soon(tmp_path / "a.csv", "empty set|there twice")


def png(width, height, rows=b""):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [6_000, 12_000, 65_000])
def test_an_image_of_more_pixels_than_its_bytes_can_hold_is_refused(tmp_path, side):
    pytest.importorskip("PIL")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(png(side, side))
    refused_soon(tmp_path, "refused, it would become|DecompressionBomb")
