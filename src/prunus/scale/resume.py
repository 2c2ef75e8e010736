"""What of a run that was stopped can be gone on with, and is it still what was written?

The state in the output folder says of which checkpoint and with which settings it is, and for every finished shard the exclusive
or of its 64-bit words. That costs next to nothing while a shard is written, in any order; one that has a bit flipped is redone.
"""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.core.errors import OutputError, PrunusError
from prunus.core.files.plain_files import NotPlainError, open_plain, write_json
from prunus.core.files.sealed import sealed_tree, unsealed_tree
from prunus.scale.shard_files import Checkpoint

__all__ = ["STATE", "State", "fold", "fold_file", "read_state"]

STATE = ".prunus-shards.json"
_PIECE = 1 << 20


def fold(data: npt.NDArray[Any] | bytes, place: int) -> int:
    """Return the exclusive or of the 64-bit words that bytes make at their place in a file.

    The folds of all parts, folded, are that of the whole, however it is cut.

    >>> whole = bytes(range(100))
    >>> fold(whole, 0) == fold(whole[:33], 0) ^ fold(whole[33:50], 33) ^ fold(whole[50:], 50)
    True
    """
    raw = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data.reshape(-1).view(np.uint8)
    before, after = place % 8, -(place + len(raw)) % 8
    if before or after:
        raw = np.concatenate([np.zeros(before, np.uint8), raw, np.zeros(after, np.uint8)])
    return int(np.bitwise_xor.reduce(raw.view(np.uint64), initial=0))


def fold_file(path: Path) -> tuple[int, int] | None:
    """Return the size of a plain file and the fold of all of it; None where there is none."""
    try:
        with open_plain(path) as file:
            total, place = 0, 0
            while piece := file.read(_PIECE):
                total, place = total ^ fold(piece, place), place + len(piece)
            return place, total
    except (FileNotFoundError, NotPlainError):
        return None


def read_state(path: Path, about: str) -> tuple[Any, dict[str, Any]]:
    """Return what a state says under the key ``about`` of the run that wrote it, and what that run has ``done``.

    Raises:
        OutputError: the state is damaged, or was changed since.
    """
    try:
        with open_plain(path) as file:
            tree = unsealed_tree(file.read())
        return tree[about], dict(tree["done"])
    except PrunusError:  # of a URL's store: that it can't be read says nothing of what it holds
        raise
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise OutputError(
            f"{path}: this state is damaged or was changed; empty {path.parent} and start anew"
        ) from error


class State:
    """What a run has written to its output folder so far, on the disk after each shard."""

    def __init__(self, output: Path, checkpoint: Checkpoint, settings: dict[str, Any]) -> None:
        self.path = output / STATE
        self.run: dict[str, Any] = json.loads(json.dumps({"checkpoint": _identity(checkpoint), "settings": settings}))
        self.done: dict[str, list[int]] = {}
        self._lock = threading.Lock()

    def read(self) -> None:
        """Take over what an earlier run of the same kind has finished.

        Raises:
            OutputError: the state is damaged, or of another checkpoint or other settings.
        """
        folder = self.path.parent
        run, done = read_state(self.path, "run")
        if run["settings"] != self.run["settings"]:
            raise OutputError(f"{folder} holds a run with other settings: choose another folder")
        if run["checkpoint"] != self.run["checkpoint"]:
            raise OutputError(
                f"{folder} holds a run of another checkpoint, or its files were changed since: choose another folder"
            )
        self.done = done

    def holds(self, path: Path) -> bool:
        """Return whether a shard is there as it was written."""
        found = fold_file(path) if path.name in self.done else None
        return found is not None and list(found) == self.done[path.name]

    def write(self) -> None:
        """Write the state."""
        write_json(self.path, sealed_tree({"run": self.run, "done": self.done}))

    def finish(self, path: Path, total: int) -> None:
        """Note that a shard is there, and the fold of what was written to it."""
        with self._lock:
            self.done[path.name] = [path.stat().st_size, total]
            self.write()


def _identity(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what changes when any shard of a checkpoint is written to; its numbers aren't read for it."""
    index = hashlib.sha256(json.dumps(checkpoint.index, sort_keys=True).encode()).hexdigest()
    files = [[shard.path.name, *shard.seen] for shard in checkpoint.shards]
    return {"folder": str(checkpoint.folder.resolve()), "index": index, "files": files}
