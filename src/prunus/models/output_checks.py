"""Do a model's outputs fit the labels?

One batch in evaluation mode answers that before any time is spent on training.
"""

from __future__ import annotations

import torch
from torch import nn

from prunus.core.batch import Batch
from prunus.core.calls import answers, call, described
from prunus.core.code.imports import one_line
from prunus.core.errors import ModelError, raise_if_out_of_memory
from prunus.core.quiet import quiet
from prunus.tasks import Task

__all__ = ["check_outputs"]


def check_outputs(model: nn.Module, batch: Batch, task: Task) -> None:
    """Check the outputs for one batch; the model and its mode stay as they are.

    Raises:
        ModelError: the model fails on the inputs, its outputs aren't what the task reads, or they hold NaN.
        DataError: the targets aren't what the task reads.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with quiet(model), torch.no_grad():
            outputs = call(model, batch.inputs)
    except Exception as error:
        raise_if_out_of_memory(error)
        raise ModelError(
            f"the model fails on inputs {described(batch.inputs)}: {one_line(error)}; build it for that shape "
            "(a builder with an argument input_shape is told it)"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    task.check(outputs, batch)
    numbers = answers(outputs)
    n_bad = sum(int((~found.isfinite()).sum()) for found in numbers)
    if n_bad:
        raise ModelError(
            f"the model gives NaN or infinity: {n_bad} of {sum(found.numel() for found in numbers)} outputs; check its weights and "
            "the inputs' scale"
        )
