"""What is a checkpoint called when whole layers leave: which names go, and which numbers move up?

Layers are told by name: the longest list ``prefix.0.``, ``prefix.1.``, ... (by bytes), or the prefix that is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from prunus.core.errors import RecipeError, near
from prunus.core.text import shown
from prunus.scale.shard_files import Stored

__all__ = ["drop_from_config", "layer_prefix", "parse_layers", "parse_pattern", "renamed"]

MAX_LAYERS = 100_000

_NUMBERED = re.compile(r"^(.*?\.?)(?<![0-9])([0-9]{1,5})\.")


def parse_layers(text: str) -> tuple[int, ...]:
    """Return the layer numbers that ``text`` lists.

    Raises:
        RecipeError: it isn't a list of numbers and ranges.

    >>> parse_layers("3,5-7")
    (3, 5, 6, 7)
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*", part)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise RecipeError(f"layers to drop are numbers and ranges like 3,5-7: got {shown(text)}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last - first >= MAX_LAYERS:
            raise RecipeError(f"layers to drop are fewer than {MAX_LAYERS}: got the range {part.strip()}")
        found += range(first, last + 1)
    return tuple(sorted(set(found)))


def parse_pattern(text: str) -> tuple[int, int]:
    """Return N and M of ``N:M``.

    Raises:
        RecipeError: it is written otherwise.

    >>> parse_pattern("2:4")
    (2, 4)
    """
    match = re.fullmatch(r"\s*([0-9]{1,9}):([0-9]{1,9})\s*", text)
    if match is None:
        raise RecipeError(f"a pattern is N:M, N kept of every M, like 2:4: got {shown(text)}")
    return int(match[1]), int(match[2])


def layer_prefix(tensors: Iterable[Stored], asked: str | None = None) -> tuple[str, int]:
    """Return what stands before the number of a layer, like ``model.layers.``, and how many layers there are.

    Raises:
        RecipeError: no tensor's name has a number in it, or not after the prefix that is asked for.
    """
    sizes: dict[str, int] = {}
    numbers: dict[str, set[int]] = {}
    for tensor in tensors:
        match = _NUMBERED.match(tensor.name)
        if match is not None:
            sizes[match[1]] = sizes.get(match[1], 0) + tensor.size_bytes
            numbers.setdefault(match[1], set()).add(int(match[2]))
    if asked is not None:
        prefix = asked.rstrip(".") + "."
        if prefix not in sizes:
            raise RecipeError(
                f"no layers are called {prefix}0. and so on; {near(prefix, sizes) if sizes else 'there are none'}"
            )
    elif not sizes:
        raise RecipeError(
            "no tensor's name has a layer's number in it, like model.layers.0.: there are no layers to drop"
        )
    else:
        prefix = max(sizes, key=lambda key: (sizes[key], key))
    return prefix, max(numbers[prefix]) + 1


def renamed(names: Iterable[str], prefix: str, n_layers: int, dropped: Collection[int]) -> dict[str, str]:
    """Return the new name of every tensor that stays; the layers are numbered without gaps again.

    Raises:
        RecipeError: a layer that isn't there, or none would stay.

    >>> renamed(["h.0.w", "h.1.w", "h.2.w", "out"], "h.", 3, [1])
    {'h.0.w': 'h.0.w', 'h.2.w': 'h.1.w', 'out': 'out'}
    """
    wrong = [number for number in dropped if number >= n_layers]
    if wrong:
        raise RecipeError(f"there are {n_layers} layers {prefix}0. to {prefix}{n_layers - 1}.: got {wrong[0]} to drop")
    if len(set(dropped)) >= n_layers:
        raise RecipeError(f"one layer must stay: got all {n_layers} of {prefix} to drop")
    stay = [number for number in range(n_layers) if number not in dropped]
    place = {number: new for new, number in enumerate(stay)}
    result = {}
    for name in names:
        match = _NUMBERED.match(name)
        if match is None or match[1] != prefix:
            result[name] = name
        elif int(match[2]) in place:
            result[name] = f"{prefix}{place[int(match[2])]}.{name[match.end() :]}"
    return result


def drop_from_config(config: Mapping[str, Any], n_layers: int, dropped: Collection[int]) -> dict[str, Any]:
    """Return a model's config without some layers: counts follow, and lists with one entry per layer lose theirs.

    >>> drop_from_config({"num_hidden_layers": 3, "layer_types": ["a", "b", "c"], "hidden_size": 8}, 3, [1])
    {'num_hidden_layers': 2, 'layer_types': ['a', 'c'], 'hidden_size': 8}
    """
    counts = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    result: dict[str, Any] = {}
    for key, value in config.items():
        if key in counts and value == n_layers:
            result[key] = n_layers - len(set(dropped))
        elif isinstance(value, list) and len(value) == n_layers and ("layer" in key or "block" in key):
            result[key] = [entry for number, entry in enumerate(value) if number not in dropped]
        else:
            result[key] = value
    return result
