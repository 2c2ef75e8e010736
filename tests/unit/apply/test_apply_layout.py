"""Inputs are found where each kind of layer keeps them."""

import torch
from torch import nn

from prunus.apply import input_dims


class Conv1D(nn.Module):
    """As transformers has it: (inputs, outputs)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 5))


def test_every_layer_s_inputs_are_the_dimension_that_it_contracts():
    model = nn.ModuleDict(
        {
            "linear": nn.Linear(3, 5),
            "grouped": nn.Conv1d(4, 6, 3, groups=2),
            "transposed": nn.ConvTranspose2d(4, 6, 3, groups=2),
            "theirs": Conv1D(),
            "recurrent": nn.LSTM(3, 5),
        }
    )
    assert input_dims(model) == {
        "linear.weight": (1, 1),
        "grouped.weight": (1, 1),
        "transposed.weight": (0, 2),
        "theirs.weight": (0, 1),
        "recurrent.weight_ih_l0": (1, 1),
        "recurrent.weight_hh_l0": (1, 1),
    }
