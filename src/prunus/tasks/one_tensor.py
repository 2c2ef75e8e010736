"""Which tensor of a model's answer is meant, where a task reads one?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from prunus.core.calls import answer, answers, described, tensors
from prunus.core.errors import ModelError
from prunus.core.predictions import check_outputs_finite

__all__ = ["leading_tensor", "one_tensor", "plain_answer"]


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
    return _of_numbers(found_one)


def leading_tensor(outputs: Any) -> Tensor:
    """Return the tensor of scores in an answer: itself, its ``logits``, or the first, as where others help to train it.

    Raises:
        ModelError: there is none of floating-point numbers.
    """
    return _of_numbers(answer(outputs))


def _of_numbers(found: Tensor) -> Tensor:
    if not found.is_floating_point():
        raise ModelError(f"the model must return floating-point scores, got {found.dtype}; return logits, not classes")
    return found


def plain_answer(outputs: Any) -> tuple[Any, ...]:
    """Return the numbers of each example's answer as plain lists; of a list of answers (a detector's) all of each, by their places.

    >>> plain_answer([{"scores": Tensor([0.5])}])
    ({'scores': [0.5]},)
    """
    if isinstance(outputs, list) and not all(isinstance(one, Tensor) for one in outputs):
        return tuple({where: found.detach().tolist() for where, found in tensors(one)} for one in outputs)
    found = answer(outputs)
    check_outputs_finite(found)
    return tuple(found.detach().tolist())
