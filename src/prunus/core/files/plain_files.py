"""How is a file written so that a kill, a full disk or a second run never leaves half of it?

Write beside the target, flush to disk, rename. A folder is built under a temporary name and renamed whole. What a killed process
left under such names is recognised and cleared away. Nothing here follows a link, and modes are what the umask makes of them. What
goes to a URL is written on this machine first, and becomes an object in one step.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from prunus.core.errors import OutputError
from prunus.core.files.urls.copies import send_folder
from prunus.core.files.urls.store import upload
from prunus.core.files.urls.url_path import is_url

__all__ = [
    "NotPlainError",
    "atomic_folder",
    "atomic_path",
    "clear_leftovers",
    "discard",
    "explain_os_error",
    "folder_lock",
    "is_leftover",
    "open_plain",
    "remove",
    "size_of",
    "write_json",
    "write_text",
]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.(?P<what>part|old)", re.DOTALL)


class NotPlainError(OSError):
    """It is a link, a folder, a pipe or a device where a plain file is expected."""


def explain_os_error(error: OSError, path: Path) -> OutputError:
    """Return the one-line error for a failed write to ``path``."""
    if error.errno in _FULL:
        return OutputError(
            f"no space left to write {path}: free some space or choose another output folder; nothing half-written was kept"
        )
    return OutputError(f"can't write {path}: {error.strerror or error}; choose an output folder that you may write to")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder and rename it to ``path`` when the block succeeds; what goes to a URL is sent then.

    Raises:
        OutputError: the disk is full or the folder can't be written.
        RunError: the connection to a URL's store broke.
    """
    if is_url(path):
        with tempfile.TemporaryDirectory(prefix="prunus-") as folder:
            new = Path(folder) / path.name
            yield new
            upload(new, str(path))
        return
    temporary: Path | None = None
    try:
        temporary = _beside(
            path, "part", lambda new: os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        )
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise explain_os_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that takes the place of ``path`` when the block succeeds.

    At a URL, an old manifest goes first, and the new one comes last.

    Raises:
        OutputError: the disk is full or the parent folder can't be written.
        RunError: the connection to a URL's store broke.
    """
    if is_url(path):
        with tempfile.TemporaryDirectory(prefix="prunus-") as folder:
            new = Path(folder) / path.name
            new.mkdir()
            yield new
            send_folder(new, str(path), last=("manifest.json",))
        return
    temporary: Path | None = None
    try:
        temporary = _beside(path, "part", Path.mkdir)
        yield temporary
        if path.exists() or path.is_symlink():
            # A rename can't replace a folder that has files: move the old one aside first.
            old = _beside(path, "old", Path.mkdir)
            path.replace(old / "old")
            temporary.replace(path)
            shutil.rmtree(old)
        else:
            temporary.replace(path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise explain_os_error(error, path) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path, what: str, make: Callable[[Path], None]) -> Path:
    """Make a file or folder of a new name beside ``path``, with the mode that the umask gives it; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.{what}")
        try:
            make(new)
        except FileExistsError:
            continue
        return new


def is_leftover(path: Path, names: tuple[str, ...] | None = None) -> bool:
    """Return whether ``path`` has the name of a half-written file or folder (of one called as in ``names``).

    >>> is_leftover(Path("a/.bundle.0123abcd.part")), is_leftover(Path("a/.bundle.0123abcd.part"), ("plan",))
    (True, False)
    """
    found = _LEFTOVER.fullmatch(path.name)
    return found is not None and (names is None or found["name"] in names)


def clear_leftovers(folder: Path, names: tuple[str, ...] | None = None) -> None:
    """Remove what a killed process left half-written in ``folder``, which must be locked.

    A folder that it had moved aside to replace it, and hadn't yet, is put back. At a URL nothing is ever half-written.

    Raises:
        OutputError: something can't be removed.
    """
    if is_url(folder):
        return
    try:
        for path in [child for child in folder.iterdir() if is_leftover(child, names)]:
            found = _LEFTOVER.fullmatch(path.name)
            assert found is not None
            target, moved = folder / found["name"], path / "old"
            if found["what"] == "old" and not path.is_symlink() and moved.is_dir() and not target.exists():
                moved.replace(target)
            remove(path)
    except OSError as error:
        raise explain_os_error(error, folder) from error


def remove(path: Path) -> None:
    """Remove a file, a link (never what it points to) or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Remove a folder at one stroke: a kill on the way leaves a leftover, and never a part under its name.

    Raises:
        OutputError: it can't be removed.
    """
    try:
        gone = _beside(path, "part", Path.mkdir)
        path.rename(gone / "gone")
        shutil.rmtree(gone)
    except OSError as error:
        raise explain_os_error(error, path) from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in one step."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as readable JSON; NaN and infinity are refused, as JSON has no word for them."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; none where nothing is."""
    return sum(each.stat().st_size for each in ([path] if path.is_file() else path.rglob("*")) if each.is_file())


def open_plain(path: Path, flags: int = os.O_RDONLY) -> BinaryIO:
    """Return a plain file, opened; a link isn't followed, and a pipe or a device not waited for.

    Raises:
        NotPlainError: it is no plain file.
        OSError: it isn't there or can't be opened.
        PrunusError: the store of a URL can't be asked, or refuses.
    """
    if is_url(path):
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "there is no such object", str(path))
        return path.open("rb")
    words = f"{path} is no plain file but a link, a folder, a pipe or a device"
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise NotPlainError(error.errno, words, str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise NotPlainError(errno.EINVAL, words, str(path))
    mode = "r+b" if flags & os.O_RDWR else "ab" if flags & os.O_APPEND else "rb"
    return os.fdopen(handle, mode)  # type: ignore[return-value]


@contextmanager
def folder_lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold ``folder`` for one run; the lock goes with the process, so a kill leaves none behind. A URL can't be locked.

    Args:
        wait: until another's lock is gone.

    Raises:
        OutputError: another run holds it.
    """
    if is_url(folder):
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open_plain(folder / ".lock", os.O_RDWR | os.O_CREAT)
    except NotPlainError as error:
        raise OutputError(
            f"can't lock {folder}: {error.strerror}; remove it or choose another output folder"
        ) from error
    except OSError as error:
        raise explain_os_error(error, folder) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            raise OutputError(
                f"another run is writing to {folder}: wait for it or choose another output folder (-o output=...)"
            ) from error
        yield
