"""Which endings do files have that are data?

A reader of files that end in ``.xyz`` lies in ``data/readers/read_xyz.py``: the file's name is all that says the ending, so that it
is known before anything heavy is imported. Other packages offer readers as entry points; their names are endings, too.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from pathlib import Path

from prunus.core.code.registry import READERS, offered

__all__ = ["data_endings", "in_words", "own_endings"]

_PREFIX = "read_"


@cache
def own_endings() -> tuple[str, ...]:
    """Return the endings that prunus itself reads, with their dots."""
    folder = Path(__file__).parent.parent / "data" / "readers"
    names = sorted(module.name for module in pkgutil.iter_modules([str(folder)]))
    return tuple(f".{name.removeprefix(_PREFIX)}" for name in names if name.startswith(_PREFIX))


def data_endings() -> tuple[str, ...]:
    """Return the endings of all files that can be read as a data set, with their dots.

    >>> ".csv" in data_endings()
    True
    """
    return (*own_endings(), *(f".{name}" for name in offered(READERS) if f".{name}" not in own_endings()))


def in_words(endings: tuple[str, ...] | None = None) -> str:
    """Return some endings, else all, as one says them.

    >>> in_words((".csv", ".npz", ".parquet"))
    '.csv, .npz or .parquet'
    """
    *first, last = data_endings() if endings is None else endings
    return f"{', '.join(first)} or {last}"
