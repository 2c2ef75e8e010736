"""How is a model called with what it takes, and what are the numbers in what it answers?

Inputs are used as they are: a tuple is positional arguments, a mapping is keywords, anything else is the one argument. Inside,
tensors may be nested in tuples, lists, mappings and dataclasses; the first dimension of each counts examples, where it has one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunus.core.errors import DataError, ModelError

__all__ = [
    "answer",
    "answers",
    "arguments",
    "call",
    "described",
    "joined",
    "map_tensors",
    "n_examples",
    "select_rows",
    "tensors",
]


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional arguments and the keywords that ``inputs`` stands for.

    >>> arguments((1, 2)), arguments({"x": 1}), arguments(3)
    (((1, 2), {}), ((), {'x': 1}), ((3,), {}))
    """
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, tuple) and not hasattr(inputs, "_fields"):
        return inputs, {}
    return (inputs,), {}


def call(model: nn.Module | Callable[..., Any], inputs: Any) -> Any:
    """Return the model's answer to ``inputs``."""
    if isinstance(inputs, Tensor):
        return model(inputs)
    positional, keywords = arguments(inputs)
    return model(*positional, **keywords)


def map_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """Return the same structure with each tensor replaced; what isn't a tensor stays as it is."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        changed = {key: map_tensors(function, value) for key, value in tree.items()}
        return changed if type(tree) is dict else _rebuilt(tree, changed)
    if isinstance(tree, (tuple, list)):
        parts = [map_tensors(function, value) for value in tree]
        if isinstance(tree, tuple) and hasattr(tree, "_fields"):
            return type(tree)(*parts)
        return type(tree)(parts)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        names = [each.name for each in dataclasses.fields(tree) if each.init]
        return dataclasses.replace(tree, **{name: map_tensors(function, getattr(tree, name)) for name in names})
    return tree


def _rebuilt(tree: Mapping[str, Any], changed: dict[str, Any]) -> Any:
    """Return a mapping of the same type, where it can be made of a plain one (an output class of transformers, a batch of ids)."""
    try:
        return type(tree)(changed)  # type: ignore[call-arg]
    except TypeError:
        return changed


def tensors(tree: Any, where: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in a structure with its place, such as ``images``, ``[0]`` or ``boxes[1]``."""
    if isinstance(tree, Tensor):
        yield where, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from tensors(value, f"{where}.{key}" if where else str(key))
    elif isinstance(tree, (tuple, list)):
        for number, value in enumerate(tree):
            yield from tensors(value, f"{where}[{number}]")
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        yield from tensors({each.name: getattr(tree, each.name) for each in dataclasses.fields(tree)}, where)
    elif hasattr(tree, "to_tuple") or (hasattr(tree, "__dict__") and not isinstance(tree, (nn.Module, type))):
        yield from tensors(dict(vars(tree)), where)


def answers(outputs: Any) -> list[Tensor]:
    """Return the floating-point tensors of a model's answer, in order.

    What it holds beside them for its own next call isn't an answer: objects of another kind than containers (a cache), and
    ``past_key_values`` where they are plain tuples.
    """
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.is_floating_point() else []
    if not isinstance(outputs, (Mapping, tuple, list)) and hasattr(outputs, "__dict__"):
        outputs = dict(vars(outputs))
    if isinstance(outputs, Mapping):
        outputs = [value for key, value in outputs.items() if key != "past_key_values" and not _is_opaque(value)]
    return [found for _, found in tensors(outputs) if found.is_floating_point()]


def _is_opaque(value: Any) -> bool:
    """Tell whether a value is no tensor and no container of such."""
    plain = (Tensor, Mapping, tuple, list, int, float, str, type(None))
    return not isinstance(value, plain) and not dataclasses.is_dataclass(value)


def answer(outputs: Any) -> Tensor:
    """Return the one tensor that a model's answer is about: itself, ``logits``, or the first of its floating-point tensors.

    Raises:
        ModelError: there is none.
    """
    if isinstance(outputs, Tensor):
        return outputs
    named = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if isinstance(named, Tensor):
        return named
    found = answers(outputs)
    if not found:
        raise ModelError(f"expected numbers in the model's answer: got {described(outputs)}")
    return found[0]


def n_examples(tree: Any) -> int:
    """Return how many examples a structure holds: the first dimension that its tensors have in common, the length of its lists.

    Raises:
        DataError: there is no tensor with a dimension, or they disagree.
    """
    sizes = dict(_sizes(tree, ""))
    if not sizes:
        raise DataError(f"expected tensors whose first dimension counts examples: got {described(tree)}")
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{where or 'inputs'} {size}" for where, size in sizes.items())
        raise DataError(f"expected as many examples in every tensor of a batch: got {listed}")
    return next(iter(sizes.values()))


def _sizes(tree: Any, where: str) -> Iterator[tuple[str, int]]:
    if isinstance(tree, list):
        yield where, len(tree)
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _sizes(value, f"{where}.{key}" if where else str(key))
    elif isinstance(tree, tuple):
        for number, value in enumerate(tree):
            yield from _sizes(value, f"{where}[{number}]")
    else:
        yield from ((place, len(tensor)) for place, tensor in tensors(tree, where) if tensor.dim())


def select_rows(tree: Any, index: Tensor) -> Any:
    """Return the examples at ``index`` (positions, or one truth value each); lists of one item per example are picked from, too."""
    rows = index.nonzero().flatten() if index.dtype == torch.bool else index
    n = len(index) if index.dtype == torch.bool else None

    def picked(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value if value.dim() == 0 else value[rows.to(value.device)]
        if isinstance(value, list) and (n is None or len(value) == n):
            return [value[row] for row in rows.tolist()]
        if isinstance(value, Mapping):
            made = {key: picked(one) for key, one in value.items()}
            return made if type(value) is dict else _rebuilt(value, made)
        if isinstance(value, (tuple, list)):
            parts = [picked(one) for one in value]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [each.name for each in dataclasses.fields(value) if each.init]
            return dataclasses.replace(value, **{name: picked(getattr(value, name)) for name in names})
        return value

    return picked(tree)


def joined(parts: Sequence[Any]) -> Any:
    """Return several structures of one shape as one, with the examples of all of them in order.

    Raises:
        DataError: they aren't of one structure.
    """
    first = parts[0]
    if isinstance(first, Tensor) and all(isinstance(part, Tensor) for part in parts):
        return torch.cat(list(parts)) if first.dim() else first
    if any(type(part) is not type(first) for part in parts):
        kinds = ", ".join(dict.fromkeys(described(part) for part in parts))
        raise DataError(f"expected the same structure in every batch: got {kinds}")
    if isinstance(first, Mapping):
        if any(part.keys() != first.keys() for part in parts):
            kinds = " and ".join(dict.fromkeys(str(sorted(map(str, part))) for part in parts))
            raise DataError(f"expected the same keys in every batch: got {kinds}")
        made = {key: joined([part[key] for part in parts]) for key in first}
        return made if type(first) is dict else _rebuilt(first, made)
    if isinstance(first, list) and not any(isinstance(one, Tensor) for one in first):
        return [one for part in parts for one in part]
    if isinstance(first, (tuple, list)):
        if len({len(part) for part in parts}) > 1:
            if isinstance(first, list):  # one item for each example
                return [one for part in parts for one in part]
            raise DataError(f"expected as many parts in every batch: got {sorted({len(part) for part in parts})}")
        made_of = [joined(each) for each in zip(*parts, strict=True)]
        return type(first)(*made_of) if hasattr(first, "_fields") else type(first)(made_of)
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [each.name for each in dataclasses.fields(first) if each.init]
        return dataclasses.replace(first, **{name: joined([getattr(one, name) for one in parts]) for name in names})
    return first


def described(tree: Any) -> str:
    """Say in a few words what a structure is.

    >>> described({"ids": torch.zeros(2, 3, dtype=torch.int64), "name": "a"})
    'a dict (ids: int64 [2, 3], name: str)'
    """
    if isinstance(tree, Tensor):
        return f"{str(tree.dtype).removeprefix('torch.')} {list(tree.shape)}"
    if isinstance(tree, Mapping):
        parts = [f"{key}: {_short(value)}" for key, value in tree.items()]
    elif isinstance(tree, (tuple, list)):
        parts = [_short(value) for value in tree]
    elif tree is None or not hasattr(tree, "__dict__"):
        return "None" if tree is None else f"a {type(tree).__name__}"
    else:
        parts = [f"{key}: {_short(value)}" for key, value in vars(tree).items()]
    shown = ", ".join(parts[:6]) + (", ..." if len(parts) > 6 else "")
    return f"a {type(tree).__name__} ({shown})" if parts else f"an empty {type(tree).__name__}"


def _short(value: Any) -> str:
    return described(value) if isinstance(value, Tensor) else type(value).__name__
