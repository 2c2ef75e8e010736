"""How does a whole folder come from a URL, or go to one, so that nobody takes half of it for the whole?

An object appears whole; a folder of them doesn't. So what says that the rest is there, such as a bundle's manifest or a run's
record, is sent last, and taken away first where it is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prunus.core.errors import DataError, OutputError
from prunus.core.files.disk_room import check_room
from prunus.core.files.file_hash import sha256_file
from prunus.core.files.urls import store
from prunus.core.files.urls.range_file import RangeFile
from prunus.core.files.urls.store import Facts
from prunus.core.text import shown

__all__ = ["fetch_folder", "send_folder"]

_PIECE_BYTES = 8 << 20
_MOST_OBJECTS = 10_000


def fetch_folder(url: str, into: Path) -> int:
    """Copy all objects below a URL into a new folder of this machine; return their bytes.

    Raises:
        DataError: there are none, too many, one has a name that no file may have, or one can't be read.
        OutputError: the disk has no room for them.
    """
    found = store.tree(url)
    if not found:
        raise DataError(f"{url}: {store.nothing_at(url)}")
    if len(found) > _MOST_OBJECTS:
        raise DataError(f"{url}: expected a folder of at most {_MOST_OBJECTS} objects, got {len(found)}")
    for name in found:
        parts = name.split("/")
        if any(part in ("", ".", "..") or not part.isprintable() or "\\" in part for part in parts):
            raise DataError(f"{url}: it holds an object called {shown(name)}, which can't be a file's name")
    total = sum(facts.size_bytes for facts in found.values())
    into.mkdir(parents=True)
    check_room(into, total, f"copying {url}", "set TMPDIR to a larger disk")
    for name, facts in found.items():
        target = into / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with RangeFile(f"{url}/{name}", facts) as file, target.open("xb") as out:
                while piece := file.read(_PIECE_BYTES):
                    out.write(piece)
        except OSError as error:
            raise OutputError(f"can't copy {url}/{name} to {target}: {error.strerror or error}") from error
    return total


def send_folder(
    folder: Path,
    url: str,
    *,
    last: Sequence[str],
    done: dict[str, dict[str, Any]] | None = None,
    note: Callable[[dict[str, dict[str, Any]]], None] | None = None,
) -> int:
    """Copy the files of a folder to a URL, and take away what else lies there; return how many were sent.

    Args:
        last: names of files that say that all others beside and below are there; they are sent in this order after the others, and
            taken away in the opposite order before them.
        done: what an earlier call has sent, by name: its ``sha256``, ``size`` and ``version``; it is kept up to date.
        note: is told after each object what is done.

    Raises:
        OutputError: it can't be written.
        RunError: the connection broke.
    """
    done = {} if done is None else done
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and not _is_hidden(path.relative_to(folder))
    }
    there = {name: facts for name, facts in store.tree(url).items() if not _is_hidden(Path(name))}
    weights = {name: sha256_file(path) for name, path in files.items()}
    kept = {name for name in files if _stands(done.get(name), weights[name], there.get(name))}
    todo = files.keys() - kept
    stale = there.keys() - files.keys()
    if not todo and not stale:
        return 0
    marks = sorted((name for name in there if _place(name, last)), key=lambda name: (-_place(name, last), name))
    for name in (*marks, *sorted(stale - set(marks))):
        store.delete(f"{url}/{name}")
        done.pop(name, None)
    todo |= kept & set(marks)
    for name in sorted(todo, key=lambda name: (_place(name, last), name)):
        store.upload(files[name], f"{url}/{name}")
        facts = store.facts_of(f"{url}/{name}") or Facts(is_folder=False)
        done[name] = {"sha256": weights[name], "size": facts.size_bytes, "version": facts.version}
        if note is not None:
            note(done)
    return len(todo)


def _stands(entry: dict[str, Any] | None, sha256: str, there: Facts | None) -> bool:
    """Return whether an object is there as it was sent, and is what would be sent now."""
    if entry is None or there is None:
        return False
    return bool(entry == {"sha256": sha256, "size": there.size_bytes, "version": there.version})


def _place(name: str, last: Sequence[str]) -> int:
    own = name.rpartition("/")[2]
    return last.index(own) + 1 if own in last else 0


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
