"""What does an exported file compute: the model of a bundle between its scalers, on inputs as a user has them?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunus.data import Scaler
from prunus.ship.bundle import Bundle
from prunus.ship.inputs import Inputs, called_on, is_scaled, made, output_tensors

__all__ = ["RawModel", "raw_answers", "raw_inputs"]


class RawModel(nn.Module):
    """The model of a bundle between its scalers, as ``Bundle.predict`` calls it."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.model, self.scaler, self.target_scaler = bundle.model, _scaler(bundle), bundle.target_scaler

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """Return raw outputs for raw inputs."""
        if self.scaler is not None:
            inputs = tuple(self.scaler(value) for value in inputs)
            named = {name: self.scaler(value) for name, value in named.items()}
        outputs = output_tensors(self.model(*inputs, **named))
        return outputs if self.target_scaler is None else [self.target_scaler.undo(value) for value in outputs]


def raw_inputs(bundle: Bundle, takes: Inputs, size: int) -> Any:
    """Return inputs that are normal to the model, as the user would give them."""
    scaled, scaler = made(takes, size, "export", size), _scaler(bundle)
    return scaled if scaler is None else pytree.tree_map_only(Tensor, scaler.undo, scaled)


def raw_answers(model: nn.Module, inputs: Any) -> list[Tensor]:
    """Return every tensor that a model gives."""
    with torch.no_grad():
        return called_on(model, inputs)


def _scaler(bundle: Bundle) -> Scaler | None:
    """Return what scales the inputs: one that is of fractional numbers."""
    return bundle.scaler if is_scaled(bundle.manifest.takes) else None
