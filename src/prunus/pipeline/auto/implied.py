"""What is to be kept, as far as the model's answers and the targets tell?

Nobody who hands over a model and its data says twice what they are for: class numbers beside scores ask for cross-entropy, numbers
beside numbers of the same shape for squared error, and without targets the model's own answers are what is to be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.core.calls import answer, answers, call, described
from prunus.core.code.imports import one_line
from prunus.core.errors import DataError, ModelError, PrunusError, raise_if_out_of_memory
from prunus.data import Batch, Batches
from prunus.recover import Measure, natural_measure
from prunus.score import probe_loss
from prunus.tasks import (
    Classification,
    Detection,
    Language,
    MultiLabel,
    Regression,
    Segmentation,
    Task,
    TokenClassification,
    own_losses,
)

__all__ = ["Objective", "implied_task", "objective_of"]

IGNORED = -100
"""A class number that says: don't count this place, as torch's cross-entropy has it."""


@dataclass(frozen=True)
class Objective:
    """What gradients are taken of, and how answers are compared.

    ``said`` is it in words; ``labelled`` tells whether ``loss`` reads targets; a ``loss`` takes the model's answer and a batch.
    """

    loss: Callable[[Any, Batch], Tensor]
    measure: Measure
    said: str
    labelled: bool
    task: Task | None = None


@torch.no_grad()
def objective_of(
    model: nn.Module,
    examples: Batches,
    loss: Callable[[Any, Any], Tensor] | None = None,
    *,
    task: Task | None = None,
    seed: int = 0,
) -> Objective:
    """Return what the outputs on a few examples and their targets imply; ``model`` ends in evaluation mode.

    Args:
        task: what is asked of the model; it says the loss where none is given.
        loss: ``(outputs, targets) -> scalar``, a mean over the examples, instead; a ``nn.Module`` gets the logits where the answer
            is a structure that has some.

    Raises:
        DataError: the targets fit none of what is known; it says what came, and to give a loss.
        ModelError: a given loss fails.
    """
    batch = next(iter(examples.batches(8)))
    outputs = call(model.eval(), batch.inputs)
    if not answers(outputs):
        raise ModelError(f"expected numbers in the model's answer: got {described(outputs)}; wrap it in a module")
    measure = natural_measure(outputs)
    if task is None and loss is None and _are_boxes(batch.targets):
        task = Detection(n_classes=getattr(getattr(model, "config", None), "num_labels", 0))
    if task is not None and (examples.labelled or not task.labelled):
        task.check(outputs, batch)
        measure = _measure_with(outputs, batch) if isinstance(batch.targets, Tensor) else measure
        minimised: Callable[[Any, Batch], Tensor]
        if loss is not None:
            minimised = _given(loss, outputs, batch, measure, examples).loss
        elif task.told_by_model:
            own_losses(model, batch)
            minimised = lambda _, one: own_losses(model, one)  # noqa: E731
        else:
            minimised = task.loss
        said = f"the loss of {task.name}" if loss is None else "the given loss"
        return Objective(minimised, measure, said, examples.labelled, task)
    if task is not None:
        raise DataError(
            f"task {task.name} needs targets, and the data have none: give data with targets, or leave the task out"
        )
    if loss is not None:
        return _given(loss, outputs, batch, measure, examples)
    own = None if isinstance(outputs, Tensor) else getattr(outputs, "loss", None)
    if isinstance(own, Tensor) and own.numel() == 1:
        return Objective(lambda made, _: made.loss, measure, "the loss that the model itself returns", True)
    if not examples.labelled:
        words = "its own answers" if measure in ("kl", "kl_last") else "how far its outputs move"
        return Objective(
            probe_loss(measure, seed=seed), measure, f"no targets: {words} on these inputs are kept", False
        )
    return _of_targets(outputs, batch)


def _are_boxes(targets: Any) -> bool:
    """Tell whether targets are objects in images, as detectors are trained with."""
    return (
        isinstance(targets, list)
        and bool(targets)
        and all(isinstance(one, Mapping) and "boxes" in one for one in targets)
    )


def _measure_with(outputs: Any, batch: Batch) -> Measure:
    """Return how answers are compared where class numbers stand beside them."""
    if batch.targets.is_floating_point():
        return "relative"
    classes = _class_dim(answer(outputs), batch.targets)
    return "relative" if classes is None else "kl" if classes == 1 else "kl_last"


def _given(
    loss: Callable[[Any, Any], Tensor], outputs: Any, batch: Batch, measure: Measure, examples: Batches
) -> Objective:
    if isinstance(loss, type):
        raise ModelError(f"loss: got the class {loss.__name__}, which is no loss yet: give {loss.__name__}(...)")
    if not callable(loss):
        raise ModelError(f"loss must be a function of outputs and targets, or a module: got {type(loss).__name__}")
    if not examples.labelled:
        raise DataError("a loss reads targets, and the data have none: give data with targets, or leave the loss out")
    name = type(loss).__name__ if isinstance(loss, nn.Module) else getattr(loss, "__name__", type(loss).__name__)

    def run(made: Any, one: Batch) -> Tensor:
        try:
            return loss(answer(made) if isinstance(loss, nn.Module) else made, one.targets)
        except PrunusError:
            raise
        except Exception as failure:
            raise_if_out_of_memory(failure)
            raise ModelError(
                f"the loss {name} failed on outputs {described(made)} and targets {described(one.targets)}: {one_line(failure)}"
            ) from failure

    value = run(outputs, batch)
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ModelError(f"the loss {name} must give one number, the mean over the batch: got {described(value)}")
    if not isinstance(batch.targets, Tensor) or batch.targets.is_floating_point():
        return Objective(run, measure, f"{name} of outputs and targets", True)
    classes = _class_dim(answer(outputs), batch.targets)
    return Objective(
        run,
        measure if classes is None else "kl" if classes == 1 else "kl_last",
        f"{name} of outputs and targets",
        True,
    )


def implied_task(outputs: Any, batch: Batch) -> Task | None:
    """Return the task that outputs and targets tell, where they do."""
    found = _told(outputs, batch)
    return None if found is None else found.task


def _told(outputs: Any, batch: Batch) -> Objective | None:
    found, targets = answer(outputs), batch.targets
    if not isinstance(targets, Tensor):
        return None
    return _of_numbers(found, targets) if targets.is_floating_point() else _of_classes(found, targets, batch.inputs)


def _of_targets(outputs: Any, batch: Batch) -> Objective:
    objective = _told(outputs, batch)
    if objective is not None:
        return objective
    targets = batch.targets
    raise DataError(
        f"targets don't tell what the loss is: got outputs {described(outputs)} and targets {described(targets)}; give "
        "loss=..., a function of outputs and targets"
    )


def _of_numbers(outputs: Tensor, targets: Tensor) -> Objective | None:
    if outputs.numel() != targets.numel() or len(outputs) != len(targets):
        return None
    if bool(((targets == 0) | (targets == 1)).all()) and targets[0].numel() > 1:
        return Objective(
            lambda made, one: functional.binary_cross_entropy_with_logits(
                answer(made).view_as(one.targets), one.targets
            ),
            "relative",
            "binary cross-entropy of each label (targets are 0 or 1)",
            True,
            MultiLabel() if outputs.dim() == 2 else None,
        )
    return Objective(
        lambda made, one: functional.mse_loss(answer(made).view_as(one.targets), one.targets),
        "relative",
        "squared error (targets are numbers)",
        True,
        Regression(),
    )


def _of_classes(outputs: Tensor, targets: Tensor, inputs: Any) -> Objective | None:
    if targets.dim() == 2 and targets.shape[1] == 1 and outputs.dim() == 2 and outputs.shape[1] > 1:
        targets = targets.squeeze(1)
    if outputs.numel() == targets.numel() and len(outputs) == len(targets) and _is_binary(targets):
        return Objective(
            lambda made, one: functional.binary_cross_entropy_with_logits(
                answer(made).view_as(one.targets), one.targets.to(answer(made).dtype)
            ),
            "kl" if outputs.numel() == len(outputs) else "relative",
            "binary cross-entropy (targets are 0 or 1)",
            True,
            Classification(n_classes=2) if outputs.numel() == len(outputs) and targets.dim() == 1 else None,
        )
    dim = _class_dim(outputs, targets)
    if dim is None:
        return None
    highest, lowest = (
        int(targets.max()),
        int(targets[targets != IGNORED].min()) if bool((targets != IGNORED).any()) else 0,
    )
    if highest >= outputs.shape[dim] or lowest < 0:
        raise DataError(
            f"expected class numbers 0..{outputs.shape[dim] - 1} for the model's {outputs.shape[dim]} outputs: got "
            f"{lowest}..{highest}; look at the label column"
        )
    if dim != 1 and _are_next_tokens(targets, inputs):
        return Objective(
            _next_token_loss, "kl_last", "cross-entropy of the next token (targets are the inputs)", True, Language()
        )
    return Objective(
        lambda made, one: functional.cross_entropy(
            answer(made).movedim(dim, 1),
            one.targets.reshape(_without(answer(made).shape, dim)).long(),
            ignore_index=IGNORED,
        ),
        "kl" if dim == 1 else "kl_last",
        "cross-entropy (targets are class numbers)",
        True,
        _of_class_numbers(outputs, targets, dim),
    )


def _of_class_numbers(outputs: Tensor, targets: Tensor, dim: int) -> Task | None:
    """Return the task of which the targets are: a class for an example, a pixel or a token."""
    if outputs.dim() == 2 and targets.dim() == 1:
        return Classification(n_classes=outputs.shape[1])
    if outputs.dim() == 3 and dim == 2:
        return TokenClassification()
    return Segmentation() if outputs.dim() == 4 and dim == 1 else None


def _class_dim(outputs: Tensor, targets: Tensor) -> int | None:
    """Return the dimension of the outputs that the targets don't have: 1 or the last."""
    shape = tuple(
        targets.shape[:1] if targets.dim() == 2 and targets.shape[1] == 1 and outputs.dim() == 2 else targets.shape
    )
    if outputs.dim() != len(shape) + 1:
        return None
    return next((dim for dim in (1, outputs.dim() - 1) if _without(outputs.shape, dim) == shape), None)


def _without(shape: torch.Size, dim: int) -> tuple[int, ...]:
    dim %= len(shape)
    return (*shape[:dim], *shape[dim + 1 :])


def _is_binary(targets: Tensor) -> bool:
    return bool(((targets == 0) | (targets == 1)).all())


def _are_next_tokens(targets: Tensor, inputs: Any) -> bool:
    """Tell whether targets are the inputs' own tokens, as language models are trained."""
    ids = inputs.get("input_ids") if isinstance(inputs, dict) else inputs
    if not isinstance(ids, Tensor) or ids.shape != targets.shape or ids.is_floating_point():
        return False
    counted = targets != IGNORED
    return bool(counted.any()) and torch.equal(ids[counted], targets[counted].to(ids.dtype))


def _next_token_loss(outputs: Any, batch: Batch) -> Tensor:
    scores = answer(outputs)[:, :-1]
    return functional.cross_entropy(scores.transpose(1, 2), batch.targets[:, 1:].long(), ignore_index=IGNORED)
