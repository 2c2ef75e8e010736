"""Which settings of a config may be scaled, alone or together, to build smaller parameters?

Found by trying: a model costs nothing on the meta device.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from prunus.apply.classes.config_settings import Shapes, built_shapes, changed, settings
from prunus.graph import Setting
from prunus.graph.tracing.observe import is_config

__all__ = ["explicit", "moves", "settings_that_count", "steps_of"]

_LARGEST_RATIO = 100.0
_NO_SIZES = ("_id", "_ids", "_index", "version")
"""How names of numbers end that can't be sizes: tokens' numbers, mostly."""


def explicit(kind: type, config: Any, shapes: Shapes) -> Any:
    """Return a copy of ``config`` in which sizes that it leaves to other settings are said, where that builds the same."""
    sizes = sorted({size for shape in shapes.values() for size in shape if size > 1})
    for path in [path for path, value in settings(config) if value is None and _may_be_size(path[1])]:
        if built_shapes(kind, changed(config, path, 1)) == shapes:
            continue  # no shape depends on it
        config = next(
            (said for size in sizes if built_shapes(kind, said := changed(config, path, size)) == shapes), config
        )
    return config


def settings_that_count(
    kind: type, config: Any, shapes: Shapes, heads: Collection[int]
) -> tuple[list[Setting], list[Setting]]:
    """Return the numbers that parameters' shapes depend on while the parameters stay the same ones, and those that forward alone
    may read: numbers of heads that no shape depends on.
    """
    found, silent = [], []
    for setting in _numbers(config):
        owner, name, place, value = setting
        less = value // 2 if type(value) is int else value / 2
        built = built_shapes(kind, changed(config, (owner, name, place), less))
        # What builds nothing alone may build something together with others.
        if built is None or (built != shapes and built.keys() == shapes.keys()):
            found.append(setting)
        elif built == shapes and value in heads:
            silent.append(setting)
    return found, silent


def moves(found: Sequence[Setting], silent: Sequence[Setting]) -> Iterator[tuple[Setting, ...]]:
    """Yield sets of settings to scale together, small ones first; the entries of a list also as one."""
    every = [*found, *silent]
    of_list: dict[tuple[tuple[str, ...], str], list[Setting]] = {}
    for setting in every:
        of_list.setdefault(setting[:2], []).append(setting)
    whole = [tuple(entries) for entries in of_list.values() if len(entries) > 1]
    yield from ((setting,) for setting in found)
    yield from (entries for entries in whole if entries[0] in found)
    alone = [*((setting,) for setting in every if setting[2] is None), *whole]
    for n in (2, 3):
        for parts in itertools.combinations(alone, n):
            if any(part[0] in found for part in parts):
                yield tuple(itertools.chain(*parts))
        if n == 2:
            places = [setting for setting in every if setting[2] is not None]
            yield from (
                pair for pair in itertools.combinations(places, 2) if pair[0][:2] != pair[1][:2] and pair[0] in found
            )


def steps_of(move: Sequence[Setting]) -> int:
    """Return the greatest number of steps in which all these settings fall together; 0: any number."""
    return math.gcd(*(int(value) if type(value) is int else 0 for *_, value in move))


def _numbers(config: Any) -> Iterator[Setting]:
    """Yield the whole numbers above one, and ratios of widths."""
    found = [(*path, value) for path, value in settings(config) if value is not None]
    yield from (setting for setting in (*found, *_ratios(config, ())) if _may_be_size(setting[1]))


def _ratios(config: Any, owner: tuple[str, ...]) -> Iterator[Setting]:
    for name, value in vars(config).items():
        if type(value) is float and 1 < value < _LARGEST_RATIO and not name.startswith("__"):
            yield owner, name, None, value
        elif is_config(value):
            yield from _ratios(value, (*owner, name))


def _may_be_size(name: str) -> bool:
    return not name.endswith(_NO_SIZES)
