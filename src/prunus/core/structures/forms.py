"""What holds the tensors of a model's answer: which lists, mappings and fields, in which order?

A form is the structure without its tensors. A traced computation gives a flat list of them, and its form makes of that what the
class answers with: lists, tuples and plain mappings as they were, named tuples of those names, and an :class:`Answer` in place of a
dataclass (an output class of transformers). What is no tensor and holds none is None.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import namedtuple
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["FLAT", "Answer", "Form", "Kind", "form_of", "tensors_of"]

Kind = Literal["tensor", "nothing", "list", "tuple", "named", "mapping", "fields"]


class Answer(dict[str, Any]):
    """What a traced computation gives in place of a dataclass: its fields by name, by key and by place.

    Fields that are None are attributes only, as in the output classes of transformers. A field that is called as a method of
    mappings is (``values``) is read by its key.

    >>> found = Answer({"loss": None, "logits": 3})
    >>> found.logits, found["logits"], found[0], found.loss, list(found)
    (3, 3, 3, None, ['logits'])
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__({name: value for name, value in fields.items() if value is not None})
        vars(self).update({name: value for name, value in fields.items() if not hasattr(dict, name)})

    def __getitem__(self, key: Any) -> Any:
        """Return a field by its name, or by its place among those that aren't None."""
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __setitem__(self, name: str, value: Any) -> None:
        """Set a field."""
        super().__setitem__(name, value)
        if not hasattr(dict, name):
            vars(self)[name] = value

    def __getattr__(self, name: str) -> Any:
        """Say which fields there are."""
        raise AttributeError(f"this answer has the fields {', '.join({**self, **vars(self)})}: got {name!r}")

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that aren't None."""
        return tuple(self.values())


pytree.register_pytree_node(
    Answer,
    lambda answer: (list(answer.values()), list(answer)),
    lambda values, names: Answer(dict(zip(names, values, strict=True))),
    serialized_type_name="prunus.Answer",
)


@dataclasses.dataclass(frozen=True)
class Form:
    """A structure without its tensors. ``keys`` go with ``named``, ``mapping`` and ``fields``: one for each of ``parts``."""

    kind: Kind
    parts: tuple[Form, ...] = ()
    keys: tuple[str | int, ...] = ()

    @property
    def n_tensors(self) -> int:
        """How many tensors it holds."""
        return 1 if self.kind == "tensor" else sum(part.n_tensors for part in self.parts)

    def filled(self, values: Sequence[Any]) -> Any:
        """Return the structure with ``values`` in place of its tensors, in order."""
        return self._filled(iter(values))

    def _filled(self, values: Iterator[Any]) -> Any:
        if self.kind in ("tensor", "nothing"):
            return next(values) if self.kind == "tensor" else None
        parts = [part._filled(values) for part in self.parts]
        if self.kind in ("list", "tuple"):
            return parts if self.kind == "list" else tuple(parts)
        if self.kind == "named":
            return _named_tuple(tuple(map(str, self.keys)))(*parts)
        held = dict(zip(self.keys, parts, strict=True))
        return held if self.kind == "mapping" else Answer({str(name): value for name, value in held.items()})


FLAT = Form("tensor")
"""One tensor and nothing around it."""


def form_of(value: Any) -> Form:
    """Return the form of a structure."""
    if isinstance(value, Tensor):
        return FLAT
    kind, parts = _opened(value)
    return Form(
        kind, tuple(form_of(part) for part in parts.values()), () if kind in ("list", "tuple") else tuple(parts)
    )


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors of a structure, in the order of its form.

    >>> import torch
    >>> [int(one) for one in tensors_of({"b": torch.tensor(1), "a": [torch.tensor(2), None, "text"]})]
    [1, 2]
    """
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in _opened(value)[1].values() for tensor in tensors_of(part)]


def _opened(value: Any) -> tuple[Kind, dict[Any, Any]]:
    """Return what kind of container a value is, and its parts by key or place."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return "fields", {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, Answer):
        return "fields", {**vars(value), **value}
    if isinstance(value, Mapping):
        keys = [key if isinstance(key, (str, int)) else str(key) for key in value]
        return "mapping", dict(zip(keys, value.values(), strict=True))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return "named", dict(zip(value._fields, value, strict=True))
    if isinstance(value, (list, tuple)):
        return "list" if isinstance(value, list) else "tuple", dict(enumerate(value))
    if hasattr(value, "to_tuple"):
        return "tuple", dict(enumerate(value.to_tuple()))
    known = pytree.SUPPORTED_NODES.get(type(value))  # a library's own container (a cache)
    return ("list", dict(enumerate(known.flatten_fn(value)[0]))) if known is not None else ("nothing", {})


@functools.cache
def _named_tuple(names: tuple[str, ...]) -> type[Any]:
    return namedtuple("Answer", names)
