"""Which dimension of a weight counts the inputs?

Torch's layers keep (outputs, inputs, kernel...), except transposed convolutions and the ``Conv1D`` of transformers, which keep
(inputs, outputs, kernel...). A user's own matrix is taken for (outputs, inputs), as ``nn.Linear`` has it.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd

__all__ = ["input_dims"]


def input_dims(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return, per parameter of two dimensions or more, the dimension of its inputs and into how many groups that is cut.

    >>> input_dims(nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.ConvTranspose2d(8, 4, 3, groups=2)))
    {'0.weight': (1, 1), '1.weight': (0, 2)}
    """
    found = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            if parameter.dim() >= 2:
                transposed = isinstance(module, _ConvTransposeNd)
                inputs_first = transposed or type(module).__qualname__ == "Conv1D"
                found[name] = (0 if inputs_first else 1, int(module.groups) if transposed else 1)
    return found
