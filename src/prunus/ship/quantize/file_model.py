"""How is an exported file measured on examples, as the model of a bundle is?

Examples come scaled, a file takes raw inputs: the scaling is undone before it. It gives answers in the units of the data set, where
examples may have scaled targets: those are scaled again. So whatever observes a model observes the file, through its runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunus.core.calls import call, map_tensors
from prunus.core.errors import ModelError
from prunus.ship.bundle import Bundle
from prunus.ship.inputs import is_scaled, output_tensors

__all__ = ["FileModel", "raw_batch"]


class FileModel(nn.Module):
    """A file in its runtime, called as the bundle's model is.

    Args:
        outputs: takes raw inputs and returns every output of the file.
        scaled_targets: whether the examples have them scaled.
    """

    def __init__(self, bundle: Bundle, outputs: Callable[[Any], list[Tensor]], *, scaled_targets: bool) -> None:
        super().__init__()
        self._bundle, self._outputs, self._scaled_targets = bundle, outputs, scaled_targets
        self._form: Any = None

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the answer in the structure that the bundle's model gives it in."""
        given: Any = named or (inputs[0] if len(inputs) == 1 else inputs)
        found = self._outputs(raw_batch(self._bundle, given))
        scaler = self._bundle.target_scaler
        if scaler is not None and self._scaled_targets:
            found = [scaler(value) for value in found]
        if self._bundle.manifest.n_output_tensors == 1:
            return found[0]
        if self._form is None:
            with torch.no_grad():
                self._form = call(self._bundle.model, given)
            if len(output_tensors(self._form)) != len(found):
                raise ModelError(f"the file gives {len(found)} outputs, the model {len(output_tensors(self._form))}")
        each = iter(found)
        return map_tensors(lambda value: next(each), self._form)


def raw_batch(bundle: Bundle, given: Any) -> Any:
    """Return inputs as the user had them before they were scaled."""
    scaler = bundle.scaler if is_scaled(bundle.manifest.takes) else None
    return given if scaler is None else pytree.tree_map_only(Tensor, scaler.undo, given)
