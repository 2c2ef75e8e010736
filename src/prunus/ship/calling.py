"""Does a bundle's model take these inputs, and what does it give for them?

Inputs are arranged by place or name as the manifest describes them, and looked at before the model is: type, dimensions, sizes,
number of examples. What the model itself refuses then is one line, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunus.core.calls import arguments, joined, map_tensors, tensors
from prunus.core.code.imports import one_line
from prunus.core.errors import DataError, ModelError, PrunusError, ShapeError, raise_if_out_of_memory
from prunus.core.runtime import device_of
from prunus.data import raw_inputs
from prunus.ship.inputs import InputEntry, Inputs, sizes_misfit

__all__ = ["Key", "arranged", "as_numbers", "check_finite", "in_batches"]

Key = int | str
"""The place or the name of an input."""


def arranged(takes: Inputs, inputs: Any) -> dict[Key, Any]:
    """Return the inputs by place or name; fractional ones may come in another precision than the model's.

    Raises:
        ShapeError: others than ``takes`` describes; the message names input, dimension, what was expected and what came.
    """
    positional, named = arguments(inputs)
    given: dict[Key, Any] = dict([*enumerate(positional), *named.items()])
    wanted = _by_key(takes)
    if given.keys() != wanted.keys():
        raise ShapeError(f"the model takes {list(wanted)}: got {list(given)}")
    for key, entry in wanted.items():
        value = given[key]
        if entry.listed != isinstance(value, list):
            what = (
                "a list with one tensor for each example" if entry.listed else f"{entry.dtype} of shape {_shape(entry)}"
            )
            raise ShapeError(f"input {key!r} must be {what}: got {_got(value)}")
        for one in value if entry.listed else (value,):
            _check_kind(key, entry, one)
    if problem := sizes_misfit(takes, [given[key] for key in wanted]):
        raise ShapeError(f"{problem}; the model takes inputs of shape {', '.join(map(_shape, takes))}")
    if len(counts := {key: len(given[key]) for key in wanted}) > 1 and len(set(counts.values())) > 1:
        shown = ", ".join(f"{key!r}: {n}" for key, n in counts.items())
        raise ShapeError(f"expected as many examples in every input: got {shown}")
    return {key: given[key] for key in wanted}


def _check_kind(key: Key, entry: InputEntry, value: Any) -> None:
    whole = not entry.kind.is_floating_point
    if not isinstance(value, Tensor) or whole == (value.is_floating_point() or value.is_complex()):
        raise ShapeError(f"input {key!r} must be {entry.dtype} of shape {_shape(entry)}: got {_got(value)}")
    if whole and value.dtype != entry.kind and not torch.equal(value.to(entry.kind).to(value.dtype), value):
        least, most = (int(bound) for bound in value.aminmax())
        raise ShapeError(f"input {key!r} must hold values that {entry.dtype} can: got {least} to {most}")


def _got(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def as_numbers(takes: Inputs, inputs: Any) -> Any:
    """Return inputs with those that the model takes as fractional numbers in single or double precision, nothing rounded."""

    def made(entry: InputEntry | None, value: Any) -> Any:
        fractions = entry is not None and entry.kind.is_floating_point and not entry.listed
        return raw_inputs(value) if fractions else value

    wanted = _by_key(takes)
    if isinstance(inputs, Mapping):
        return {name: made(wanted.get(name), value) for name, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(made(wanted.get(number), value) for number, value in enumerate(inputs))
    return made(wanted.get(0), inputs)


def check_finite(given: Mapping[Key, Any]) -> None:
    """Raise unless all numbers are.

    Raises:
        DataError: it names the first row that holds NaN or infinity.
    """
    for key, value in given.items():
        if isinstance(value, Tensor) and value.is_floating_point() and len(value):
            if bool(value.sum().isfinite()):  # where a sum of finite numbers overflows, each is looked at
                continue
            bad = ~value.flatten(start_dim=1).isfinite().all(dim=1) if value.dim() > 1 else ~value.isfinite()
            if bool(bad.any()):
                which = "input row" if len(given) == 1 else f"input {key!r}, row"
                raise DataError(
                    f"{which} {int(bad.long().argmax())} has a NaN or infinite value (and {int(bad.sum()) - 1} more rows)"
                )


def in_batches(model: nn.Module, takes: Inputs, given: Mapping[Key, Any], batch_size: int) -> Any:
    """Return the model's answer, on the CPU, for at least one example, so many at a time.

    Raises:
        ShapeError: the model itself fails on sizes that aren't those that it was saved with.
        ModelError: it fails on these.
    """
    device, parts = device_of(model), []
    kinds = {key: entry.kind for key, entry in _by_key(takes).items()}
    for start in range(0, len(next(iter(given.values()))), batch_size):
        batch = {key: _moved(given[key][start : start + batch_size], device, kind) for key, kind in kinds.items()}
        named = {key: value for key, value in batch.items() if isinstance(key, str)}
        try:
            with torch.no_grad():
                made = model(*(value for key, value in batch.items() if not isinstance(key, str)), **named)
        except PrunusError:
            raise
        except Exception as error:
            raise_if_out_of_memory(error)
            raise _failed(takes, batch, error) from error
        parts.append(map_tensors(lambda value: value.cpu(), made))
    if any(entry.listed for entry in takes) and isinstance(parts[0], list):  # one for each example
        return [one for part in parts for one in part]
    return parts[0] if len(parts) == 1 else joined(parts)


def _moved(value: Any, device: torch.device, kind: torch.dtype) -> Any:
    return map_tensors(lambda tensor: tensor.to(device, kind), value)


def _failed(takes: Inputs, batch: Mapping[Key, Any], error: Exception) -> ModelError:
    for (key, value), entry in zip(batch.items(), takes, strict=True):
        if entry.listed:
            continue
        for dim, (size, usual) in enumerate(zip(value.shape[1:], entry.shape, strict=True), 1):
            if size != usual:
                return ShapeError(
                    f"input {key!r} has the size {size} in dimension {dim} (the model was saved with {usual}), got "
                    f"{tuple(value.shape)}, and the model fails on it: {one_line(error)[:200]}"
                )
    shapes = ", ".join(str(tuple(value.shape)) for _, value in tensors(list(batch.values())))
    return ModelError(f"the model fails on inputs of shape {shapes}: {one_line(error)[:200]}")


def _by_key(takes: Inputs) -> dict[Key, InputEntry]:
    return {number if entry.name is None else entry.name: entry for number, entry in enumerate(takes)}


def _shape(entry: InputEntry) -> str:
    return f"(n, {', '.join(map(str, entry.allowed[1:]))})" if entry.shape else "(n,)"
