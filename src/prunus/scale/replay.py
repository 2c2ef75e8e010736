"""How does a block run again on what it was handed once, when it writes into that?

A decoder appends to a cache of keys and values, an activation works in place: what a block was handed isn't the same after it
ran. So it runs on copies. Tensors, which are large, are shared where a block is handed them as such, and nothing may write there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from prunus.core.errors import ModelError, raise_if_out_of_memory

__all__ = ["Shared", "copied", "duplicated", "parts_of", "unwritten", "versions"]

T = TypeVar("T")
Shared = Mapping[int, Any]
"""What isn't copied, by its ``id``: the parts of the model."""


def parts_of(model: nn.Module) -> dict[int, Any]:
    """Return the modules, parameters and buffers of ``model``, by their ``id``."""
    return {id(part): part for part in (*model.modules(), *model.parameters(), *model.buffers())}


def copied(values: T, shared: Shared) -> T:
    """Return ``values`` with copies of the objects among them; tensors stay, unless an object holds them.

    Raises:
        ModelError: something can't be copied.
    """
    return _copied(values, {**shared, **{id(tensor): tensor for tensor in _tensors(values)}})


def duplicated(values: T, shared: Shared) -> T:
    """Return ``values`` with copies of the objects and the tensors among them.

    Raises:
        ModelError: something can't be copied.
    """
    return _copied(values, {**{id(tensor): tensor.detach().clone() for tensor in _tensors(values)}, **shared})


def _copied(values: T, memo: dict[int, Any]) -> T:
    try:
        return copy.deepcopy(values, memo)
    except Exception as error:
        raise_if_out_of_memory(error)
        raise ModelError(
            f"the model hands its blocks something that can't be copied ({type(error).__name__}: {error}), and they must run "
            "twice on it: give batches without it, or prune this model in one piece"
        ) from error


def versions(values: Any) -> list[tuple[Tensor, int]]:
    """Return each tensor among ``values`` with how often it was written to."""
    return [(tensor, tensor._version) for tensor in _tensors(values) if not tensor.is_inference()]


def unwritten(before: list[tuple[Tensor, int]]) -> None:
    """Refuse a tensor that was written to since.

    Raises:
        ModelError: its next reader would see something else.
    """
    for tensor, version in before:
        if tensor._version != version:
            raise ModelError(
                f"a block writes into a tensor of shape {tuple(tensor.shape)} that other blocks are handed, too: "
                "prune this model in one piece instead"
            )


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
