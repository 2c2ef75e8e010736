"""Which settings build a model of the pruned sizes?

A class that is built from a config alone can be built anew from a changed one, on the meta device at no cost. So each setting is
known by its effect: change it, build, and see whether the shapes come closer to those of the pruned model.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunus.apply.classes.config_settings import (
    Path,
    Shapes,
    at,
    built_shapes,
    changed,
    is_allowed,
    lists,
    number,
    settings,
    shapes_of,
    take_over,
)
from prunus.core.errors import raise_if_out_of_memory
from prunus.core.runtime import seeded
from prunus.graph.tracing.observe import is_config

__all__ = [
    "NoDraws",
    "built_again",
    "built_from_config",
    "fit_config",
    "follow_lists",
    "lists_of_entries",
    "lists_of_numbers",
]

_DRAWS = ("uniform_", "normal_", "erfinv_", "orthogonal_")
"""How torch's functions end that fill a tensor with random numbers, those of ``torch.nn.init`` among them."""


def fit_config(dense: nn.Module, smaller: nn.Module) -> bool:
    """Let ``smaller.config`` say what builds a model of its shapes, in place; return whether there is such a config.

    Where there is none (its layers differ, say, or it doesn't allow the sizes) the config stays as it is.
    """
    if not built_from_config(smaller):
        return False
    if smaller.state_dict().keys() - dense.state_dict().keys():
        return False  # it keeps a part of a constant (rotary frequencies) that the constructor makes anew
    config = vars(smaller)["config"]
    old, wanted = shapes_of(dense), shapes_of(smaller)
    paths = list(_effective(type(smaller), vars(dense)["config"], old))
    for start in (config, vars(dense)["config"]):
        best: Any = copy.deepcopy(start)
        distance = _distance(type(smaller), best, wanted)
        while (
            distance
            and (found := _step(type(smaller), best, distance, _ratios(old, wanted), paths, wanted)) is not None
        ):
            best, distance = found
        if not distance and (is_allowed(best) or not is_allowed(vars(dense)["config"])):
            take_over(config, best)
            return True
    return False


def built_from_config(model: nn.Module) -> bool:
    """Tell whether a model's class builds it from its config alone, as those of transformers do."""
    return is_config(vars(model).get("config")) and hasattr(type(model), "from_pretrained")


def built_again(model: nn.Module, config: Any = None) -> nn.Module | None:
    """Return what a config builds with the weights of ``model``, as ``from_pretrained`` would; None where they don't fit.

    A constructor makes constants anew, so buffers must come out as they are.

    Args:
        config: default: the model's own.
    """
    device = next(model.parameters()).device
    try:
        with seeded(0, "built again"), NoDraws(), torch.device("meta" if device.type == "meta" else "cpu"):
            again: nn.Module = type(model)(copy.deepcopy(vars(model)["config"] if config is None else config)).to(
                device
            )
        for name, value in again.named_parameters():
            value.data = value.data.to(model.get_parameter(name).dtype)
        again.load_state_dict(model.state_dict(), strict=False)
    except (
        Exception
    ) as error:  # a size that doesn't fit, or whatever a constructor raises at a config that it doesn't like
        raise_if_out_of_memory(error)
        return None
    here, there = dict(model.named_buffers()), dict(again.named_buffers())
    if any(name not in there or not _same(value, there[name]) for name, value in here.items()):
        return None
    return again


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and (one.is_meta or torch.equal(one, other))


class NoDraws(TorchFunctionMode):
    """Leaves parameters as they lie in memory where a constructor would draw them: their weights are loaded anyway."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        drawn = args[0] if args else kwargs.get("tensor")
        if isinstance(drawn, nn.Parameter) and getattr(func, "__name__", "").endswith(_DRAWS):
            return drawn
        return func(*args, **kwargs)


def lists_of_entries(model: nn.Module, path: str) -> list[tuple[Any, str]]:
    """Return the lists that have an entry for each module of the container at ``path``, each as its config and its name.

    Those configs are looked at that the modules around the container hold.
    """
    size = len(model.get_submodule(path))  # type: ignore[arg-type]
    return [(config, name) for config, name, held in _lists_around(model, path) if len(held) == size > 1]


def lists_of_numbers(model: nn.Module, path: str) -> list[tuple[Any, str]]:
    """Return the lists that may number some of the modules of the container at ``path``, each as its config and its name.

    They hold rising numbers, all below how many modules there are. So may a list of something else.
    """
    size = len(model.get_submodule(path))  # type: ignore[arg-type]
    return [
        (config, name)
        for config, name, held in _lists_around(model, path)
        if 0 < len(held) < size
        and all(type(number) is int and 0 <= number < size for number in held)
        and list(held) == sorted(set(held))
    ]


def _lists_around(model: nn.Module, path: str) -> Iterator[tuple[Any, str, Any]]:
    """Yield the lists of the configs that the modules around the container at ``path`` hold."""
    parents = [".".join(path.split(".")[:depth]) for depth in range(path.count(".") + 1)]
    around = [held for parent in dict.fromkeys(["", *parents]) for held in vars(model.get_submodule(parent)).values()]
    for config in {id(held): held for held in around if is_config(held)}.values():
        for name, held in vars(config).items():
            if type(held) in (list, tuple) and not name.startswith("__"):
                yield config, name, held


def follow_lists(
    model: nn.Module, path: str, kept: Sequence[int], *, entries: bool, numbers: Collection[str] = ()
) -> None:
    """Let lists of a config follow when the modules ``kept`` stay of the container at ``path``.

    Args:
        entries: those with an entry for each module keep the entries of those that stay; one that numbers its entries numbers
            what is left.
        numbers: the names of those that number some of the modules: they number those of them that stay.
    """
    following = lists_of_entries(model, path) if entries else []
    for config, name in [pair for pair in lists_of_numbers(model, path) if pair[1] in numbers]:
        held = vars(config)[name]
        setattr(config, name, type(held)(kept.index(number) for number in held if number in kept))
    for config, name in following:
        held = vars(config)[name]
        numbered = list(held) == list(range(len(held)))
        setattr(config, name, type(held)(range(len(kept)) if numbered else (held[place] for place in kept)))


def _step(
    kind: type, config: Any, distance: float, ratios: list[tuple[int, int]], paths: Sequence[Path], wanted: Shapes
) -> tuple[Any, float] | None:
    """Return the first changed config that builds something nearer."""
    for trial in _changes(config, ratios, paths, {size for shape in wanted.values() for size in shape}):
        nearer = _distance(kind, trial, wanted)
        if nearer < distance:
            return trial, nearer
    return None


def _effective(kind: type, config: Any, shapes: Shapes) -> Iterator[Path]:
    """Yield the settings that shapes depend on: with another number there, another model is built, or none."""
    for path, value in settings(config):
        if built_shapes(kind, changed(config, path, 1 if value is None else value // 2)) != shapes:
            yield path


def _distance(kind: type, config: Any, wanted: Shapes) -> float:
    """Return how many dimensions differ in a model that ``config`` builds; infinity where it builds none."""
    got = built_shapes(kind, config)
    if got is None:
        return float("inf")
    both = got.keys() & wanted.keys()
    apart = len(got.keys() ^ wanted.keys())
    return 8 * apart + sum(
        sum(a != b for a, b in zip(got[name], wanted[name], strict=False)) + abs(len(got[name]) - len(wanted[name]))
        for name in both
    )


def _ratios(old: Shapes, wanted: Shapes) -> list[tuple[int, int]]:
    """Return the changes of size, most frequent first, and those of the lengths of numbered lists."""
    counts: dict[tuple[int, int], int] = {}
    for name, shape in wanted.items():
        for a, b in zip(old.get(name, shape), shape, strict=False):
            if a != b:
                counts[a, b] = counts.get((a, b), 0) + 1
    lengths: dict[tuple[int, int], int] = {}
    before, after = _lengths(old), _lengths(wanted)
    for path, n in before.items():
        if after.get(path, n) != n:
            lengths[n, after[path]] = 1
    return [*lengths, *sorted(counts, key=lambda pair: -counts[pair])]


def _lengths(shapes: Shapes) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in shapes:
        parts = name.split(".")
        for place, part in enumerate(parts):
            if part.isdecimal():
                path = ".".join(parts[:place])
                found[path] = max(found.get(path, 0), int(part) + 1)
    return found


def _changes(
    config: Any, ratios: list[tuple[int, int]], paths: Sequence[Path], sizes: Collection[int]
) -> Iterator[Any]:
    """Yield copies of ``config`` with one setting changed as the shapes changed; one that isn't set gets a size."""
    for size, left in ratios:
        for path in paths:
            value = number(config, path)
            if (
                value is not None
                and value > 1
                and size % value == 0
                and left % (size // value) == 0
                and left // (size // value) != value
            ):
                yield changed(config, path, left // (size // value))
        for owner, name, held in lists(config):
            if len(held) == size:
                trial = copy.deepcopy(config)
                setattr(at(trial, owner), name, type(held)(held[:left]))
                for path in paths:
                    if number(trial, path) == size:
                        yield changed(trial, path, left)
    for path in paths:
        if number(config, path) is None:
            yield from (changed(config, path, size) for size in sorted(sizes))
