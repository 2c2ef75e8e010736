"""What pages say of themselves is counted before one is read; a footer may say less."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hostile_bytes import lying_page
from prunus.core.errors import PlanError
from prunus.core.files.parquet_file import read_parquet
from prunus.core.files.parquet_pages import check_pages

ROWS = 5_000
TABLE = pa.table(
    {
        "number": np.arange(ROWS) * 0.5,
        "text": [f"word {n % 97}" for n in range(ROWS)],
        "few": ["a", "b"] * (ROWS // 2),
        "hole": [None, 1] * (ROWS // 2),
        "flag": np.arange(ROWS) % 2 == 0,
        "list": [[n, n] for n in range(ROWS)],
    }
)
KINDS = [
    *itertools.product(("none", "snappy", "zstd", "gzip"), ("1.0", "2.0"), (True, False), (200, 1 << 20), (True, False))
]


@pytest.mark.parametrize(("compression", "version", "dictionary", "page", "checksum"), KINDS)
def test_the_pages_of_an_honest_file_are_all_found(tmp_path, compression, version, dictionary, page, checksum):
    path = tmp_path / "a.parquet"
    pq.write_table(
        TABLE, path, compression=compression, data_page_version=version, use_dictionary=dictionary, data_page_size=page,
        row_group_size=2_000, write_page_checksum=checksum, write_page_index=checksum,
    )  # fmt: skip
    metadata = pq.ParquetFile(path).metadata
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    declared = sum(group.column(n).total_uncompressed_size for group in groups for n in range(group.num_columns))
    with path.open("rb") as file:
        found = check_pages(file, metadata, path, PlanError)
    # The footer counts the headers, too; the pages, what a reader takes for entries of a dictionary.
    assert 0.5 * declared < found < declared + 16 * 12_000
    assert read_parquet(path, path, path.stat().st_size, PlanError).equals(TABLE)
    content = path.read_bytes()
    assert read_parquet(pa.BufferReader(content), path, len(content), PlanError).equals(TABLE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"becomes": 2**31 - 1}, "would become 21474"),
        ({"becomes": 2 * 10**8}, "would become 2000"),
        ({"n_values": 2**31 - 1}, r"column 'a': expected 1000 more values, got a page of 2147483647"),
        ({"becomes": -5}, r"column 'a': expected a page with sizes, got -5,"),
    ],
)
def test_a_page_that_lies_is_refused_before_it_is_read(tmp_path, words, message):
    path = tmp_path / "a.parquet"
    table = pa.table({"a": np.arange(1000.0)})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    lying_page(path)
    assert read_parquet(path, path, 2_000, PlanError).equals(table), "another header of the same words changes nothing"
    lying_page(path, **words)
    with pytest.raises(PlanError, match=message):
        read_parquet(path, path, path.stat().st_size, PlanError)
