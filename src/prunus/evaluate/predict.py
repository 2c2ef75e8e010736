"""What does a model say about a set of examples?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunus.core.calls import call
from prunus.core.errors import RunError

if TYPE_CHECKING:
    from prunus.data import Examples

__all__ = ["predict_outputs"]


def predict_outputs(model: nn.Module, examples: Examples, *, batch_size: int = 512) -> Tensor:
    """Return the outputs for every example in order, on the CPU; the model's modes are as before.

    Shapes:
        ``(n, outputs)``.
    Raises:
        RunError: an output is NaN or infinite.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            outputs = torch.cat([call(model, batch.inputs).float().cpu() for batch in examples.batches(batch_size)])
    finally:
        for module, training in modes.items():
            module.training = training
    bad = ~outputs.reshape(len(outputs), -1).isfinite().all(dim=1)
    if bool(bad.any()):
        raise RunError(
            f"the model's output for example {examples.ids[int(bad.long().argmax())]!r} is NaN or infinite "
            f"(and for {int(bad.sum()) - 1} more): train it with a lower learning rate"
        )
    return outputs
