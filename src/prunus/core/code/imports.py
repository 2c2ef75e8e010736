"""How is a user's ``module:function`` found and called, and what does a mistake in it say?

The current folder is importable while their code is imported and called. Whatever their code raises comes back as one
line with the exception's type and text, and the exception itself is chained.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prunus.core.errors import PrunusError, near, raise_if_out_of_memory
from prunus.core.text import plain

__all__ = ["arguments_of", "call", "current_folder_importable", "is_reference", "object_named", "one_line", "resolve"]

_MOST_LETTERS = 500


def one_line(error: BaseException) -> str:
    """Return the type and the text of an exception in one line that steers nothing, without torch's own stack.

    >>> one_line(ValueError("first\\n  second"))
    'ValueError: first second'
    """
    text = plain(" ".join(str(error).partition("Exception raised from")[0].split()))
    text = text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Put the current folder first on the import path for a block."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def resolve(reference: str, *, error: type[PrunusError]) -> Callable[..., Any]:
    """Return the function (or class) that ``module:function`` names.

    Raises:
        PrunusError: of the class ``error``; the module or the function isn't there, or importing it fails.
    """
    found = object_named(reference, error=error)
    if not callable(found):
        raise error(f"{reference!r} must be a function, got {type(found).__name__}")
    function: Callable[..., Any] = found
    return function


def is_reference(name: str) -> bool:
    """Tell whether a name is a ``module:object`` instead of something registered."""
    return ":" in name


def object_named(reference: str, *, error: type[PrunusError]) -> Any:
    """Return what ``module:object`` names.

    Raises:
        PrunusError: of the class ``error``; the module or the object isn't there, or importing it fails.
    """
    module_name, _, function_name = reference.partition(":")
    parts = (*module_name.split("."), *function_name.split("."))
    if not all(part.isidentifier() for part in parts):
        raise error(f"expected module:function, for instance my_code:build, got {reference!r}")
    with current_folder_importable():
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as missing:
            if missing.name is None or not f"{module_name}.".startswith(f"{missing.name}."):
                raise error(f"importing {module_name!r} failed: {one_line(missing)}; install it") from missing
            raise error(
                f"{reference!r}: there is no module {missing.name!r}; it is looked for in {Path.cwd()} and among the "
                "installed packages"
            ) from missing
        except (Exception, SystemExit) as failure:
            raise_if_out_of_memory(failure)
            raise error(f"importing {module_name!r} failed: {one_line(failure)}; correct it there") from failure
    for part in function_name.split("."):
        if not hasattr(found, part):
            public = [name for name, value in vars(found).items() if callable(value) and not name.startswith("_")]
            hint = near(part, public) if public else "it has no functions"
            raise error(f"{reference!r}: {module_name!r} has no {part!r}; {hint}")
        found = getattr(found, part)
    return found


def arguments_of(function: Callable[..., Any]) -> tuple[tuple[str, ...], tuple[str, ...], bool] | None:
    """Return the argument names, those without a default, and whether any other is taken; None if that can't be told."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    by_name = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = tuple(p.name for p in by_name if p.default is p.empty)
    return tuple(p.name for p in by_name), needed, any(p.kind is p.VAR_KEYWORD for p in parameters)


def call(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    what: str,
    key: str,
    error: type[PrunusError],
    offered: Mapping[str, Any] | None = None,
) -> Any:
    """Return ``function(**arguments)``, adding those of ``offered`` whose names stand in its signature.

    ``what`` names the function in messages and ``key`` the recipe key that holds the arguments.

    Raises:
        PrunusError: of the class ``error``; an argument is unknown or missing, or the function itself raises.

    >>> call(lambda width, n_outputs: (width, n_outputs), {"width": 3}, what="f", key="args", error=PrunusError,
    ...      offered={"n_outputs": 2, "input_shape": (4,)})
    (3, 2)
    """
    given = dict(arguments)
    known = arguments_of(function)
    if known is not None:
        names, needed, takes_any = known
        given |= {name: value for name, value in (offered or {}).items() if name in names and name not in given}
        unknown = [name for name in given if name not in names]
        if unknown and not takes_any:
            hint = near(str(unknown[0]), names) if names else "it takes none"
            raise error(f"{what} has no argument {', '.join(map(repr, unknown))} ({key}): {hint}")
        missing = [name for name in needed if name not in given]
        if missing:
            raise error(f"{what} needs the argument {', '.join(map(repr, missing))}: add it to {key}")
    with current_folder_importable():
        try:
            return function(**given)
        except PrunusError:
            raise
        except (Exception, SystemExit) as failure:
            raise_if_out_of_memory(failure)
            raise error(f"{what} failed: {one_line(failure)}; correct it there") from failure
