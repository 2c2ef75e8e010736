"""Whatever a table holds, it is learnt from or refused in one line, and a file of the same rows gives the same inputs again."""

import datetime as dt
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.errors import DataError
from prunus.core.recipes.recipe import Data
from prunus.data import PARTS, open_rows, prepare

N = 60
MAKERS = {
    "numbers": lambda draw: draw.normal(size=N).tolist(),
    "whole": lambda draw: draw.integers(-5, 9, N).tolist(),
    "huge": lambda draw: (draw.integers(0, 9, N) * 10.0**37).tolist(),
    "close": lambda draw: (1.7e9 + draw.integers(0, 60, N)).tolist(),
    "flags": lambda draw: (draw.random(N) < 0.5).tolist(),
    "words": lambda draw: draw.choice(["red", "blue", "a=b", "ü"], N).tolist(),
    "names": lambda draw: [f"n{value}" for value in draw.permutation(N)],
    "many": lambda draw: [f"w{value}" for value in draw.integers(0, 25, N)],
    "digits": lambda draw: [f"{value:03d}" for value in draw.integers(0, 40, N)],
    "dates": lambda draw: [dt.date(2020, 1, 1) + dt.timedelta(int(day)) for day in draw.integers(0, 900, N)],
    "moments": lambda draw: [dt.datetime(2020, 1, 1, int(hour), tzinfo=dt.UTC) for hour in draw.integers(0, 24, N)],
    "times": lambda draw: [dt.time(int(hour), 30) for hour in draw.integers(0, 24, N)],
    "constant": lambda draw: [7] * N,
    "nothing": lambda draw: [None] * N,
    "counts": lambda draw: list(range(N)),
    "lists": lambda draw: [[1.0]] * N,
    "infinite": lambda draw: [float("inf")] * N,
}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(MAKERS)), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.1, 0.9]),
    st.booleans(),
    st.integers(0, 10**6),
    st.sampled_from(["csv", "parquet"]),
)
def test_a_table_is_learnt_from_or_refused_and_the_same_rows_give_the_same_inputs(kinds, gaps, classes, seed, ending):
    draw = np.random.default_rng(seed)
    columns = {"base": draw.normal(size=N).tolist()}
    for number, kind in enumerate(kinds):
        absent = draw.random(N) < gaps
        values = zip(MAKERS[kind](draw), absent, strict=True)
        columns[f"{kind}{number}"] = [None if gone else value for value, gone in values]
    columns["label"] = draw.choice(["x", "y"], N).tolist() if classes else draw.normal(size=N).tolist()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"t.{'parquet' if 'lists' in kinds else ending}"
        write = pyarrow.csv.write_csv if path.suffix == ".csv" else pyarrow.parquet.write_table
        write(pa.table(columns), path)
        try:
            data = prepare(Data(source=str(path), standardize=True, split={"seed": seed % 5}))
        except DataError as error:
            assert "\n" not in str(error)
            assert {"lists", "infinite"} & set(kinds)
            return
        found = open_rows(
            str(path),
            input_shape=data.source.input_shape,
            feature_names=data.train.feature_names,
            columns=data.columns,
            exact=data.scaler.wide,
        )
    rows = torch.tensor(found.good, dtype=torch.int64)
    given = data.scaler(data.source.inputs(rows))
    assert torch.equal(data.scaler(found.values), given)
    assert given.isfinite().all()
    bad = {cell.row for cell in found.bad}
    assert bad | set(found.good) == set(range(N))
    assert not bad & set(data.splits.train.tolist()), "what was trained on can be predicted"
    assert len(data.train.feature_names) == len(set(data.train.feature_names)) == data.source.input_shape[0]
    assert all(len(getattr(data, part)) for part in PARTS)
