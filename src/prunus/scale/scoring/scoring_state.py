"""What has a scoring run done so far, and is it still what was written?

What is done is noted on the disk after each shard, and what that costs hardly grows with the number of shards: the state of the
whole run stands in one file, and what was done since that was written in another, which is short. At a URL, which can't be
appended to, it is the same two objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import Any

from prunus.core.errors import OutputError
from prunus.core.files.plain_files import explain_os_error, write_json
from prunus.core.files.sealed import sealed_tree, tree_sha256
from prunus.core.files.urls.store import refused_as
from prunus.core.files.urls.url_path import is_url, seen_at_url, version_of
from prunus.data import print_of
from prunus.scale.resume import fold_file, read_state
from prunus.scale.scoring.score_shard import ShardFacts

__all__ = ["RECENT", "STATE", "ScoringState", "read_done", "seen_of"]

STATE, RECENT = ".prunus-scores.json", ".prunus-scores-recent.json"
_FEWEST = 16
"""So many shards may stand in the short file, however few there are."""


def read_done(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return with which settings a folder's shards were scored, and what is noted of each that was, by its name.

    Raises:
        OutputError: the state is damaged, or was changed since.
    """
    settings, done = read_state(folder / STATE, "settings")
    if not (folder / RECENT).exists():
        return settings, done
    follows, recent = read_state(folder / RECENT, "follows")
    if follows == _print(settings, done):  # else the whole was written since, and a kill came before this was removed
        done = {name: entry for name, entry in {**done, **recent}.items() if entry is not None}
    return settings, done


class ScoringState:
    """What a run has written to its output folder so far, on the disk after each shard."""

    def __init__(self, output: Path, settings: Mapping[str, Any]) -> None:
        self.paths = output / STATE, output / RECENT
        self._versions = ["", ""]
        self.settings: dict[str, Any] = json.loads(json.dumps(dict(settings)))
        self.done: dict[str, dict[str, Any]] = {}
        self._recent: dict[str, dict[str, Any] | None] = {}
        self._follows = ""

    def read(self) -> None:
        """Take over what an earlier run with these settings has finished."""
        folder = self.paths[0].parent
        with refused_as(OutputError):
            self._versions = [version_of(path) for path in self.paths]
            settings, done = read_done(folder)
        if settings != self.settings:
            names = {*settings, *self.settings}
            odd = next(name for name in sorted(names) if settings.get(name) != self.settings.get(name))
            raise OutputError(f"{folder} holds a run with another {odd}: choose another folder")
        self.done = done

    def holds(self, shard: Path, output: Path) -> bool:
        """Return whether a shard is as it was when it was scored, and its scores as they were written."""
        entry = self.done.get(output.name)
        if entry is None or entry["source"] != seen_of(shard):
            return False
        return bool(entry["written"] and _written(output) == entry["written"])

    def finish(self, shard: Path, output: Path, facts: ShardFacts) -> None:
        """Note that a shard is scored.

        Raises:
            OutputError: what was written isn't to be seen here.
        """
        written = _written(output)
        if not written:
            raise OutputError(
                f"{output} was written, and isn't here: all workers need {output.parent} under the same path"
            )
        weight = {"sha256": facts.sha256} if facts.sha256 else {}
        entry = {
            "source": seen_of(shard),
            "print": "" if shard.is_dir() else print_of(shard),
            "written": written,
            "rows": facts.n_rows,
            **weight,
        }
        self.done[output.name] = entry
        self._note(output.name, entry)

    def forget(self, output: Path) -> None:
        """Note that a shard isn't scored; what an earlier run wrote of it goes."""
        try:
            output.unlink(missing_ok=True)
        except OSError as error:
            raise explain_os_error(error, output) from error
        if self.done.pop(output.name, None) is not None:
            self._note(output.name, None)

    def n_rows(self, shards: Sequence[Path]) -> int:
        """Return how many rows have scores."""
        return sum(self.done[name]["rows"] for shard in shards if (name := f"{shard.stem}.parquet") in self.done)

    def write(self) -> None:
        """Write the whole state, and remove what was noted since it was written last.

        Raises:
            OutputError: it can't be written, or, at a URL, which can't be locked, another run has written its own.
        """
        self._write(0, {"settings": self.settings, "done": self.done})
        self._follows, self._recent = _print(self.settings, self.done), {}
        try:
            self.paths[1].unlink(missing_ok=True)
        except OSError as error:
            raise explain_os_error(error, self.paths[1]) from error
        self._versions[1] = ""

    def _note(self, name: str, entry: dict[str, Any] | None) -> None:
        """Write down what became of one shard: beside the whole state, until there is so much that the whole is written anew."""
        self._recent[name] = entry
        # Of n shards, about the root of n stand in the short file: both are written n times the root of n entries in all.
        if len(self._recent) > max(_FEWEST, isqrt(len(self.done))):
            self.write()
        else:
            self._write(1, {"follows": self._follows, "done": self._recent})

    def _write(self, which: int, tree: dict[str, Any]) -> None:
        with refused_as(OutputError):
            for place, path in enumerate(self.paths):
                if is_url(path) and version_of(path) != self._versions[place]:
                    raise OutputError(
                        f"another run is writing to {path.parent}, or emptied it: wait for it or choose another folder"
                    )
            write_json(self.paths[which], sealed_tree(tree))
            self._versions[which] = version_of(self.paths[which])


def _print(settings: Any, done: Mapping[str, Any]) -> str:
    """Return what the whole state is known by to what was noted after it."""
    return tree_sha256({"settings": settings, "done": dict(done)})


def _written(output: Path) -> list[Any]:
    """Return what tells whether scores are as they were written; of an object, what its store says, and it isn't read."""
    if is_url(output):
        with refused_as(OutputError):
            return seen_at_url(output)
    found = fold_file(output)
    return [] if found is None else list(found)


def seen_of(shard: Path) -> list[Any]:
    """Return what changes when a file is written to; its bytes aren't read for it."""
    if is_url(shard):
        return [str(shard), *seen_at_url(shard)]
    try:
        seen = shard.stat()
        if shard.is_dir():
            inside = [path.stat() for path in sorted(shard.rglob("*"))]
            return [
                str(shard.resolve()),
                len(inside),
                sum(one.st_size for one in inside),
                max((one.st_mtime_ns for one in inside), default=0),
            ]
    except OSError:
        return []
    return [str(shard.resolve()), seen.st_size, seen.st_mtime_ns]
