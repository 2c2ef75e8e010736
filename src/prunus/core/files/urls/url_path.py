"""Where does something lie: on this machine, or at a URL?

:func:`path_at` returns a path for either. A path of a URL answers what paths are asked (is it there, what lies in it, open it), so
that what reads files reads objects, too. What needs a file of the system, such as a lock or a memory map, can't have one: asked
for the name of that file, a URL raises, in one clear line, instead of being taken for a folder called ``s3:``.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PosixPath
from typing import Any

from prunus.core.errors import DataError, RecipeError
from prunus.core.files.urls import store
from prunus.core.files.urls.range_file import RangeFile
from prunus.core.files.urls.store import Facts
from prunus.core.files.urls.url_text import checked_url, is_url_text

__all__ = ["UrlPath", "is_url", "matching", "path_at", "pinned", "refuse_url", "seen_at_url", "version_of"]

_COLLAPSED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def path_at(given: str | Path) -> Path:
    """Return the path that is meant: of this machine, or of a URL that may be read.

    Raises:
        RecipeError: a URL that may not.

    >>> path_at("runs/a"), path_at("s3://bucket/a.csv").suffix
    (PosixPath('runs/a'), '.csv')
    """
    if isinstance(given, UrlPath):
        return given
    if isinstance(given, Path):
        # A command line's path has lost one of the two slashes.
        first, *rest = given.parts or ("",)
        if not _COLLAPSED.fullmatch(first) or not rest or given.exists():
            return given
        return UrlPath(checked_url(f"{first}//{'/'.join(rest)}"))
    return UrlPath(checked_url(given)) if is_url_text(given) else Path(given)


def is_url(path: Path) -> bool:
    """Return whether a path is a URL's."""
    return isinstance(path, UrlPath)


def refuse_url(path: Path, what: str, instead: str) -> None:
    """Refuse a URL where there must be a path of this machine.

    Args:
        what: what the path is for, as the message begins.
        instead: what to do about it.

    Raises:
        RecipeError: it is a URL.
    """
    if is_url(path_at(path)):
        raise RecipeError(f"{what} can't be a URL: got {path_at(path)}; {instead}")


def pinned(path: Path) -> Path:
    """Return a URL's path with what is said of it now: opened later, it must be the same; others as they are.

    Raises:
        DataError: there is nothing.
    """
    if not isinstance(path, UrlPath) or path.facts is not None:
        return path
    facts = store.facts_of(str(path))
    if facts is None:
        raise DataError(f"{path}: {store.nothing_at(str(path))}")
    return _with(path, facts)


def version_of(path: Path) -> str:
    """Return what changes whenever the object at a URL is written, as its store has it now; "" where there is none, or no URL."""
    facts = store.facts_of(str(path)) if isinstance(path, UrlPath) else None
    return "" if facts is None else facts.version


def seen_at_url(path: Path) -> list[Any]:
    """Return the size and version of an object, as it was listed or is now; nothing where there is none."""
    facts = path._said() if isinstance(path, UrlPath) else None
    return [] if facts is None else [facts.size_bytes, facts.version]


def matching(path: Path) -> list[UrlPath] | None:
    """Return the objects whose names fit a URL that ends in a pattern, ``s3://bucket/folder/*.parquet``; None: it is no pattern.

    Raises:
        RecipeError: a pattern stands for a folder.
        DataError: nothing fits.
    """
    if not isinstance(path, UrlPath) or not any("*" in part for part in path.parts):
        return None
    if "*" in "".join(path.parts[:-1]):
        raise RecipeError(f"{path}: * may stand in the last name only: name the folder")
    found = [child for child in path.parent.iterdir() if fnmatchcase(child.name, path.name.replace("[", "[[]"))]
    if not found:
        raise DataError(f"{path}: no object there has such a name")
    return found


class UrlPath(PosixPath):
    """The path of a URL. ``facts`` is what was said of it when it was listed; it isn't asked for again then."""

    facts: Facts | None = None

    def __str__(self) -> str:
        first, *rest = self.parts or ("",)
        return f"{first}//{'/'.join(rest)}" if first.endswith(":") else "/".join((first, *rest))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _with, (str(self), self.facts)

    def __fspath__(self) -> str:
        raise RecipeError(f"{self}: a URL can't stand here: copy it to a folder of this machine, and give that")

    def as_posix(self) -> str:
        """Return the URL."""
        return str(self)

    def is_absolute(self) -> bool:
        """Return that it hangs on no current folder."""
        return True

    def resolve(self, strict: bool = False) -> UrlPath:
        """Return it: nothing of it is a link."""
        return self

    def absolute(self) -> UrlPath:
        """Return it."""
        return self

    def expanduser(self) -> UrlPath:
        """Return it."""
        return self

    def _said(self) -> Facts | None:
        if "*" in self.name:  # it is the folder of what it fits
            return Facts(is_folder=True)
        return self.facts if self.facts is not None else store.facts_of(str(self))

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return its kind and size; other things that a system's files have are 0.

        Raises:
            FileNotFoundError: there is nothing.
        """
        facts = self._said()
        if facts is None:
            raise FileNotFoundError(2, "there is no such object or folder", str(self))
        mode = stat.S_IFDIR if facts.is_folder else stat.S_IFREG
        return os.stat_result((mode | 0o600, 0, 0, 1, 0, 0, facts.size_bytes, 0, 0, 0))

    def lstat(self) -> os.stat_result:
        """Return what :meth:`stat` does."""
        return self.stat()

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether an object or a folder is there."""
        return self._said() is not None

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether an object is there."""
        facts = self._said()
        return facts is not None and not facts.is_folder

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether objects lie below it."""
        facts = self._said()
        return facts is not None and facts.is_folder

    def is_symlink(self) -> bool:
        """Return that it is no link."""
        return False

    def iterdir(self) -> Iterator[UrlPath]:  # type: ignore[override]
        """Yield what lies in it, each with what was said of it.

        Raises:
            DataError: there is no such folder.
        """
        if "*" in self.name:
            yield from matching(self) or ()
            return
        for name, facts in store.listing(str(self)).items():
            yield _with(self / name, facts)

    def glob(self, pattern: str, **_: Any) -> Iterator[UrlPath]:  # type: ignore[override]
        """Yield what lies in it and has such a name."""
        if self.is_dir():
            yield from (child for child in self.iterdir() if fnmatchcase(child.name, pattern))

    def rglob(self, pattern: str, **_: Any) -> Iterator[UrlPath]:  # type: ignore[override]
        """Yield what lies below it and has such a name."""
        for child in self.iterdir():
            if fnmatchcase(child.name, pattern):
                yield child
            if child.is_dir():
                yield from child.rglob(pattern)

    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any:
        """Return it opened for reading; bytes come from a :class:`RangeFile`.

        Raises:
            DataError: there is nothing, or it may not be read.
            RecipeError: it was to be written: an object is written whole, by ``plain_files.atomic_path``.
        """
        if mode not in ("r", "rb", "rt"):
            self.__fspath__()
        raw = RangeFile(str(self), self.facts)
        if mode == "rb":
            return raw
        return io.TextIOWrapper(io.BufferedReader(raw), encoding=encoding or "utf-8", errors=errors, newline=newline)

    def read_bytes(self) -> bytes:
        """Return all of it."""
        with RangeFile(str(self), self.facts) as file:
            return file.read()

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        """Return all of it as a text."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a folder is what its objects are called."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        store.delete(str(self))


def _with(path: UrlPath | str, facts: Facts | None) -> UrlPath:
    found = UrlPath(path)
    found.facts = facts
    return found
