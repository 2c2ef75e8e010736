"""What do a model's raw outputs mean: which label, with which probability?

A classifier's outputs are logits, one column per class; a regressor's are the values themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from prunus.core.errors import RunError, ShapeError

__all__ = ["Prediction", "check_outputs_finite", "postprocess"]


@dataclass(frozen=True)
class Prediction:
    """What a model says about each input.

    Shapes:
        ``labels`` has one entry per input: a class name, or a number for regression. ``probabilities`` is ``(n, classes)``
        with rows that sum to 1, and None for regression.
    """

    labels: tuple[str, ...] | tuple[float, ...]
    probabilities: Tensor | None = None


def check_outputs_finite(outputs: Tensor) -> None:
    """Check that every output is a number.

    Raises:
        RunError: one isn't; the message names its row.
    """
    rows = outputs.detach()[:, None] if outputs.ndim == 1 else outputs.detach().flatten(start_dim=1)
    bad = ~rows.isfinite().all(dim=1)
    if bool(bad.any()):
        raise RunError(
            f"the model's output for input row {int(bad.long().argmax())} is NaN or infinite (and for {int(bad.sum()) - 1} more "
            "rows): the inputs are far from what it learnt from, or the model is broken"
        )


def postprocess(
    outputs: Tensor, *, task: Literal["classification", "regression"], class_names: Sequence[str] = ()
) -> Prediction:
    """Return the labels (and for a classifier the probabilities) that ``outputs`` mean; without names a class is its number.

    Shapes:
        ``outputs`` is ``(n, classes)``; for regression ``(n,)`` or ``(n, 1)``.

    Raises:
        ShapeError: the outputs have another shape, or another number of classes than there are names.
        RunError: an output is NaN or infinite; it would have a label all the same.

    >>> postprocess(torch.tensor([[0.0, 2.0], [3.0, 1.0]]), task="classification", class_names=("cat", "dog")).labels
    ('dog', 'cat')
    >>> postprocess(torch.tensor([[1.5], [-2.0]]), task="regression").labels
    (1.5, -2.0)
    """
    check_outputs_finite(outputs)
    if task == "regression":
        if outputs.ndim != 1 and (outputs.ndim != 2 or outputs.shape[1] != 1):
            raise ShapeError(f"a regression model's outputs must be (n,) or (n, 1): got {tuple(outputs.shape)}")
        return Prediction(tuple(outputs.detach().flatten().tolist()))
    if outputs.ndim != 2 or outputs.shape[1] != (len(class_names) or outputs.shape[1]):
        raise ShapeError(
            f"a classifier's outputs must be (n, {len(class_names) or 'classes'}), one logit per class: "
            f"got {tuple(outputs.shape)}"
        )
    probabilities = torch.softmax(outputs.detach().double(), dim=1).float()
    numbers = outputs.argmax(dim=1).tolist()
    return Prediction(tuple(class_names[n] if class_names else str(n) for n in numbers), probabilities)
