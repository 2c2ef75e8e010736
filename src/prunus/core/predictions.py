"""What does a person read of a model's answers, and are they numbers?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from prunus.core.errors import NotFiniteError

__all__ = ["Prediction", "check_outputs_finite"]


@dataclass(frozen=True)
class Prediction:
    """What a model says about each input.

    Shapes:
        ``labels`` has one entry per input: a class name, a number, or what else a task's answers are. ``probabilities`` is
        ``(n, classes)`` with rows that sum to 1, and None where there are none.
    """

    labels: tuple[Any, ...]
    probabilities: Tensor | None = None


def check_outputs_finite(outputs: Tensor) -> None:
    """Check that every output is a number.

    Raises:
        NotFiniteError: one isn't; the message names its row.
    """
    # A sum of finite numbers may overflow, and says only that it is worth to look.
    if outputs.is_floating_point() and bool(outputs.detach().sum().isfinite()):
        return
    rows = outputs.detach()[:, None] if outputs.ndim == 1 else outputs.detach().flatten(start_dim=1)
    bad = ~rows.isfinite().all(dim=1)
    if bool(bad.any()):
        raise NotFiniteError(
            f"the model's output for input row {int(bad.long().argmax())} is NaN or infinite (and for {int(bad.sum()) - 1} more "
            "rows): the inputs are far from what it learnt from, or the model is broken"
        )
