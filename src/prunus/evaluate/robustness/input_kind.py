"""Of what kind is what a model takes, which of its tensors is it about, and what range has it?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunus.core.batch import Batched
from prunus.core.calls import tensors
from prunus.evaluate.robustness.corruptions import InputFacts, Kind

__all__ = ["Place", "facts_of", "kind_of", "placed", "replaced", "tensor_at"]

_NAMES = ("input_ids", "pixel_values", "input_values", "input_features")
_SIGNAL = 64
"""A row of so many numbers without names is a signal, of fewer it is a row of a table."""
_LOOKED_AT = 2000


@dataclass(frozen=True)
class Place:
    """The tensor that inputs are about, by its place in them, and its kind."""

    where: str
    kind: Kind


def placed(inputs: Any, *, named: bool) -> Place | None:
    """Return what inputs are about; None where no kind fits.

    Args:
        named: the features of a row have names: it is a table's.
    """
    found = dict(tensors(inputs))
    order = [name for name in _NAMES if name in found]
    order += [name for name, value in found.items() if value.is_floating_point() and name not in order]
    order += [name for name, value in found.items() if "mask" not in name and name not in order]
    for name in order:
        kind = kind_of(found[name], named=named)
        if kind is not None:
            return Place(name, kind)
    return None


def kind_of(value: Tensor, *, named: bool) -> Kind | None:
    """Return the kind of a batch of inputs.

    >>> kind_of(torch.zeros(2, 3, 8, 8), named=False), kind_of(torch.zeros(2, 5), named=False)
    ('image', 'table')
    """
    if not value.is_floating_point():
        return "tokens" if value.ndim == 2 and value.dtype != torch.bool else None
    if value.ndim == 4:
        return "image"
    if value.ndim == 3:
        return "sequence"
    if value.ndim == 2:
        return "table" if named or value.shape[1] < _SIGNAL else "sequence"
    return None


def tensor_at(inputs: Any, where: str) -> Tensor:
    """Return the tensor at a place."""
    return dict(tensors(inputs))[where]


def replaced(inputs: Any, where: str, value: Tensor) -> Any:
    """Return the same inputs with another tensor at a place."""
    if isinstance(inputs, Tensor):
        return value
    if isinstance(inputs, Mapping):
        return {
            key: replaced(part, where[len(str(key)) :].removeprefix("."), value)
            if where == str(key) or where.startswith((f"{key}.", f"{key}["))
            else part
            for key, part in inputs.items()
        }
    head, _, rest = where.removeprefix("[").partition("]")
    parts = list(inputs)
    parts[int(head)] = replaced(parts[int(head)], rest.removeprefix("."), value)
    return tuple(parts) if isinstance(inputs, tuple) else parts


def facts_of(examples: Batched, place: Place, undo: Any) -> InputFacts:
    """Return the range of inputs, from up to so many of the first examples.

    Args:
        undo: gives inputs back as they were before they were scaled.
    """
    parts: list[Tensor] = []
    for batch in examples.batches(256):
        parts.append(undo(tensor_at(batch.inputs, place.where)).detach().cpu())
        if sum(map(len, parts)) >= _LOOKED_AT:
            break
    if place.kind == "tokens":
        width = max(part.shape[1] for part in parts)
        flat = torch.cat([part.flatten() for part in parts])
        last = torch.cat([part[:, -1] for part in parts if part.shape[1] == width])
        padding = int(last.mode().values) if bool((last == last.mode().values).float().mean() > 0.2) else 0
        counts = torch.bincount(flat[flat != padding].long().clamp(min=0)).double()
        none, yes = torch.zeros(()), torch.ones((), dtype=torch.bool)
        return InputFacts(none, none, none, none, yes, padding, counts if float(counts.sum()) > 0 else torch.ones(1))
    values = (
        torch.cat(parts).double()
        if place.kind == "table"
        else torch.cat([part.flatten() for part in parts]).double()[:, None]
    )
    low, high = values.amin(dim=0), values.amax(dim=0)
    graded = ~((values == low) | (values == high)).all(dim=0)
    mean, deviation = values.mean(dim=0), values.std(dim=0, correction=0)
    if place.kind != "table":
        low, high, mean, deviation, graded = low[0], high[0], mean[0], deviation[0], graded[0]
    return InputFacts(low.float(), high.float(), mean.float(), deviation.float(), graded)
