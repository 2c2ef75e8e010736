"""How is a thing found by the name that a recipe gives it?

A registered thing enrols itself in the law tests, which parametrise over the registry. Other installed packages may offer more, as
entry points of a registry's ``group``: what they are called is known from their metadata, and their code is imported only by
:meth:`Registry.load`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from prunus.core.code.imports import one_line
from prunus.core.errors import RecipeError, UnknownNameError, near, raise_if_out_of_memory

__all__ = ["CRITERIA", "METRICS", "READERS", "TASKS", "Registry", "import_all", "offered", "would_import"]

CRITERIA, METRICS, READERS, TASKS = "prunus.criteria", "prunus.metrics", "prunus.readers", "prunus.tasks"
"""Groups of entry points under which other packages offer something. A reader is called after the ending, without the dot."""

T = TypeVar("T")

_BY_GROUP: dict[str, Registry[Any]] = {}


class Registry(Generic[T]):
    """Map names to things of one kind, and explain an unknown name.

    >>> colours: Registry[str] = Registry("colour")
    >>> colours.add("red", "#f00")
    '#f00'
    >>> colours["red"], list(colours)
    ('#f00', ['red'])
    """

    def __init__(self, kind: str, *, group: str = "") -> None:
        self.kind, self.group = kind, group
        self._items: dict[str, T] = {}
        if group:
            _BY_GROUP[group] = self

    def add(self, name: str, item: T) -> T:
        """Register ``item`` and return it; a name is taken once."""
        assert name not in self._items, f"{self.kind} {name!r} is registered twice"
        self._items[name] = item
        return item

    def replace(self, name: str, item: T) -> T:
        """Register ``item`` in place of what is called ``name``, if anything is, and return it: for what is made at run time."""
        self._items[name] = item
        return item

    def __getitem__(self, name: str) -> T:
        if name not in self._items:
            if (point := self._offered(name)) is not None:
                raise UnknownNameError(
                    f"unknown {self.kind}: got {name!r}, which {_package(point)} offers: its code is imported only where you name "
                    f"the {self.kind} yourself; import {point.module} first, or name it in a recipe of your own"
                )
            raise UnknownNameError(f"unknown {self.kind}: got {name!r}; {near(name, self._items)}")
        return self._items[name]

    def load(self, name: str) -> T:
        """Return what is called ``name``, importing the installed package that offers it where prunus has none.

        For names that the user gave in this call, never for one that stands in a file from elsewhere: ``core.recipes.trust``
        decides.

        Raises:
            UnknownNameError: neither prunus nor an installed package has it.
            RecipeError: the package can't be imported, or doesn't register what it offers.
        """
        point = None if name in self._items else self._offered(name)
        if point is not None:
            try:
                point.load()
            except Exception as error:
                raise_if_out_of_memory(error)
                raise RecipeError(
                    f"{self.kind} {name!r}: importing {point.value!r} of {_package(point)} failed: {one_line(error)}"
                ) from error
            if name not in self._items:
                raise RecipeError(
                    f"{self.kind} {name!r}: {_package(point)} offers it ({point.value!r}), but importing that registers no such "
                    f"{self.kind}; correct it there"
                )
        return self[name]

    def _offered(self, name: str) -> EntryPoint | None:
        return offered(self.group).get(name) if self.group else None

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._items))

    def __len__(self) -> int:
        return len(self._items)


def _package(point: EntryPoint) -> str:
    return f"the package {point.dist.name!r}" if point.dist is not None else f"{point.module!r}"


@cache
def offered(group: str) -> dict[str, EntryPoint]:
    """Return what installed packages offer under a group of entry points, by name; their code isn't imported.

    >>> offered("prunus.nothing")
    {}
    """
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda point: point.name)}


def would_import(group: str, name: str) -> bool:
    """Return whether loading a name would import another package's code: it is offered there, and isn't registered yet."""
    return name in offered(group) and (group not in _BY_GROUP or name not in _BY_GROUP[group])


def import_all(package: str, path: Iterable[str]) -> None:
    """Import every module that lies in a package, so that what it registers is there: no list to forget a file in.

    Args:
        package: its ``__name__``, or that of the package whose modules are meant.
        path: its ``__path__``.
    """
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
