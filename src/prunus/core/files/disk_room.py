"""Is there room on a disk for what is about to be written?"""

from __future__ import annotations

import shutil
from pathlib import Path

from prunus.core.errors import OutputError

__all__ = ["check_room"]


def check_room(folder: Path, n_bytes: int, what: str, hint: str) -> None:
    """Refuse what doesn't fit on a disk, before anything is written.

    Raises:
        OutputError: it says how much is needed and how much is free.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if n_bytes > free:
        raise OutputError(f"{folder}: {what} needs {n_bytes} bytes on disk, and {free} are free: {hint}")
