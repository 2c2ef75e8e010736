"""May a file that came from elsewhere call this function, read this file, write to this folder?

A recipe is the word of the user who hands it over. What *travels* (a bundle, a plan, a record, a shard index) is not: it may name
only what comes with prunus, unless the user allows more in that very call. That is decided here and nowhere else, by the text of a
field alone: nothing is opened or looked for, but the names that installed packages offer in their metadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from prunus.core.code.imports import is_reference
from prunus.core.code.registry import CRITERIA, METRICS, would_import
from prunus.core.errors import PlanError
from prunus.core.recipes.recipe import Data, Model, Recipe, kind_of_source
from prunus.core.text import shown

__all__ = ["Permission", "Reach", "check_reach", "names_registered", "reaches"]


class Reach(NamedTuple):
    """A key and the value under it that reaches outside of prunus."""

    key: str
    kind: Literal["function", "arguments", "file", "folder", "cluster"]
    value: object

    def __str__(self) -> str:
        what = {
            "function": "to call",
            "arguments": "for it",
            "file": "to read",
            "folder": "to write to",
            "cluster": "to join",
        }[self.kind]
        article = "" if self.kind == "arguments" else "a "
        return f"{self.key} names {article}{self.kind} {what}, {shown(self.value)}"


@dataclass(frozen=True)
class Permission:
    """What the user allows in one call: everything that the file names, or nothing but the keys that they gave themselves.

    A key covers all below it: who gives ``data`` gave ``data.args``.

    >>> Permission(given=("data",)).covers("data.source"), Permission(given=("data.source",)).covers("data.args")
    (True, False)
    """

    everything: bool = False
    given: tuple[str, ...] = ()

    def covers(self, key: str) -> bool:
        """Return whether the user allows what stands under ``key``."""
        return self.everything or any(key == given or key.startswith(f"{given}.") for given in self.given)


def reaches(config: Recipe | Data | Model, prefix: str = "") -> Iterator[Reach]:
    """Yield every function, file and folder outside of prunus that a recipe, or a section of one, names.

    >>> [str(reach) for reach in reaches(Data(source="os:system", args={"command": "id"}))]
    ["source names a function to call, 'os:system'", "args names arguments for it, {'command': 'id'}"]
    >>> list(reaches(Data(source="sklearn:digits"))), list(reaches(Model(builder="mlp", args={"width": 8})))
    ([], [])
    """
    if isinstance(config, Data):
        sources = {"source": config.source, **config.own_parts}
        kinds = {key: kind_of_source(source) for key, source in sources.items()}
        for key, source in sources.items():
            if (kind := kinds[key]) != "bundled":
                yield Reach(f"{prefix}{key}", kind, source)
        if config.cache is not None:
            yield Reach(f"{prefix}cache", "folder", config.cache)
        if is_reference(config.task):
            yield Reach(f"{prefix}task", "function", config.task)
        if "function" in kinds.values() and config.args:
            yield Reach(f"{prefix}args", "arguments", config.args)
    elif isinstance(config, Model):
        if config.is_function:
            yield Reach(f"{prefix}builder", "function", config.builder)
            if config.args:
                yield Reach(f"{prefix}args", "arguments", config.args)
        if config.weights is not None:
            yield Reach(f"{prefix}weights", "file", config.weights)
    else:
        yield from reaches(config.data, f"{prefix}data.")
        yield from reaches(config.model, f"{prefix}model.")
        for key, section in (("train", config.train), ("recovery", config.recovery)):
            if section.loss is not None:
                yield Reach(f"{prefix}{key}.loss", "function", section.loss)
        for key in ("plan", "recording"):
            if config.examples is not None and (named := getattr(config.examples, key)) is not None:
                yield Reach(f"{prefix}examples.{key}", "file", named)
        if config.export is not None and config.export.processor is not None:
            yield Reach(f"{prefix}export.processor", "file", config.export.processor)
        for key, group, name in names_registered(config):
            if is_reference(name) or would_import(group, name):
                yield Reach(f"{prefix}{key}", "function", name)
        if config.dispatch is not None and config.dispatch.address is not None:
            yield Reach(f"{prefix}dispatch.address", "cluster", config.dispatch.address)
        yield Reach(f"{prefix}output", "folder", config.output)


def names_registered(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """Yield every key of a recipe that names something registered, the group in which other packages offer such, and the name."""
    if recipe.strategy is not None:
        yield "strategy.criterion", CRITERIA, recipe.strategy.criterion
    for name in recipe.evaluation.metrics:
        yield "evaluation.metrics", METRICS, name
    if recipe.contract is not None:
        yield "contract.metric", METRICS, recipe.contract.metric


def check_reach(
    config: Recipe | Data | Model, permission: Permission, *, where: str, way: str, prefix: str = ""
) -> None:
    """Refuse a recipe that came with ``where`` if it reaches outside and the user didn't allow that in this call.

    Args:
        way: what to do about it, in the words of the command or the function that was called.
        prefix: what the keys begin with, ``data.`` for that section alone.

    Raises:
        PlanError: the first thing that it names and mustn't.
    """
    for reach in reaches(config, prefix):
        if not permission.covers(reach.key):
            raise PlanError(f"{where}: {reach}; what came from elsewhere may not, unless you allow it: {way}")
