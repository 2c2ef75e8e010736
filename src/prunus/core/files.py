"""How is a file written so that a kill, a full disk or a second run never leaves half of it?

Write beside the target, flush to disk, rename. A folder is built under a temporary name and renamed whole.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prunus.core.errors import OutputError

__all__ = ["atomic_folder", "atomic_path", "explain_os_error", "folder_lock", "sha256_file", "write_json", "write_text"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def explain_os_error(error: OSError, path: Path) -> OutputError:
    """Return the one-line error for a failed write to ``path``."""
    if error.errno in _FULL:
        return OutputError(
            f"no space left to write {path}: free some space or choose another output folder; nothing half-written was kept"
        )
    return OutputError(f"can't write {path}: {error.strerror or error}; choose an output folder that you may write to")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder and rename it to ``path`` when the block succeeds.

    Raises:
        OutputError: the disk is full or the folder can't be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
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

    Raises:
        OutputError: the disk is full or the parent folder can't be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            # A rename can't replace a folder that has files: move the old one aside first.
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
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


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in one step."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as readable JSON; NaN and infinity are refused, as JSON has no word for them."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for one run; the lock goes with the process, so a kill leaves none behind.

    Raises:
        OutputError: another run holds it.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise explain_os_error(error, folder) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(
                f"another run is writing to {folder}: wait for it or choose another output folder (-o output=...)"
            ) from error
        yield
