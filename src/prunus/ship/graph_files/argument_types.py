"""Do the arguments that a file gives an operation have the types of its schema?

torch checks little of this: an integer passes as a dtype and is used as an index into a table, ``None`` passes as a tensor. What a
node stands for follows from the schema of what made it, so all of this is known before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import fx

from prunus.ship.graph_files.allowed_operations import takes_numbers

__all__ = ["LARGEST_INT", "Made", "arguments_of", "fit_arguments", "made_by"]

Made = Literal["tensor", "tensors", "number", "nothing"]
"""What a node stands for."""

LARGEST_INT = 2**31
"""Sizes, places and counts are at most so large: two of them can be multiplied in 64 bits."""

_OPEN_END = 2**63 - 1  # how a slice says "to the end"
_LONGEST_TEXT = 64
_SHOWN = 60


def made_by(operation: Callable[..., Any]) -> Made:
    """Return what a call of an operation of ATen makes."""
    returns = [str(value.type) for value in operation._schema.returns]  # type: ignore[attr-defined]
    if not returns:
        return "nothing"
    if returns == ["int"]:
        return "number"
    return "tensor" if returns == ["Tensor"] else "tensors"


def arguments_of(operation: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return every argument of a call by name, with the defaults of what wasn't given."""
    schema = operation._schema.arguments
    found = {argument.name: argument.default_value for argument in schema}
    found.update(zip([argument.name for argument in schema if not argument.kwarg_only], arguments, strict=False))
    return found | dict(named)


def fit_arguments(
    operation: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any], made: Mapping[fx.Node, Made]
) -> str:
    """Return why an operation can't be called so; empty where number, names and types of the arguments are those of its schema.

    Args:
        made: what each node stands for that the arguments may take.
    """
    if not isinstance(operation, torch._ops.OpOverload):
        return "" if len(arguments) == 2 and not named else f"it takes 2 arguments, got {len(arguments) + len(named)}"
    schema: Sequence[Any] = operation._schema.arguments
    places = [argument.name for argument in schema if not argument.kwarg_only]
    if len(arguments) > len(places):
        return f"it takes at most {len(places)} arguments by position, got {len(arguments)}"
    given = dict(zip(places, arguments, strict=False))
    known = {argument.name for argument in schema}
    if odd := sorted((set(named) - known) | (set(named) & set(given))):
        return f"it has no (further) argument {odd[0][:_SHOWN]!r}"
    given.update(named)
    numbers_as_tensors = takes_numbers(operation) and any(
        isinstance(value, fx.Node) and made.get(value) == "tensor" for value in given.values()
    )
    for argument in schema:
        if argument.name not in given:
            if not argument.has_default_value():
                return f"its argument {argument.name!r} is missing"
            continue
        kind, value = str(argument.real_type), given[argument.name]
        written = argument.alias_info is not None and argument.alias_info.is_write
        if kind == "Tensor" and numbers_as_tensors and not written and _is(value, "number", made):
            continue
        if not _fits(value, kind, argument.N is not None, made):
            return f"its argument {argument.name!r} must be of type {kind}, got {_shown(value, made)}"
        if argument.name == "pin_memory" and value:
            return "its argument 'pin_memory' can't be true"
    return ""


def _fits(value: Any, kind: str, one_for_all: bool, made: Mapping[fx.Node, Made]) -> bool:
    if kind.startswith("Optional["):
        return value is None or _fits(value, kind[9:-1], one_for_all, made)
    if kind.startswith("List["):
        if isinstance(value, (list, tuple)):
            return all(_fits(part, kind[5:-1], False, made) for part in value)
        return one_for_all and _is(value, kind[5:-1], made)
    return _is(value, kind, made)


def _is(value: Any, kind: str, made: Mapping[fx.Node, Made]) -> bool:
    """Tell whether a value is of a type that isn't made of others."""
    if isinstance(value, fx.Node):
        stands_for = made.get(value)
        return stands_for == "tensor" if kind == "Tensor" else stands_for == "number" and kind in _FROM_NUMBERS
    if kind in ("int", "SymInt"):
        return type(value) is int and (abs(value) <= LARGEST_INT or value == _OPEN_END)
    if kind == "str":
        return type(value) is str and len(value) <= _LONGEST_TEXT
    return type(value) in _TYPES.get(kind, ())


_FROM_NUMBERS = ("int", "SymInt", "number")
_TYPES: dict[str, tuple[type, ...]] = {
    "number": (int, float, bool),
    "float": (int, float),
    "bool": (bool,),
    "ScalarType": (torch.dtype,),
    "Layout": (torch.layout,),
    "MemoryFormat": (torch.memory_format,),
    "Device": (torch.device,),
}


def _shown(value: Any, made: Mapping[fx.Node, Made]) -> str:
    if isinstance(value, fx.Node):
        return f"node {value.name[:_SHOWN]!r}, which stands for {made.get(value)}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}: {', '.join(_shown(part, made) for part in value[:3])}"[: 2 * _SHOWN]
    return f"{type(value).__name__} {str(value)[:_SHOWN]!r}"
