"""Columns of very many rows are looked at a few rows at a time."""

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from prunus.core.recipes.recipe import Data
from prunus.data.disk.looks import look_at_columns
from prunus.data.large import sorted_buckets

N, STEP = 1 << 18, 1 << 10


@pytest.mark.parametrize("twice", [False, True])
def test_whole_numbers_that_may_name_the_rows_are_counted_without_holding_them(monkeypatch, twice):
    monkeypatch.setattr(sorted_buckets, "_BUCKET_ROWS", 1 << 14)
    schema = pa.schema([("a", pa.float64()), ("row", pa.int64()), ("label", pa.int64())])
    shuffled = (np.arange(N) * 5) % N
    if twice:
        shuffled[N // 2] = 7

    def chunks(columns):
        for start in range(0, N, STEP):
            rows = np.arange(start, start + STEP)
            made = {"a": rows * 0.5, "row": shuffled[start : start + STEP], "label": rows % 2}
            yield rows, pa.record_batch([pa.array(made[name]) for name in columns], names=list(columns))

    tracemalloc.start()
    try:
        kinds, _, _ = look_at_columns(chunks, schema, "label", Data(source="t"), Path("t"))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ("row" in kinds) == twice
    assert peak_bytes < N * 8, "less than the column"
