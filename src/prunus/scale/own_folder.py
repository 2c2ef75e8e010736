"""May a work write its files into a folder: is it empty, or does it hold what this very work began?

A file in the folder says what was asked, and is the first one there. So nothing that is somebody else's is ever overwritten, and a
work that was stopped is known by what it was asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunus.core.errors import OutputError
from prunus.core.files.plain_files import clear_leftovers, write_json
from prunus.core.files.sealed import sealed_tree
from prunus.core.files.urls.store import refused_as
from prunus.scale.resume import read_state

__all__ = ["begun", "note_end"]


def begun(output: Path, name: str, asked: Mapping[str, Any], *, resume: bool) -> dict[str, Any] | None:
    """Return None in a folder that is this work's from now on, and what was noted at its end (or nothing yet) where it was before.

    The folder must be locked (``folder_lock``), but for a URL, which can't be.

    Args:
        name: of the file that says what was asked.
        asked: what the result hangs on, as plain values.
        resume: go on where this work was stopped, or read what it left.

    Raises:
        OutputError: the folder holds something else, another work's files, or this one's and ``resume`` isn't given.
    """
    path, told = output / name, json.loads(json.dumps(dict(asked)))
    with refused_as(OutputError):
        there = {child.name for child in output.iterdir()} - {".lock"} if output.exists() else set()
        if name not in there:
            if there:
                raise OutputError(f"{output} isn't empty ({min(there)}): choose another folder")
            write_json(path, sealed_tree({"asked": told, "done": {}}))
            return None
        if not resume:
            raise OutputError(f"{output} holds a run of this kind: go on with --resume, or choose another folder")
        before, done = read_state(path, "asked")
    if before != told:
        odd = next(key for key in sorted({*before, *told}) if before.get(key) != told.get(key))
        raise OutputError(f"{output} holds a run with another {odd}: choose another folder")
    clear_leftovers(output)
    return done


def note_end(output: Path, name: str, asked: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Note that the work is over, and what it found, as plain values."""
    write_json(output / name, sealed_tree({"asked": dict(asked), "done": dict(facts)}))
