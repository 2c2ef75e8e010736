"""How does a YAML file and a few overrides become a recipe, and what does a mistake in it say?

YAML is read by a safe loader that also refuses duplicate keys and reads ``1e-3`` as a number (YAML 1.1 reads a string). What its
aliases would become is counted before it is made.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from prunus.core.errors import RecipeError, near
from prunus.core.recipes.recipe import Recipe
from prunus.core.text import shown

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["explained", "load_recipe", "make_recipe", "near_key", "override", "parse_yaml"]


_SAID_ELSEWHERE = {
    **dict.fromkeys(("label", "labels", "label_column", "target_column", "y"), "target"),
    **dict.fromkeys(("lr", "rate"), "learning_rate"),
    "sparsity": "keep_fraction",
    "pruning_ratio": "keep_fraction",
}
"""What other tools call a key, where the nearest spelling is another one."""
MAX_BYTES = 128 * 2**10
MAX_VALUES = 20_000
"""A recipe has some hundred values; aliases of aliases make billions of a few lines."""
MAX_DEPTH = 100
MAX_DIGITS = 400


class _Loader(yaml.SafeLoader):
    """The safe loader, stricter with keys and wider with numbers; it counts while it reads."""

    n_values, n_levels = 0, 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the next value; what is too much is refused there, before the rest of the text is looked at."""
        line = f"line {self.peek_event().start_mark.line + 1}"  # type: ignore[no-untyped-call]
        self.n_values += 1
        self.n_levels += 1
        if self.n_values > MAX_VALUES:
            raise RecipeError(f"{line}: expected YAML of at most {MAX_VALUES} values, got more")
        if self.n_levels > MAX_DEPTH:
            raise RecipeError(f"{line}: expected YAML of at most {MAX_DEPTH} levels, got more")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.n_levels -= 1
        return node


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise RecipeError(f"line {key_node.start_mark.line + 1}: a key must be a word, got {key!r}")
        if key in seen:
            raise RecipeError(f"line {key_node.start_mark.line + 1}: the key {key!r} is given twice; keep one of them")
        seen.add(key)
    loader.flatten_mapping(node)
    return {loader.construct_object(k, deep=True): loader.construct_object(v, deep=True) for k, v in node.value}


# What pydantic calls the kinds of a value that may be of several, where the names of keys stand otherwise.
_KIND = re.compile(r"bool|int|float|str|none|literal\[.*\]|constrained-.*")
_TAGS = ("{low, high}", "[]")
_LENGTH = re.compile(r"\w+ should have (at (?:least|most) \d+ \w+)")
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
        return _construct(text)
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from error
    except RecursionError as error:
        raise RecipeError(f"{where}: expected YAML of at most {MAX_DEPTH} levels, got more") from error
    # A tag on a value that it doesn't fit (!!bool maybe) makes the loader fail in many ways.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError(
            f"{where}:{line} this is not valid YAML: {problem}; check the indentation and the quotes"
        ) from error


def _construct(text: str) -> Any:
    if len(text) > MAX_BYTES:
        raise RecipeError(
            f"expected YAML of at most {MAX_BYTES} letters, got {len(text)}; keep data in files of their own"
        )
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check_size(root: yaml.Node) -> None:
    """Count what a tree of nodes becomes with every alias written out; each node is visited once."""
    sizes: dict[int, tuple[int, int]] = {}  # values and levels of what is below a node, once that is known
    opened: set[int] = set()
    stack = [root]
    while stack:
        node = stack[-1]
        line = f"line {node.start_mark.line + 1}"
        children = _children(node)
        if id(node) in sizes:
            stack.pop()
            continue
        if id(node) not in opened:
            opened.add(id(node))
            for child in children:
                if id(child) in opened and id(child) not in sizes:
                    raise RecipeError(f"{line}: an alias stands for something that holds it; write it out")
            stack += [child for child in children if id(child) not in sizes]
            continue
        below = [sizes[id(child)] for child in children]
        values, depth = 1 + sum(size for size, _ in below), 1 + max((levels for _, levels in below), default=0)
        if values > MAX_VALUES:
            raise RecipeError(f"{line}: expected YAML of at most {MAX_VALUES} values, aliases written out, got more")
        if depth > MAX_DEPTH:
            raise RecipeError(f"{line}: expected YAML of at most {MAX_DEPTH} levels, got more")
        if isinstance(node, yaml.ScalarNode) and node.tag == _INT and len(node.value) > MAX_DIGITS:
            raise RecipeError(f"{line}: expected numbers of at most {MAX_DIGITS} digits, got {len(node.value)}")
        sizes[id(node)] = values, depth
        stack.pop()


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


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
        raise RecipeError(f"{where}: {explained(error)}") from None


def load_recipe(path: Path, assignments: Sequence[str] = ()) -> Recipe:
    """Return the recipe in a YAML file, with overrides.

    Raises:
        RecipeError: the file is missing, isn't YAML, or says something that a recipe can't say.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_BYTES + 1)
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


def explained(error: ValidationError, section: Any = Recipe, where: str = "") -> str:
    """Say the first mistake in one line, and how many more there are.

    Args:
        section: what was read: the whole recipe, or one part of it by itself.
        where: what that part is called, as the keys in it are named after it.
    """
    # A misspelt key often makes another one missing: name the cause first.
    mistakes = sorted(error.errors(include_url=False), key=lambda mistake: mistake["type"] != "extra_forbidden")
    first = mistakes[0]
    key = ".".join(str(part) for part in (where, *_place(first)) if part not in ("", *_TAGS)) or "the recipe"
    got = first["input"]
    if first["type"] == "extra_forbidden":
        own = str(first["loc"][-1])
        places = [path for path in _paths(section) if path.rpartition(".")[2] == own]
        known = _known_keys(first["loc"][:-1], section)
        hint = near(own, known)
        if (meant := _SAID_ELSEWHERE.get(own)) in known:
            hint = f"did you mean {meant!r}?"
        if places and not hint.startswith("did you mean"):
            hint = f"did you mean {' or '.join(places[:3])}?"
        text = f"unknown key {key!r}: {hint}"
    elif first["type"] == "missing":
        text = f"the key {key!r} is missing: add it"
    elif first["type"] == "value_error":
        text = f"{key}: {first['msg'].removeprefix('Value error, ')}"
    else:
        same = [mistake for mistake in mistakes if _place(mistake) == _place(first)]
        reason = " or ".join(dict.fromkeys(_expected(mistake) for mistake in same)).replace(" or expected ", " or ")
        text = f"{key}: {reason}, got {shown(got)}"
    rest = len({_place(mistake) for mistake in mistakes}) - 1
    return text + (f" (and {rest} more mistake{'s' if rest > 1 else ''})" if rest else "")


def near_key(key: str, sections: Sequence[str]) -> str:
    """Return a hint at which key ``a.b.c`` of a recipe may be meant by one that isn't there; nothing where it may be there.

    Args:
        sections: what may be meant.
    """
    paths = _paths(Recipe)
    above = key
    while above and above not in paths:
        above = above.rpartition(".")[0]
    if above == key or (above and not any(path.startswith(f"{above}.") for path in paths)):
        return ""  # what lies below a value is the value's
    own = key.rpartition(".")[2]
    known = [path for path in paths if path.partition(".")[0] in sections]
    close = [_part_by_part(key, known)] if "." in key else []
    close = [one for one in close if one] or difflib.get_close_matches(
        key, known, n=1, cutoff=0.8 if "." in key else 0.9
    )
    close = close or [path for path in known if path.rpartition(".")[2] == _SAID_ELSEWHERE.get(own, own)][:3]
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    inside = [path.rpartition(".")[2] for path in known if path.rpartition(".")[0] == key.rpartition(".")[0] != ""]
    return near(own, inside) if inside else f"expected a key of {', '.join(sections)}"


def _part_by_part(key: str, known: Sequence[str]) -> str:
    """Return the key that each part of ``key`` comes near to, from the left; nothing where one comes near to none."""
    made = ""
    for part in key.split("."):
        there = {path[len(made) :].partition(".")[0] for path in known if path.startswith(made)}
        if there and part not in there:
            meant = _SAID_ELSEWHERE.get(part, part)
            part = next(iter(difflib.get_close_matches(meant, there, n=1, cutoff=0.75)), "")
            if not part:
                return ""
        made += f"{part}."
    return made[:-1]


def _place(mistake: ErrorDetails) -> tuple[int | str, ...]:
    """Return the keys that lead to a value.

    One that may be of several kinds has a mistake for each, and pydantic names the kind after the keys.
    """
    keys = mistake["loc"]
    named = mistake["type"] not in ("extra_forbidden", "missing") and keys and _KIND.fullmatch(str(keys[-1]))
    return keys[:-1] if named else keys


def _expected(mistake: ErrorDetails) -> str:
    """Return what was expected, in the words of a recipe."""
    if mistake["type"].startswith("bool_"):
        return "expected true or false"
    if found := _LENGTH.match(mistake["msg"]):
        return f"expected {found[1]}"
    reason = mistake["msg"].replace("Input should be", "expected").replace("a valid tuple", "a list")
    return f"{reason[0].lower()}{reason[1:]}"


def _known_keys(path: tuple[int | str, ...], section: Any) -> list[str]:
    """Return the keys that what lies at ``path`` in a section knows."""
    for part in path:
        if isinstance(part, str) and part in section.model_fields:  # others are keys of the user's, or kinds
            section = _section_in(section.model_fields[part].annotation)
    return sorted(section.model_fields)


def _paths(section: Any, above: str = "") -> list[str]:
    """Return where each key stands, section by section; those within lists and choices stand nowhere of their own."""
    found = []
    for name, field in section.model_fields.items():
        found.append(above + name)
        below = _section_in_or_none(field.annotation)
        if below is not None and get_origin(field.annotation) not in (list, tuple):
            found += _paths(below, f"{above}{name}.")
    return found


def _section_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(found for argument in get_args(annotation) if (found := _section_in_or_none(argument)) is not None)


def _section_in_or_none(annotation: Any) -> Any:
    try:
        return _section_in(annotation)
    except StopIteration:
        return None
