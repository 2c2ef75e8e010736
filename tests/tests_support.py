"""Small things that several tests build."""

from __future__ import annotations

from torch import Tensor

from prunus.core.recipes.recipe import Model
from prunus.models import build


def digits_state() -> dict[str, Tensor]:
    """Return the weights of the small recipe's model."""
    model = build(Model(builder="cnn", args={"width": 8}), input_shape=(1, 8, 8), n_outputs=10, seed=0)
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
