"""Which part of a batch does the model take, and which are the targets?

A model's own signature tells: how many positional arguments, and which keywords. It is settled on the first batch, and every other
has to be of its structure.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from prunus.core.calls import described, tensors
from prunus.core.errors import DataError
from prunus.core.structures.signature import Signature

__all__ = ["Apart", "Takes", "is_text", "layout"]

LABELS = ("label", "labels", "target", "targets", "y")


@dataclass(frozen=True)
class Takes:
    """How a model is called: with at least ``required`` and at most ``most`` positional arguments, and by which names."""

    required: int = 1
    most: int = 1
    names: tuple[str, ...] = ()
    any_name: bool = False

    @classmethod
    def of(cls, model: nn.Module | None) -> Takes:
        """Return what ``forward`` says; one argument where it says nothing."""
        if model is None:
            return cls()
        own = getattr(model, "signature", None)
        if isinstance(own, Signature):  # a traced computation's forward takes anything
            return cls(max(len(own.forms), 1), max(len(own.places), 1), tuple(dict.fromkeys((*own.places, *own.forms))))
        try:
            parameters = list(inspect.signature(model.forward).parameters.values())
        except (TypeError, ValueError):
            return cls()
        places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        required = sum(p.default is p.empty for p in places)
        several = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        named = tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        keywords = any(p.kind is p.VAR_KEYWORD for p in parameters)
        return cls(max(required, 1), max(len(places), 1) if not several else 64, named, keywords)


@dataclass(frozen=True)
class Apart:
    """What to take of each batch. ``kind`` is how it comes: ``alone``, ``places`` (the first ``n`` are inputs) or ``keys``.

    ``inputs`` of ``keys`` that hold one are the one argument (``single``). Without ``labelled`` targets are left out.
    """

    kind: str
    n: int = 1
    inputs: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    single: bool = False
    labelled: bool = True

    def __call__(self, batch: Any) -> tuple[Any, Any]:
        """Return the inputs and the targets, or None."""
        if self.kind == "alone":
            return batch, None
        if self.kind == "keys":
            inputs = batch[self.inputs[0]] if self.single else {key: batch[key] for key in self.inputs}
            rest: list[Any] = [batch[key] for key in self.targets] if self.labelled else []
            return inputs, rest[0] if len(rest) == 1 else dict(zip(self.targets, rest, strict=True)) if rest else None
        inputs = tuple(batch[: self.n]) if self.n > 1 else batch[0]
        rest = list(batch[self.n :]) if self.labelled else []
        if self.kind == "pair" and not isinstance(inputs, Mapping):
            inputs = tuple(inputs)
        elif isinstance(inputs, tuple) and self.n == 1:  # one item for each example, as detectors take images
            inputs, rest = list(inputs), [list(one) if isinstance(one, tuple) else one for one in rest]
        return inputs, rest[0] if len(rest) == 1 else tuple(rest) if rest else None

    @classmethod
    def of(cls, batch: Any, takes: Takes, name: str, *, labelled: bool = True) -> Apart:
        """Return how the model's inputs lie in a first batch.

        Raises:
            DataError: they don't; it says what came, and what the model takes.
        """
        if isinstance(batch, Mapping):
            return _of_keys(batch, takes, name, labelled)
        if isinstance(batch, (tuple, list)) and batch:
            if len(batch) == 1:
                return cls("places", 1, labelled=labelled)
            if len(batch) == 2 and _several(batch[0], takes):
                return cls("pair", 1, labelled=labelled)
            if len(batch) == takes.required > 1:
                return cls("places", len(batch), labelled=False)
            if len(batch) - 1 < takes.required:
                raise DataError(
                    f"{name}: expected the {takes.required} arguments of the model, alone or with targets after them: got "
                    f"{described(batch)}"
                )
            return cls("places", min(len(batch) - 1, takes.most), labelled=labelled)
        if isinstance(batch, Tensor) or any(True for _ in tensors(batch)):
            return cls("alone")
        raise DataError(f"{name}: expected batches of tensors: got {described(batch)}; convert them in the data set")


def _several(inputs: Any, takes: Takes) -> bool:
    """Tell whether one part of a pair holds all arguments of the model: a mapping of keywords, or a tuple of as many tensors."""
    if isinstance(inputs, Mapping):
        return takes.any_name or any(key in takes.names for key in inputs)
    if not isinstance(inputs, (tuple, list)):
        return False
    return takes.required > 1 and takes.required <= len(inputs) <= takes.most


def _of_keys(batch: Mapping[str, Any], takes: Takes, name: str, labelled: bool) -> Apart:
    useful = [key for key, value in batch.items() if not is_text(value)]
    labels = tuple(key for key in useful if key in LABELS)
    others = [key for key in useful if key not in labels]
    named = [key for key in others if key in takes.names]
    if named:
        rest = tuple(key for key in others if key not in named)
        return Apart("keys", inputs=tuple(named), targets=labels or rest, labelled=labelled)
    if takes.any_name and others:
        return Apart("keys", inputs=tuple(others), targets=labels, labelled=labelled)
    if len(others) == 1 and takes.required == 1:
        return Apart("keys", inputs=tuple(others), targets=labels, single=True, labelled=labelled)
    wanted = ", ".join(takes.names[:6]) or f"{takes.required} arguments"
    raise DataError(f"{name}: expected the model's arguments ({wanted}) among the keys: got {described(batch)}")


def is_text(value: Any) -> bool:
    """Tell whether a column says something to people only: names, texts."""
    if isinstance(value, str):
        return True
    return isinstance(value, (list, tuple)) and bool(value) and not any(True for _ in tensors(value))


def layout(tree: Any, *, inside: bool = False) -> Any:
    """Return what is the same in each batch: containers, keys, types of numbers and how many dimensions; sizes may differ.

    A tuple inside of another may have an item for each example, as detectors' images and boxes are collated; a list inside of
    others may hold anything, such as what is found in an example.
    """
    if isinstance(tree, Tensor):
        return str(tree.dtype), tree.dim()
    if isinstance(tree, Mapping):
        return {str(key): layout(value, inside=True) for key, value in tree.items()}
    if isinstance(tree, tuple) and not inside:
        return tuple(layout(value, inside=True) for value in tree)
    if isinstance(tree, tuple) or (isinstance(tree, list) and not inside):
        return type(tree).__name__, frozenset(str(layout(value, inside=True)) for value in tree)
    return type(tree).__name__
