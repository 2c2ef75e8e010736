"""Are whole numbers ids that a model looks up (tokens), or amounts like other numbers?

The model tells: ids are what it takes as they are and can't take as float32. Amounts are scaled, ids never.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunus.core.errors import raise_if_out_of_memory
from prunus.data import to_array
from prunus.graph.tracing.states import as_it_was, duplicate

__all__ = ["are_ids", "first_inputs"]


def are_ids(inputs: Any, model: nn.Module) -> bool:
    """Return whether ``inputs``, of which the first two are tried, are whole numbers that ``model`` looks up."""
    try:
        array = to_array(inputs[:2])
    except Exception as error:  # what is wrong with them is said when they are read
        raise_if_out_of_memory(error)
        return False
    if array.dtype.kind not in "iu" or array.dtype == np.uint8 or not array.size:
        return False
    values = torch.from_numpy(array.astype(np.int64))
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return _looks_up(model, (values[:, None] if values.dim() == 1 else values).to(device))


def first_inputs(dataset: Any) -> Any:
    """Return the first input of a map-style data set as a batch of one; None where it can't be had."""
    try:
        return to_array(dataset[0][0])[None]
    except Exception as error:  # what is wrong with it is said when it is read
        raise_if_out_of_memory(error)
        return None


@torch.no_grad()
def _looks_up(model: nn.Module, ids: Tensor) -> bool:
    twin = duplicate(model).eval()

    def runs(given: Tensor) -> bool:
        try:
            with as_it_was(twin):
                twin(given)
        except Exception as error:  # what is wrong with both kinds is said when the model is checked
            raise_if_out_of_memory(error)
            return False
        return True

    return not runs(ids.float()) and runs(ids)
