"""Do all machines that work see the same files as this one? What one of them can't see is said before the work begins.

A folder that is written to gets a mark for as long as the work goes on: a machine that doesn't find it sees another folder under
the same path, and what it wrote there would be lost. Of the files that are read one in each folder is looked for, and its size
compared. URLs are seen alike everywhere.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from prunus.core.files.plain_files import explain_os_error, open_plain
from prunus.core.files.urls.url_path import is_url

__all__ = ["Expected", "Files", "expected", "odd_file"]


@dataclass(frozen=True)
class Files:
    """What all who work must see alike: ``reads`` are files and folders, ``writes`` folders that are there."""

    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Expected:
    """What a machine must find, as plain values: paths with their sizes (of folders none), marks, and who has them."""

    sizes: tuple[tuple[str, int | None], ...] = ()
    marks: tuple[str, ...] = ()
    host: str = ""


@contextmanager
def expected(files: Files) -> Iterator[Expected]:
    """Yield what others must find, with a mark in each folder that is written to; the marks go with the block.

    Raises:
        OutputError: a folder can't be written to.
    """
    sizes = tuple((str(path.absolute()), _size(path)) for path in _samples(files.reads))
    with ExitStack() as stack:
        marks = tuple(
            str(stack.enter_context(_mark(folder)).absolute()) for folder in files.writes if not is_url(folder)
        )
        yield Expected(sizes, marks, socket.gethostname())


def odd_file(asked: Expected) -> str:
    """Return what this machine doesn't see as the one that asks does, in words; nothing where it does.

    >>> odd_file(Expected((("/no/such/file.csv", 5),), (), "node1"))
    "can't read /no/such/file.csv, which node1 has: No such file or directory"
    """
    for name, size in asked.sizes:
        path = Path(name)
        try:
            here = _size(path)
            if here is not None:
                with path.open("rb"):
                    pass
        except OSError as error:
            return f"can't read {name}, which {asked.host} has: {error.strerror or type(error).__name__}"
        if here != size:
            return f"has another {name} than {asked.host}: {_words(here)}, expected {_words(size)}"
    for mark in asked.marks:
        if not Path(mark).is_file():
            folder = Path(mark).parent
            what = "another folder" if folder.is_dir() else "no folder"
            return f"finds {what} at {folder}, where {asked.host} looks for what workers write"
    return ""


def _samples(paths: Sequence[Path]) -> list[Path]:
    """Return the first of each folder; those that aren't there, or lie at a URL, are for their readers to tell."""
    first: dict[Path, Path] = {}
    for path in paths:
        if not is_url(path) and path.exists():
            first.setdefault(path.absolute().parent, path)
    return list(first.values())


def _size(path: Path) -> int | None:
    return None if path.is_dir() else path.stat().st_size


def _words(size: int | None) -> str:
    return "a folder" if size is None else f"{size:,} bytes"


@contextmanager
def _mark(folder: Path) -> Iterator[Path]:
    mark = folder / f".seen.{secrets.token_hex(4)}.part"  # as a leftover is called, which the next run clears away
    try:
        open_plain(mark, os.O_WRONLY | os.O_CREAT | os.O_APPEND).close()
    except OSError as error:
        raise explain_os_error(error, folder) from error
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)
