"""Which file that can run code when it is loaded may be loaded at all?

A ``.pt2`` of ``torch.export`` holds pickles that its loader runs. So this is the one place that loads one, and it loads bytes that
this process wrote itself, or whose SHA-256 the caller knows from what was verified: a signed bundle's, say. The bytes that are
hashed are the bytes that are loaded. A test walks the sources and finds every other way.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch

from prunus.core.errors import BundleError
from prunus.core.files.plain_files import NotPlainError, open_plain

__all__ = ["load_program", "write_program"]

_WRITTEN: set[str] = set()
"""The SHA-256 of what this process wrote."""


def write_program(program: torch.export.ExportedProgram, path: Path) -> str:
    """Write a program to ``path`` and return its SHA-256; this process may load it again."""
    held = io.BytesIO()
    torch.export.save(program, held)
    content = held.getvalue()
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    _WRITTEN.add(digest)
    return digest


def load_program(path: Path, *, sha256: str | None = None) -> torch.export.ExportedProgram:
    """Return the program in a ``.pt2`` file.

    Args:
        sha256: of the file that was verified; default: it must be one that this process wrote.

    Raises:
        BundleError: it is neither, or no plain file.
    """
    try:
        with open_plain(path) as file:
            content = file.read()
    except NotPlainError as error:
        raise BundleError(f"{path}: expected a plain file, got a link, a folder or a device") from error
    except OSError as error:
        raise BundleError(f"{path}: it can't be read ({error.strerror})") from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise BundleError(
            f"{path} isn't what was verified: expected SHA-256 {sha256[:12]}…, got {found[:12]}…; it isn't loaded"
        )
    if sha256 is None and found not in _WRITTEN:
        raise BundleError(
            f"{path}: a .pt2 file runs code when it is loaded, and this process didn't write it: verify it, and give its SHA-256"
        )
    return torch.export.load(io.BytesIO(content))
