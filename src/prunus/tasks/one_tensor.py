"""Which tensor of a model's answer is meant, where a task reads one?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from prunus.core.calls import answers, described
from prunus.core.errors import ModelError

__all__ = ["one_tensor"]


def one_tensor(outputs: Any) -> Tensor:
    """Return the tensor of scores or numbers in an answer: itself, its ``logits``, or the only one that there is.

    Raises:
        ModelError: there is none, or there are several and none is called ``logits``.
    """
    if not isinstance(outputs, Tensor):
        named = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
        if isinstance(named, Tensor):
            outputs = named
        elif len(found := answers(outputs)) == 1:
            outputs = found[0]
        else:
            raise ModelError(
                f"the model must return one tensor of floating-point scores, or a structure with logits: got {described(outputs)}; "
                "wrap it and pick the logits"
            )
    found_one: Tensor = outputs
    if not found_one.is_floating_point():
        raise ModelError(
            f"the model must return floating-point scores, got {outputs.dtype}; return logits, not classes"
        )
    return found_one
