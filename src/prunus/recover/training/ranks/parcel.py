"""How does a training, with its model and all that belongs to it, go from the leading process to the others?

As a pickle, which can run code: so is all else that processes of one group say to each other in torch, and whoever can speak to
them runs code there anyway. Nothing is ever read from a file so. Tensors travel apart, one by one, and what every process has of
its own (the data) goes by its name.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from prunus.core.code.imports import one_line
from prunus.core.errors import ModelError, raise_if_out_of_memory

__all__ = ["Parcel", "pack", "receive", "send", "unpack"]

_PLAIN = (Tensor, nn.Parameter, nn.Buffer)


@dataclass(frozen=True)
class _Form:
    """What a tensor is but for its numbers."""

    kind: type
    shape: tuple[int, ...]
    dtype: torch.dtype
    requires_grad: bool
    device: str


@dataclass(frozen=True)
class Parcel:
    """A pickle without its tensors, and these, on the CPU."""

    content: bytes
    forms: tuple[_Form, ...]
    tensors: Sequence[Tensor]


class _Packer(pickle.Pickler):
    """Put tensors aside and name what is known."""

    def __init__(self, file: io.BytesIO, known: Mapping[str, Any]) -> None:
        super().__init__(file, protocol=5)
        self._names = {id(value): name for name, value in known.items() if value is not None}
        self._places: dict[int, int] = {}
        self.found: list[Tensor] = []

    def persistent_id(self, value: Any) -> Any:
        if id(value) in self._names:
            return self._names[id(value)]
        if type(value) not in _PLAIN or value.is_meta or value.layout != torch.strided:
            return None
        # One place per object: what two modules share stays shared.
        if id(value) not in self._places:
            self._places[id(value)] = len(self.found)
            self.found.append(value)
        return self._places[id(value)]


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: Sequence[Tensor], known: Mapping[str, Any]) -> None:
        super().__init__(file)
        self._tensors, self._known = tensors, known

    def persistent_load(self, name: Any) -> Any:
        return self._tensors[name] if isinstance(name, int) else self._known[name]


def pack(thing: Any, known: Mapping[str, Any]) -> Parcel:
    """Return ``thing`` ready to be sent; what is in ``known`` goes by its name.

    Raises:
        ModelError: a part of it, such as a function inside a function, can't be sent.
    """
    file = io.BytesIO()
    packer = _Packer(file, known)
    try:
        packer.dump(thing)
    except (pickle.PicklingError, TypeError, AttributeError) as failure:
        raise_if_out_of_memory(failure)
        raise ModelError(
            f"the model or the loss can't go to the other ranks ({one_line(failure)}): define its classes and functions at the top "
            "of a module"
        ) from failure
    forms = tuple(
        _Form(type(value), tuple(value.shape), value.dtype, value.requires_grad, value.device.type)
        for value in packer.found
    )
    return Parcel(file.getvalue(), forms, [value.detach().cpu().contiguous() for value in packer.found])


def unpack(parcel: Parcel, known: Mapping[str, Any]) -> Any:
    """Return a copy of what was packed, on this process's own device."""
    made: list[Tensor] = []
    for form, value in zip(parcel.forms, parcel.tensors, strict=True):
        own = value.clone() if form.device == "cpu" else value.to(form.device)
        if form.kind is Tensor:
            made.append(own.requires_grad_(form.requires_grad))
        else:
            made.append(
                form.kind(own, requires_grad=form.requires_grad) if form.kind is nn.Parameter else nn.Buffer(own)
            )
    return _Unpacker(io.BytesIO(parcel.content), made, known).load()


def send(parcel: Parcel) -> None:
    """Send a parcel from rank 0 to all others."""
    dist.broadcast_object_list([parcel.content, parcel.forms], src=0, device=torch.device("cpu"))
    for value in parcel.tensors:
        if value.numel():
            dist.broadcast(_bytes(value), src=0)


def receive() -> Parcel:
    """Return the parcel that rank 0 sends."""
    said: list[Any] = [None, None]
    dist.broadcast_object_list(said, src=0, device=torch.device("cpu"))
    content, forms = said
    tensors = [torch.empty(form.shape, dtype=form.dtype) for form in forms]
    for value in tensors:
        if value.numel():
            dist.broadcast(_bytes(value), src=0)
    return Parcel(content, forms, tensors)


def _bytes(value: Tensor) -> Tensor:
    """Return the same memory as bytes: not every backend knows every number."""
    return value.flatten().view(torch.uint8)
