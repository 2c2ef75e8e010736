"""What does a folder of safetensors shards hold, and where does each tensor lie in it?

Only headers are read: the numbers stay on the disk. A checkpoint is a folder with one ``.safetensors`` file, or with several
and an index (``*.safetensors.index.json``) that says which tensor is in which, as transformers writes them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunus.core.code.imports import one_line
from prunus.core.errors import WeightsError
from prunus.core.files.json_text import JsonError, read_json_file
from prunus.core.recipes.named_places import check_shards
from prunus.core.text import shown
from prunus.models.safetensors_file import read_header

__all__ = ["Checkpoint", "Shard", "Stored", "read_checkpoint"]

_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ +=@-]{0,200}\.safetensors")
"""No separator, no dot in front (files of prunus begin like that), and not the index's own name."""


@dataclass(frozen=True)
class Stored:
    """One tensor on the disk: its format's name, its shape, and its bytes counted from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size_bytes: int

    @property
    def n_units(self) -> int:
        """How many numbers it has."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class Shard:
    """One file; its tensors in the order of their bytes. ``seen`` changes when it is written to: its size, and when that was."""

    path: Path
    tensors: tuple[Stored, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    seen: tuple[int, int] = (0, 0)

    def check_unchanged(self) -> None:
        """Check that the file is the one whose header was read.

        Raises:
            WeightsError: it was written to, or replaced, since.
        """
        if _size_and_time(self.path) != self.seen:
            raise WeightsError(f"{self.path}: it was changed while it was read; wait until it is whole")


@dataclass(frozen=True)
class Checkpoint:
    """All shards, the index if there is one (with its file name), the other files, and what isn't part of it, with the reason."""

    folder: Path
    shards: tuple[Shard, ...]
    index_name: str | None = None
    index: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[Path, ...] = ()
    left_out: tuple[tuple[Path, str], ...] = ()

    @property
    def tensors(self) -> list[Stored]:
        """Every tensor."""
        return [tensor for shard in self.shards for tensor in shard.tensors]

    @property
    def size_bytes(self) -> int:
        """What all the tensors take."""
        return sum(tensor.size_bytes for tensor in self.tensors)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Return what lies in ``folder``, after checking that it is whole.

    Raises:
        WeightsError: no such folder, no shards, several without an index, a shard that is missing, cut off or damaged, or an
            index that names tensors which aren't there.
    """
    check_shards(folder)
    files = sorted(folder.glob("*.safetensors"))
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if not files and not indexes:
        raise WeightsError(f"{folder}: expected .safetensors files: got none; choose the folder that holds them")
    if len(indexes) > 1:
        raise WeightsError(
            f"{folder}: expected one *.safetensors.index.json: got {len(indexes)}; move all but one away"
        )
    if not indexes and len(files) > 1:
        raise WeightsError(
            f"{folder}: {len(files)} shards need an index that says which tensor is where: expected a "
            "*.safetensors.index.json, got none; copy it from where the shards came from"
        )
    index = _read_index(indexes[0]) if indexes else None
    if index is not None:
        files = [folder / name for name in sorted(set(index["weight_map"].values()))]
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise WeightsError(
                f"{folder}: {indexes[0].name} names {len(files)} shards, {len(missing)} of them aren't there: "
                f"{missing[0]}; get it anew"
            )
    shards = tuple(_read_shard(path) for path in files)
    _check_names(shards)
    if index is not None:
        _check_map(indexes[0], index["weight_map"], shards)
    known = {*files, *indexes}
    rest = [path for path in sorted(folder.iterdir()) if path not in known and not path.name.startswith(".")]
    others, left_out = [], []
    for path in rest:
        if path.is_dir() and not path.is_symlink():
            continue
        if not _is_within(path):
            left_out.append((path, f"it is no plain file of {folder}"))
        elif path.suffix == ".safetensors":  # whole weights beside the pruned ones would be loaded by mistake
            left_out.append((path, f"{indexes[0].name} names none of its tensors"))
        else:
            others.append(path)
    return Checkpoint(folder, shards, indexes[0].name if indexes else None, index or {}, tuple(others), tuple(left_out))


def _is_within(path: Path) -> bool:
    """Return whether ``path`` is a plain file, or a link to one of the same checkpoint: a hub's cache keeps its files as links.

    There, ``snapshots/REVISION/config.json`` links to ``../../blobs/HASH``.
    """
    if not path.is_symlink():
        return path.is_file()
    target, folder = Path(os.path.realpath(path)), path.parent.resolve()  # a link to itself is no error there
    blobs = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else folder
    return target.is_file() and target.parent in (folder, blobs)


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index: Any = read_json_file(path.resolve() if _is_within(path) else path)
    except (OSError, JsonError) as error:
        raise WeightsError(f"{path}: the index is no readable JSON ({one_line(error)}); get it anew") from error
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(value, str) for value in names.values()):
        raise WeightsError(
            f"{path}: the index needs a weight_map from tensor names to file names: got {str(names)[:60]}; get it anew"
        )
    odd = [value for value in names.values() if not _SHARD.fullmatch(value)]
    if odd:
        raise WeightsError(
            f"{path}: a shard must lie beside the index and be called like NAME.safetensors: got {shown(odd[0])}"
        )
    metadata = index.get("metadata", {})
    if not isinstance(metadata, dict):
        raise WeightsError(f"{path}: the index's metadata must be values by name: got {shown(metadata)}; get it anew")
    return dict(index)


def _read_shard(path: Path) -> Shard:
    seen = _size_and_time(path)
    header, data = read_header(path)
    metadata = header.pop("__metadata__", {}) or {}
    tensors = []
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors.append(Stored(name, str(entry["dtype"]), tuple(entry["shape"]), data + begin, end - begin))
    return Shard(path, tuple(sorted(tensors, key=lambda tensor: (tensor.start, tensor.size_bytes))), metadata, seen)


def _size_and_time(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _check_names(shards: tuple[Shard, ...]) -> None:
    where: dict[str, str] = {}
    for shard in shards:
        for tensor in shard.tensors:
            if (other := where.setdefault(tensor.name, shard.path.name)) != shard.path.name:
                raise WeightsError(
                    f"{shard.path}: it holds {shown(tensor.name)}, and so does {other}: which one holds? get the checkpoint anew"
                )


def _check_map(path: Path, names: Mapping[str, str], shards: tuple[Shard, ...]) -> None:
    where = {tensor.name: shard.path.name for shard in shards for tensor in shard.tensors}
    for name, file in names.items():
        if where.get(name) != file:
            got = f"it is in {where[name]}" if name in where else "it is in none"
            raise WeightsError(
                f"{path}: the index says that {shown(name)} is in {file}, but {got}; get the checkpoint anew"
            )
    extra = sorted(set(where) - set(names))
    if extra:
        raise WeightsError(
            f"{path}: the index doesn't know {shown(extra[0])} of {where[extra[0]]}; get the checkpoint anew"
        )
