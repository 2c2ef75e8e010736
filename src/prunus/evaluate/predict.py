"""What does a model say about a set of examples, and what is observed of it?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from prunus.core.batch import Batched
from prunus.core.calls import answers, call
from prunus.core.errors import DataError, RunError
from prunus.tasks import Observed, Task

__all__ = ["observe", "predict_outputs"]

BATCH = 512


def observe(model: nn.Module, examples: Batched, task: Task, *, batch_size: int = BATCH) -> Observed:
    """Return what ``task`` observes of the model's answer to every example, in order; the model's modes are as before.

    No answer is kept: memory follows the observations.

    Raises:
        RunError: an answer holds NaN or infinity.
        DataError: no examples.
    """
    parts: list[Observed] = []
    with _evaluating(model):
        for batch in examples.batches(batch_size):
            outputs = call(model, batch.inputs)
            for found in answers(outputs):
                _check_finite(found, batch.index, examples)
            parts.append(task.observe(outputs, batch))
    if not parts:
        raise DataError("quality needs at least one example: got an empty set")
    return task.settled({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def predict_outputs(model: nn.Module, examples: Batched, *, batch_size: int = BATCH) -> Tensor:
    """Return the outputs for every example in order, on the CPU; the model's modes are as before.

    Shapes:
        ``(n, outputs)``.
    Raises:
        RunError: an output is NaN or infinite.
    """
    parts: list[Tensor] = []
    with _evaluating(model):
        for batch in examples.batches(batch_size):
            outputs = call(model, batch.inputs).float().cpu()
            _check_finite(outputs, batch.index, examples)
            parts.append(outputs)
    return torch.cat(parts)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _check_finite(outputs: Tensor, index: Tensor, examples: Batched) -> None:
    """Refuse answers that aren't numbers; one that isn't a row per example (padding, anchors) may hold infinities, never NaN."""
    by_row = outputs.dim() > 0 and len(outputs) == len(index)
    rows = outputs.reshape(len(outputs), -1) if by_row else outputs.reshape(1, -1)
    bad = ~(rows.isfinite() if by_row else ~rows.isnan()).all(dim=1)
    if bool(bad.any()):
        ids = getattr(examples, "ids", None)
        at = int(index[int(bad.long().argmax())]) if by_row else int(index[0])
        raise RunError(
            f"the model's output for example {at if ids is None else ids[at]!r} is NaN or infinite "
            f"(and for {int(bad.sum()) - 1} more of its batch): train it with a lower learning rate"
        )
