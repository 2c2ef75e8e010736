"""Which operations may a graph that came from elsewhere name?

Those of ATen that take tensors and numbers and give tensors and numbers, and three of Python's own on what comes out of them.
Nothing here imports, calls or evaluates what a file says: a name is looked up, or refused.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from prunus.core.errors import BundleError
from prunus.graph.solve import RULES

__all__ = ["fit_arguments", "name_of", "operation"]

_NAME = re.compile(r"aten\.([A-Za-z_][A-Za-z0-9_]*)\.([A-Za-z_][A-Za-z0-9_]*)")
_PYTHON: dict[str, Callable[..., Any]] = {
    f"operator.{f.__name__}": f for f in (operator.getitem, operator.add, operator.mul)
}
# These give a tensor another size or another memory than the checks of an operation count on, or read a file.
_NEVER = frozenset({"from_file", "resize_", "resize_as_", "resize_as_sparse_", "set_", "set_data", "record_stream"})
# What a text may say: how to compute. No other operation takes one.
_TEXTS = frozenset(
    {"approximate", "equation", "indexing", "interpolation", "mode", "norm", "ord", "p", "pad_mode", "padding"}
    | {"padding_side", "reduce", "rounding_mode", "side"}
)
_INTERNAL = ("_", "mkldnn_", "miopen_", "mps_", "quantized_")
_NO_VALUES = ("Storage", "Stream", "__torch__", "Dict", "Any")


def operation(name: str) -> Callable[..., Any]:
    """Return the operation of that name.

    Raises:
        BundleError: it isn't one that a graph may name.

    >>> operation("aten.relu.default")
    <OpOverload(op='aten.relu', overload='default')>
    """
    if name in _PYTHON:
        return _PYTHON[name]
    found = _NAME.fullmatch(name)
    packet = getattr(torch.ops.aten, found[1], None) if found and not found[1].startswith("__") else None
    if found and isinstance(packet, torch._ops.OpOverloadPacket) and found[2] in packet.overloads():  # type: ignore[no-untyped-call]
        overload = getattr(packet, found[2])
        if _is_pure_computation(overload):
            return overload  # type: ignore[no-any-return]
    raise BundleError(
        f"{name[:80]!r} is no operation that a graph may name: expected a computation of ATen that torch {torch.__version__} "
        f"has, or one of {', '.join(_PYTHON)}"
    )


def name_of(target: Any) -> str:
    """Return the name by which :func:`operation` finds ``target``.

    Raises:
        BundleError: it doesn't.
    """
    for name, function in _PYTHON.items():
        if target is function:
            return name
    name = str(target)
    operation(name)
    return name


def fit_arguments(target: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any]) -> str:
    """Return why an operation can't be called so; empty when it can, as far as number and names of the arguments tell."""
    if not isinstance(target, torch._ops.OpOverload):
        return "" if len(arguments) == 2 and not named else f"it takes 2 arguments, got {len(arguments) + len(named)}"
    schema = target._schema.arguments
    places = [argument.name for argument in schema if not argument.kwarg_only]
    if len(arguments) > len(places):
        return f"it takes at most {len(places)} arguments by position, got {len(arguments)}"
    given = {*places[: len(arguments)], *named}
    if odd := sorted(
        (set(named) - {argument.name for argument in schema}) | (set(named) & set(places[: len(arguments)]))
    ):
        return f"it has no (further) argument {odd[0]!r}"
    missing = [argument.name for argument in schema if argument.name not in given and not argument.has_default_value()]
    return f"its argument {missing[0]!r} is missing" if missing else ""


def _is_pure_computation(overload: Any) -> bool:
    """Tell whether an overload belongs to the dispatcher (others are TorchScript's: they save, print, format) and is harmless.

    Operations with an underscore and backward passes count on their callers' checks; those that the engine knows come from
    traces of models.
    """
    schema = overload._schema
    name = schema.name.removeprefix("aten::")
    full = schema.name + (f".{schema.overload_name}" if schema.overload_name else "")
    if name in _NEVER or not torch._C._dispatch_has_kernel(full):
        return False
    if name not in RULES and (name.startswith(_INTERNAL) or "backward" in name):
        return False
    for argument in schema.arguments:
        kind = str(argument.type)
        if any(word in kind for word in _NO_VALUES) or ("str" in kind and argument.name not in _TEXTS):
            return False
        if argument.is_out:
            return False
    return True
