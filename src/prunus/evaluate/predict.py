"""What does a model say about a set of examples, and what is observed of it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prunus.core.batch import Batch, Batched
from prunus.core.calls import answer, answers, arguments, call, joined, map_tensors, n_examples, select_rows
from prunus.core.errors import DataError, RunError
from prunus.data.large.grown_columns import GrownColumns
from prunus.data.sources.reading import as_tensors
from prunus.data.sources.source import row_chunks
from prunus.evaluate.feed import MOST, Feed, read_size
from prunus.tasks import Observed, Task

__all__ = ["answers_to", "evaluated", "observe", "predict_outputs"]


def observe(model: nn.Module, examples: Batched, task: Task, *, batch_size: int | None = None) -> Observed:
    """Return what ``task`` observes of the model's answer to every example, in order; the model's modes are as before.

    No answer is kept: memory follows the observations, and where inputs are mapped from files, the observations lie in files, too.

    Args:
        batch_size: how many examples are read, and go through the model, at once; default: see :mod:`prunus.evaluate.feed`.

    Raises:
        RunError: an answer holds NaN or infinity.
        DataError: no examples.
        OutputError: the disk has no room for the observations.
    """
    columns = GrownColumns(in_files=bool(getattr(examples, "on_disk", False)))
    with _evaluating(model):
        for batch in _fed(model, examples, batch_size):
            outputs = call(model, batch.inputs)
            for found in answers(outputs):
                _check_finite(found, batch.index, examples)
            columns.add(task.observe(outputs, batch))
    observed = columns.whole()
    if not observed:
        raise DataError("quality needs at least one example: got an empty set")
    return task.settled(observed)


def predict_outputs(model: nn.Module, examples: Batched, *, batch_size: int | None = None) -> Tensor:
    """Return the outputs for every example in order, on the CPU; the model's modes are as before.

    Shapes:
        ``(n, outputs)``.
    Raises:
        RunError: an output is NaN or infinite.
    """
    parts: list[Tensor] = []
    with _evaluating(model):
        for batch in _fed(model, examples, batch_size):
            outputs = answer(call(model, batch.inputs)).float().cpu()
            _check_finite(outputs, batch.index, examples)
            parts.append(outputs)
    return torch.cat(parts)


@contextmanager
def evaluated(model: nn.Module, examples: Batched) -> Iterator[Iterator[Batch]]:
    """Give every example in batches that ``model`` can take, while it is in evaluation mode and nothing has a gradient."""
    with _evaluating(model):
        yield _fed(model, examples, None)


def answers_to(
    model: nn.Module,
    inputs: Any,
    scaler: Callable[[Tensor], Tensor],
    device: torch.device,
    *,
    batch_size: int = MOST,
) -> Any:
    """Return the model's answer, on the CPU, to inputs of any structure that somebody hands over.

    Args:
        scaler: what one tensor of fractional numbers goes through first.

    Raises:
        DataError: nothing in it counts examples.
    """
    whole = as_tensors(inputs)
    n = n_examples(arguments(whole))
    feed, parts = Feed(model), []
    with _evaluating(model):
        for rows in row_chunks(torch.arange(n), batch_size):
            given = whole if n <= batch_size else select_rows(whole, rows)
            if isinstance(given, Tensor) and given.is_floating_point():
                given = scaler(given)
            for part in feed.parts(Batch(rows, map_tensors(lambda value: value.to(device), given), None)):
                made = call(model, part.inputs)
                parts.append(map_tensors(lambda value: value.detach().cpu(), made))
    return parts[0] if len(parts) == 1 else joined(parts)


def _fed(model: nn.Module, examples: Batched, batch_size: int | None) -> Iterator[Batch]:
    if batch_size is not None:
        yield from examples.batches(batch_size)
        return
    feed = Feed(model)
    for batch in examples.batches(read_size(examples)):
        yield from feed.parts(batch)


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
