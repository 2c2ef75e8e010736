from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from prunus.core.errors import RunError
from prunus.evaluate import predict_outputs


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
