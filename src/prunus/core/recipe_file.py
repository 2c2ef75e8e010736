"""How does a YAML file and a few overrides become a recipe, and what does a mistake in it say?

YAML is read by a safe loader that also refuses duplicate keys and reads ``1e-3`` as a number (YAML 1.1 reads a string).
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from prunus.core.errors import RecipeError, near
from prunus.core.recipe import Recipe

__all__ = ["load_recipe", "make_recipe", "override", "parse_yaml"]


class _Loader(yaml.SafeLoader):
    """The safe loader, stricter with keys and wider with numbers."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise RecipeError(f"line {key_node.start_mark.line + 1}: a key must be a word, got {key!r}")
        if key in seen:
            raise RecipeError(f"line {key_node.start_mark.line + 1}: the key {key!r} is given twice; keep one of them")
        seen.add(key)
    loader.flatten_mapping(node)
    return {loader.construct_object(k, deep=True): loader.construct_object(v, deep=True) for k, v in node.value}


_INT = "tag:yaml.org,2002:int"
# YAML 1.1 reads 2:4 as 2 * 60 + 4; here it is a granularity.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _INT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _INT, re.compile(r"^[-+]?(?:0b[01_]+|0[0-7_]*|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"), list("-+0123456789")
)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str, where: str) -> Any:
    """Return the value that ``text`` holds.

    Raises:
        RecipeError: it isn't YAML, or a key is given twice; the message names the line.

    >>> parse_yaml("{rate: 1e-3, on: true}", "example")
    {'rate': 0.001, True: True}
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError(
            f"{where}:{line} this is not valid YAML: {problem}; check the indentation and the quotes"
        ) from error


def override(tree: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return a copy of ``tree`` with each ``a.b.c=value`` set; the value is read as YAML, a number indexes a list.

    >>> override({"strategy": {"keep_fraction": 0.5}}, ["strategy.keep_fraction=0.3", "seeds=[1, 2]"])
    {'strategy': {'keep_fraction': 0.3}, 'seeds': [1, 2]}
    """
    result: dict[str, Any] = _copy(tree)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise RecipeError(
                f"an override must read key.key=value: got {assignment!r}, for instance -o strategy.keep_fraction=0.3"
            )
        node: Any = result
        for depth, key in enumerate(keys[:-1]):
            node = _child(node, key, ".".join(keys[: depth + 1]))
        last, value = keys[-1], parse_yaml(text, f"override {path.strip()!r}")
        if isinstance(node, list):
            node[_position(node, last, path)] = value
        else:
            node[last] = value
    return result


def _child(node: Any, key: str, path: str) -> Any:
    if isinstance(node, list):
        child = node[_position(node, key, path)]
    else:
        child = node.get(key)
        if child is None:
            child = node[key] = {}
    if not isinstance(child, dict | list):
        raise RecipeError(
            f"override {path!r}: got a path below {child!r}, which has no keys; give the whole value there"
        )
    return child


def _position(node: list[Any], key: str, path: str) -> int:
    if not key.isdecimal() or int(key) >= len(node):
        raise RecipeError(f"override {path!r}: expected a position 0..{len(node) - 1} in the list, got {key!r}")
    return int(key)


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def make_recipe(tree: Any, where: str = "recipe") -> Recipe:
    """Return the typed recipe that a tree of plain values describes.

    Raises:
        RecipeError: an unknown key, a wrong type, a value out of range; one line that names the key.
    """
    if not isinstance(tree, Mapping):
        raise RecipeError(f"{where}: a recipe is a mapping with the key 'data', got {type(tree).__name__}")
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{where}: {_explain(error)}") from None


def load_recipe(path: Path, assignments: Sequence[str] = ()) -> Recipe:
    """Return the recipe in a YAML file, with overrides.

    Raises:
        RecipeError: the file is missing, isn't YAML, or says something that a recipe can't say.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecipeError(
            f"no recipe at {path}: give the path of a YAML file, or start from one under examples/"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"can't read the recipe {path}: expected a text file in UTF-8, got {error}") from error
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with the key 'data', got {type(tree).__name__}")
    return make_recipe(override(tree, assignments), str(path))


def _explain(error: ValidationError) -> str:
    """Say the first mistake in one line, and how many more there are."""
    # A misspelt key often makes another one missing: name the cause first.
    mistakes = sorted(error.errors(include_url=False), key=lambda mistake: mistake["type"] != "extra_forbidden")
    first = mistakes[0]
    key = ".".join(str(part) for part in first["loc"]) or "the recipe"
    got = first["input"]
    if first["type"] == "extra_forbidden":
        text = f"unknown key {key!r}: {near(str(first['loc'][-1]), _known_keys(first['loc'][:-1]))}"
    elif first["type"] == "missing":
        text = f"the key {key!r} is missing: add it"
    elif first["type"] == "value_error":
        text = f"{key}: {first['msg'].removeprefix('Value error, ')}"
    else:
        reason = first["msg"].replace("Input should be", "expected")
        text = f"{key}: {reason[0].lower()}{reason[1:]}, got {got!r}"
    rest = len(mistakes) - 1
    return text + (f" (and {rest} more mistake{'s' if rest > 1 else ''})" if rest else "")


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the section at ``path`` knows."""
    section: Any = Recipe
    for part in path:
        if isinstance(part, str):
            section = _section_in(section.model_fields[part].annotation)
    return sorted(section.model_fields)


def _section_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(found for argument in get_args(annotation) if (found := _section_in_or_none(argument)) is not None)


def _section_in_or_none(annotation: Any) -> Any:
    try:
        return _section_in(annotation)
    except StopIteration:
        return None
