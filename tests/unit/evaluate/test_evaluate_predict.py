from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from prunus.core.errors import RunError
from prunus.core.recipes.recipe import Data
from prunus.data import prepare
from prunus.data.large import grown_columns
from prunus.evaluate import observe, predict_outputs


class Piece(NamedTuple):
    index: Tensor
    inputs: Tensor
    targets: Tensor | None = None


def examples(inputs):
    """Stand in for data.Examples."""
    return SimpleNamespace(
        ids=tuple(f"row {i}" for i in range(len(inputs))),
        batches=lambda size: (Piece(rows, inputs[rows]) for rows in torch.arange(len(inputs)).split(size)),
    )


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_outputs_come_in_order_whatever_the_batch_size(batch_size):
    inputs = torch.randn(7, 4)
    model = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
    expected = nn.Sequential(*model).eval()(inputs)
    model.train()
    model[2].eval()
    found = predict_outputs(model, examples(inputs), batch_size=batch_size)
    torch.testing.assert_close(found, expected.detach())
    assert not found.requires_grad
    assert (model.training, model[1].training, model[2].training) == (True, True, False)


def test_outputs_of_one_number_per_example_may_be_flat():
    assert predict_outputs(nn.Flatten(0), examples(torch.ones(5, 1)), batch_size=2).shape == (5,)


def test_an_output_that_is_not_finite_names_the_example():
    inputs = torch.ones(5, 2)
    inputs[3, 0] = torch.inf
    inputs[4, 1] = torch.nan
    with pytest.raises(RunError, match=r"example 'row 3' is NaN or infinite \(and for 0 more of its batch\)"):
        predict_outputs(nn.Identity(), examples(inputs), batch_size=2)


def test_of_rows_that_lie_in_files_observations_lie_in_files_and_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(grown_columns, "SCRATCH_BYTES", 1000)
    random = np.random.default_rng(0)
    inputs = random.standard_normal((700, 5), dtype=np.float32)
    table = pa.table({**{f"x{k}": inputs[:, k] for k in range(5)}, "label": random.integers(0, 3, 700)})
    pq.write_table(table, tmp_path / "rows.parquet")
    model, seen = nn.Linear(5, 3), []
    for in_memory in (True, False):
        config = Data(source=str(tmp_path / "rows.parquet"), in_memory=in_memory, cache=str(tmp_path / "cache"))
        train = prepare(config.model_copy(update={"target": "label"})).train
        seen.append(observe(model, train, train.task))
    held, filed = seen
    assert list(held) == list(filed)
    for name, column in held.items():
        assert column.dtype == filed[name].dtype
        np.testing.assert_array_equal(column, filed[name])
        assert isinstance(filed[name].base, np.memmap) == (column.nbytes > 1000)
        assert not isinstance(column.base, np.memmap)
