"""Do a model's outputs fit the labels?

One batch in evaluation mode answers that before any time is spent on training.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from prunus.core.code.imports import one_line
from prunus.core.errors import ModelError
from prunus.core.quiet import quiet

__all__ = ["check_outputs"]


def check_outputs(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    task: Literal["classification", "regression"],
    n_outputs: int,
) -> None:
    """Check the outputs for one batch; the model and its mode stay as they are.

    Shapes:
        Expected are ``(n, n_outputs)`` for classification, ``(n,)`` or ``(n, 1)`` for regression.

    Raises:
        ModelError: the model fails on the inputs, or its outputs have another shape, another type, or NaN.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with quiet(model), torch.no_grad():
            outputs = model(inputs)
    except Exception as error:
        raise ModelError(
            f"the model fails on inputs of shape {tuple(inputs.shape)}: {one_line(error)}; build it for that shape "
            "(a builder with an argument input_shape is told it)"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    if not isinstance(outputs, Tensor):
        raise ModelError(f"the model must return one tensor, got {type(outputs).__name__}; wrap it and pick the logits")
    if not outputs.is_floating_point():
        raise ModelError(
            f"the model must return floating-point scores, got {outputs.dtype}; return logits, not classes"
        )
    _check_shape(tuple(outputs.shape), len(inputs), task, n_outputs)
    if task == "classification" and bool(((targets < 0) | (targets >= n_outputs)).any()):
        raise ModelError(f"labels must be class numbers 0..{n_outputs - 1}, got {targets.min()}..{targets.max()}")
    if not outputs.isfinite().all():
        n_bad = int((~outputs.isfinite()).sum())
        raise ModelError(
            f"the model gives NaN or infinity: {n_bad} of {outputs.numel()} outputs; check its weights and the inputs' scale"
        )


def _check_shape(shape: tuple[int, ...], n_inputs: int, task: str, n_outputs: int) -> None:
    expected = [(n_inputs, n_outputs)] if task == "classification" else [(n_inputs,), (n_inputs, 1)]
    if shape in expected:
        return
    wanted = " or ".join(map(str, expected))
    if task == "regression":
        hint = "regression needs one output per input"
    elif shape in ((n_inputs,), (n_inputs, 1)):
        hint = f"give one score per class, {n_outputs} of them"
    elif len(shape) == 2 and shape[0] == n_inputs:
        hint = f"the model has {shape[1]} outputs for {n_outputs} classes; a builder with an argument n_outputs is told the number"
    else:
        hint = "one row per input is needed; pool or flatten before the last layer"
    raise ModelError(f"the model's outputs don't fit the labels: expected {wanted}, got {shape}; {hint}")
