"""Which recipe does a point of the space stand for?

A point gives each key of ``search.space`` a value. What a trial is judged by may not vary: neither examples nor contract.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prunus.core.code.extras import require
from prunus.core.errors import RecipeError
from prunus.core.recipes.recipe import Recipe, Search
from prunus.core.recipes.recipe_file import make_recipe, near_key, override
from prunus.core.recipes.search_section import Range
from prunus.pipeline.flow.open_job import check_recipe_names
from prunus.pipeline.offered import load_offered

__all__ = ["Space", "search_of"]

_FIXED = (
    "search",
    "name",
    "output",
    "seeds",
    "contract",
    "evaluation",
    "runtime",
    "dispatch",
    "data.source",
    "data.target",
    "data.task",
    "data.split",
    "data.validation",
    "data.calibration",
    "data.test",
)
"""What settings are judged by, and where it is written."""
_VARIES = ("data", "model", "train", "examples", "features", "strategy", "target", "recovery")
_LISTED = f"{', '.join(_VARIES[:-1])} or {_VARIES[-1]}"
Plain = str | int | float | bool | None


def search_of(recipe: Recipe) -> Search:
    """Return the section ``search`` of a recipe.

    Raises:
        RecipeError: there is none.
    """
    if recipe.search is None:
        raise RecipeError(
            "prunus search needs to know what varies: got no section search; add search: {space: {strategy.keep_fraction: "
            "{low: 0.2, high: 0.9}}}"
        )
    return recipe.search


@dataclass(frozen=True)
class Space:
    """The keys that vary, around a recipe as a tree of plain values (``base``)."""

    base: Mapping[str, Any]
    keys: Mapping[str, Range | tuple[Any, ...]]

    @classmethod
    def of(cls, recipe: Recipe, *, allow: Callable[[Recipe], None] = load_offered) -> Space:
        """Return the space of a recipe, each of whose values it takes.

        Args:
            allow: is told each value's recipe before anything that it names is looked for. By default what another installed
                package offers is imported.

        Raises:
            RecipeError: a key that a recipe hasn't got, or that settings are judged by; a value that it can't have; or two promises
                of which one breaks the other.
        """
        asked = search_of(recipe)
        _check_promises(recipe, asked)
        base = recipe.model_dump(mode="json", exclude={"search"})
        if recipe.target is not None and any(key.startswith("target") for key in asked.space):
            base["target"] = {name: value for name, value in base["target"].items() if value is not None}
        found = cls(base, dict(asked.space))
        for key, values in found.keys.items():
            fixed = next((name for name in _FIXED if key == name or key.startswith(f"{name}.")), None)
            if fixed is not None:
                raise RecipeError(
                    f"search.space: {key} can't vary, since settings are judged by {fixed}: expected a key of {_LISTED}; run two "
                    "searches instead"
                )
            if not all(key.split(".")):
                raise RecipeError(f"search.space: a key reads section.key, like strategy.keep_fraction: got {key!r}")
            if hint := near_key(key, _VARIES):
                raise RecipeError(f"search.space: unknown key {key!r}: {hint}")
            ends = (values.low, values.high) if isinstance(values, Range) else values
            for value in ends:
                try:
                    made = found.recipe({key: value})
                    allow(made)
                    check_recipe_names(made)
                except RecipeError as error:
                    raise RecipeError(f"search.space.{key}: {error}") from error
        return found

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """Return the recipe with these values.

        Raises:
            RecipeError: there is none.
        """
        assignments = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        return make_recipe(override(dict(self.base), assignments), "the recipe with these settings")

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Return whether values are those of a point: of keys that vary, each inside of what it may be.

        >>> space = Space({}, {"a": Range(low=1, high=3), "b": ("x", None)})
        >>> space.holds({"a": 2, "b": None}), space.holds({"a": 4}), space.holds({"c": 1}), space.holds({"a": True})
        (True, False, False, False)
        """
        return all(key in self.keys and _is_one_of(value, self.keys[key]) for key, value in values.items())

    def weights(self) -> tuple[str, ...]:
        """Return the files of weights that a point may begin with."""
        varied = self.keys.get("model.weights", ())
        named = (self.base["model"]["weights"], *(varied if isinstance(varied, tuple) else ()))
        return tuple(dict.fromkeys(name for name in named if isinstance(name, str)))

    def distributions(self) -> dict[str, Any]:
        """Return what Optuna draws from."""
        given = require("optuna.distributions", extra="search")
        found: dict[str, Any] = {}
        for key, values in self.keys.items():
            if not isinstance(values, Range):
                found[key] = given.CategoricalDistribution([_name(value) for value in values])
            elif values.whole:
                every = 1 if values.step is None else int(values.step)
                found[key] = given.IntDistribution(int(values.low), int(values.high), log=values.log, step=every)
            else:
                step = None if values.step is None else float(values.step)
                found[key] = given.FloatDistribution(float(values.low), float(values.high), log=values.log, step=step)
        return found

    def values(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Return the recipe's values for what Optuna drew, which names lists and mappings by their JSON."""
        found = dict(drawn)
        for key, values in self.keys.items():
            if not isinstance(values, Range) and key in found:
                found[key] = next(value for value in values if _name(value) == found[key])
        return {key: found[key] for key in self.keys if key in found}

    def own_point(self) -> dict[str, Any]:
        """Return the recipe's own values, as Optuna names them, as far as they are in the space."""
        found: dict[str, Any] = {}
        for key, values in self.keys.items():
            own = _at(self.base, key)
            inside = (
                isinstance(own, int | float) and not isinstance(own, bool) and values.low <= own <= values.high
                if isinstance(values, Range)
                else any(own == value for value in values)
            )
            if inside:
                found[key] = own if isinstance(values, Range) else _name(own)
        return found


def _check_promises(recipe: Recipe, asked: Search) -> None:
    """Refuse settings that are each cut until they lose more than the search lets them."""
    own, all_ = recipe.contract, asked.contract
    if (
        own is None
        or all_ is None
        or own.metric != all_.metric
        or recipe.target is None
        or recipe.target.share is not None
    ):
        return
    if own.max_drop > all_.max_drop:
        raise RecipeError(
            f"search.contract.max_drop: each setting is cut as deep as contract.max_drop lets it, so expected at least "
            f"{own.max_drop:g} of {own.metric}, as there: got {all_.max_drop:g}; lower contract.max_drop, or give one of the two"
        )


def _is_one_of(value: Any, values: Range | tuple[Any, ...]) -> bool:
    if isinstance(values, Range):
        return isinstance(value, int | float) and not isinstance(value, bool) and values.low <= value <= values.high
    return any(_name(value) == _name(one) and type(value) is type(one) for one in values)


def _name(value: Any) -> Plain:
    return value if isinstance(value, Plain) else json.dumps(value)


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(tree, Mapping):
            tree = tree.get(part)
        elif isinstance(tree, list) and part.isdecimal() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return None
    return tree
