"""Which settings has a config, and of which shapes is the model that it builds?

A setting is told by the configs inside the config that lead to it, its name, and its place where it is an entry of a list. On the
meta device a model costs nothing, so the effect of a setting is found out by building.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunus.core.errors import raise_if_out_of_memory
from prunus.graph.tracing.observe import Attribute, is_config

__all__ = [
    "Path",
    "Shapes",
    "at",
    "built_shapes",
    "changed",
    "is_allowed",
    "lists",
    "number",
    "settings",
    "shapes_of",
    "take_over",
]

Shapes = Mapping[str, tuple[int, ...]]
Path = tuple[tuple[str, ...], str, int | None]
"""The config inside the config, the setting's name, and the place in it where it is a list."""


def is_allowed(config: Any) -> bool:
    """Tell whether a config passes its own check, without which it can't be saved: a width that heads don't divide, say."""
    check = getattr(config, "validate", None)
    try:
        if callable(check):
            check()
    except Exception as error:
        raise_if_out_of_memory(error)
        return False
    return True


class _Unfilled(TorchFunctionMode):
    """Leaves out what fills parameters: on the meta device there is nothing to fill, and it takes most of a constructor's time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        value = args[0] if args else given.get("tensor")
        fills = getattr(func, "__name__", "") in _FILLS and isinstance(value, Tensor) and value.is_meta
        return value if fills else func(*args, **given)


_WAYS = ("normal_", "uniform_")
_FILLS = frozenset((*_WAYS, "trunc_normal_", *(f"{name}_{way}" for name in ("kaiming", "xavier") for way in _WAYS)))


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parameters of a model."""
    return {name: tuple(value.shape) for name, value in model.named_parameters()}


def built_shapes(kind: type, config: Any) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of the parameters of what a config builds; None where it builds nothing."""
    try:
        with torch.device("meta"), _Unfilled():
            return shapes_of(kind(copy.deepcopy(config)))
    except Exception as error:  # whatever a constructor raises at a config that it doesn't like
        raise_if_out_of_memory(error)
        return None


def settings(config: Any, owner: tuple[str, ...] = ()) -> Iterator[tuple[Path, int | None]]:
    """Yield the whole numbers above one, and what isn't set: a size may be computed from others then."""
    for name, value in vars(config).items():
        if name.startswith("__"):
            continue
        if value is None or (type(value) is int and value > 1):
            yield (owner, name, None), value
        elif type(value) in (list, tuple):
            for place, part in enumerate(value):
                if type(part) is int and part > 1:
                    yield (owner, name, place), part
        elif is_config(value):
            yield from settings(value, (*owner, name))


def lists(config: Any, owner: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Yield the lists, by the configs that lead to them and their names."""
    for name, value in vars(config).items():
        if type(value) in (list, tuple) and not name.startswith("__"):
            yield owner, name, value
        elif is_config(value):
            yield from lists(value, (*owner, name))


def number(config: Any, path: Path) -> int | None:
    """Return a setting that is a whole number or isn't set; 0 for anything else."""
    owner, name, place = path
    held = vars(at(config, owner)).get(name)
    if place is not None:
        held = held[place] if isinstance(held, (list, tuple)) and place < len(held) else 0
    return held if held is None or type(held) is int else 0


def at(config: Any, owner: tuple[str, ...]) -> Any:
    """Return the config inside the config."""
    for name in owner:
        config = vars(config)[name]
    return config


def changed(config: Any, path: Path, value: Any) -> Any:
    """Return a copy with one setting changed."""
    trial = copy.deepcopy(config)
    owner, name, place = path
    Attribute(at(trial, owner), name, place).set(value)
    return trial


def take_over(config: Any, found: Any) -> None:
    """Give ``config`` the plain settings of ``found``; modules that share it see them."""
    for name, value in vars(found).items():
        if is_config(value):
            take_over(vars(config)[name], value)
        elif type(value) in (int, float, list, tuple):
            vars(config)[name] = value
