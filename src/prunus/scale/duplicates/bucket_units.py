"""What does a worker do for near-duplicates over shards? Each unit of the work reads files and writes one, in one step.

What it wrote is a ``.npz`` file, whose parts carry a checksum: a unit is done when its file is whole, and doing it again gives the
same. Rows are numbered through all shards; ``order`` and ``alive`` of a shard count its own.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunus.core.errors import DataError
from prunus.core.files.plain_files import atomic_path
from prunus.core.types import Ints
from prunus.data import print_of
from prunus.scale.duplicates.shard_matrix import is_matrix, write_matrix
from prunus.scale.mapped_matrix import mapped_matrix
from prunus.score.examples.duplicates.near_pairs import cosines_between, inverse_norms, is_crowd
from prunus.score.examples.duplicates.random_cuts import Cuts, Sketch, codes_of, sketches_of

__all__ = ["Place", "Task", "Units", "file_of", "is_whole", "loaded", "saved"]

_BLOCK = 65536
_AT_ONCE = 1 << 20
"""So many rows that met are looked at at once."""


class Task(NamedTuple):
    """One unit: ``rows``, ``codes`` or ``stars`` of a shard, or ``pairs`` of two, in a part of a round, over so many tables."""

    kind: str
    one: int
    other: int = -1
    round: int = -1
    part: int = -1
    n_tables: int = 0


@dataclass(frozen=True)
class Place:
    """The shards, which columns of them are compared, and the folder for what is kept on the way."""

    shards: tuple[Path, ...]
    columns: tuple[str, ...] | None
    work: Path

    def matrix(self, shard: int) -> Tensor:
        """Return a shard's rows, ``(n, features)``, mapped into memory."""
        own = is_matrix(self.shards[shard], self.columns)
        return torch.from_numpy(mapped_matrix(self.shards[shard] if own else self.copy(shard)))

    def copy(self, shard: int) -> Path:
        """Return where the rows of a shard are that is no matrix."""
        return self.work / f"matrix-{shard}.npy"


def file_of(work: Path, task: Task) -> Path:
    """Return where a unit's result stands."""
    numbers = [number for number in (task.round, task.part, task.one, task.other) if number >= 0]
    return work / f"{task.kind}-{'-'.join(map(str, numbers))}.npz"


def loaded(path: Path) -> dict[str, npt.NDArray[Any]] | None:
    """Return what a unit wrote; None where that isn't there, or isn't whole."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            return {name: held[name] for name in held.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None


def is_whole(path: Path) -> bool:
    """Return whether a unit's result is there as it was written, by the checksums in it."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as held:
            return held.testzip() is None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return False


def saved(path: Path, values: dict[str, Any]) -> None:
    """Write arrays in one step."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **values)


@dataclass
class Units:
    """Does any unit; ``least`` is the threshold."""

    place: Place
    least: float

    def __call__(self, task: Task) -> None:
        """Do one unit.

        Raises:
            DataError: a shard is damaged, or its rows can't be compared.
            OutputError: the result can't be written.
        """
        found = {"rows": self._rows, "codes": self._codes, "stars": self._stars, "pairs": self._pairs}[task.kind](task)
        saved(file_of(self.place.work, task), found)

    def _rows(self, task: Task) -> dict[str, Any]:
        """Return one over each row's norm, the shape, and the print of the file."""
        shard = self.place.shards[task.one]
        seen = print_of(shard)
        if not is_matrix(shard, self.place.columns):
            write_matrix(shard, self.place.columns, self.place.copy(task.one))
        table = self.place.matrix(task.one)
        if not len(table):
            raise DataError(f"{shard}: there is no row in it; leave it out")
        try:
            return {"scale": inverse_norms(table).numpy(), "shape": np.array(table.shape), "print": np.array(seen)}
        except DataError as error:
            raise DataError(f"{shard}: {error}") from error

    def _codes(self, task: Task) -> dict[str, Any]:
        """Return the buckets of a shard's rows in each table, sorted, whose they are, and the rows' sketches."""
        tables, sketch = tables_of(self.place.work, task)
        shard = self._opened(task.one, task.round)
        codes = np.empty((len(tables), len(shard.alive)), np.int32)
        bits = np.zeros(len(shard.alive), np.uint64)
        for start in range(0, len(shard.alive), _BLOCK):
            block = slice(start, start + _BLOCK)
            which = torch.from_numpy(shard.alive[block])
            rows, scale = shard.table[which].float(), shard.scale[which]
            for number, cuts in enumerate(tables):
                codes[number, block] = codes_of(rows, scale, cuts)
            bits[block] = sketches_of(rows, scale, sketch)
        found: dict[str, Any] = {"bits": bits}
        for number, own in enumerate(codes):
            order = np.argsort(own, kind="stable").astype(np.int32)
            found |= {f"codes-{number}": own[order], f"order-{number}": order}
        return found

    def _stars(self, task: Task) -> dict[str, Any]:
        """Return the pairs of each crowded bucket's first row, of whichever shard it is, with the shard's rows in that bucket."""
        firsts = loaded(self.place.work / f"firsts-{task.round}-{task.part}.npz")
        shard = self._opened(task.one, task.round)
        buckets = self._buckets(task)
        assert firsts is not None
        before = shard.first
        pairs, likeness, tables = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
        for number in np.unique(firsts["table"]).tolist():
            here = firsts["table"] == number
            codes = buckets[f"codes-{number}"]
            low, high = (np.searchsorted(codes, firsts["code"][here], side) for side in ("left", "right"))
            star, place = _spread(low, high)
            member = shard.alive[buckets[f"order-{number}"][place]]
            which = np.flatnonzero(here)[star]
            other = firsts["row"][which] != before + member
            which, member = which[other], member[other]
            left = torch.from_numpy(firsts["rows"]), torch.from_numpy(firsts["scale"])
            found = cosines_between(left, which, (shard.table, shard.scale), member)
            near = found >= self.least
            likeness.append(found[near])
            pairs.append(np.stack([firsts["row"][which[near]], before + member[near]], axis=1))
            tables.append(np.full(int(near.sum()), number))
        return {"pairs": np.concatenate(pairs), "near": np.concatenate(likeness), "table": np.concatenate(tables)}

    def _pairs(self, task: Task) -> dict[str, Any]:
        """Return the near pairs of two shards (or within one), in which table each met first, and how many met in each."""
        _, sketch = tables_of(self.place.work, task)
        one, other = self._opened(task.one, task.round), self._opened(task.other, task.round)
        left, right = self._buckets(task), self._buckets(task._replace(one=task.other))
        counts = np.zeros(task.n_tables, np.int64)
        pairs, near, table = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
        for number in range(task.n_tables):
            met = _met(left[f"codes-{number}"], right[f"codes-{number}"], itself=task.one == task.other)
            for mine, theirs in met:
                mine, theirs = left[f"order-{number}"][mine], right[f"order-{number}"][theirs]
                may_be = np.bitwise_count(left["bits"][mine] ^ right["bits"][theirs]) <= sketch.most
                mine, theirs = one.alive[mine[may_be]], other.alive[theirs[may_be]]
                found = cosines_between((one.table, one.scale), mine, (other.table, other.scale), theirs)
                good = found >= self.least
                counts[number] += int(good.sum())
                pairs.append(np.stack([mine[good], theirs[good]], axis=1))
                near.append(found[good])
                table.append(np.full(int(good.sum()), number))
            if is_crowd(n_found=int(counts.sum()), n_rows=one.n_alive):
                break  # nobody looks at later tables then
        both = np.concatenate(pairs)
        _, first = np.unique(
            both @ np.array([len(other.table), 1]), return_index=True
        )  # the first is of the earliest table
        both = both[first] + np.array([one.first, other.first])
        return {
            "pairs": both,
            "near": np.concatenate(near)[first],
            "table": np.concatenate(table)[first],
            "counts": counts,
        }

    def _buckets(self, task: Task) -> dict[str, npt.NDArray[Any]]:
        found = loaded(file_of(self.place.work, Task("codes", task.one, round=task.round, part=task.part)))
        assert found is not None
        return found

    def _opened(self, shard: int, number: int) -> _Shard:
        rows = loaded(file_of(self.place.work, Task("rows", shard)))
        alive = loaded(self.place.work / f"alive-{number}-{shard}.npz")
        assert rows is not None
        assert alive is not None
        scale = torch.from_numpy(rows["scale"])
        return _Shard(self.place.matrix(shard), scale, alive["alive"], int(alive["n_alive"]), int(alive["first"]))


class _Shard(NamedTuple):
    """A shard's rows, one over their norms, which of them are compared, how many of all shards are, and its first one's number."""

    table: Tensor
    scale: Tensor
    alive: Ints
    n_alive: int
    first: int


def tables_of(work: Path, task: Task) -> tuple[tuple[Cuts, ...], Sketch]:
    """Return the tables of a part of a round, as the driver drew them, and the sketch."""
    path = work / f"tables-{task.round}-{task.part}.npz"
    return _held_tables(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _held_tables(path: Path, _: int) -> tuple[tuple[Cuts, ...], Sketch]:
    held = loaded(path)
    assert held is not None
    tensors = {name: torch.from_numpy(values) for name, values in held.items()}
    each = tuple(Cuts(*both) for both in zip(tensors["directions"], tensors["at"], strict=True))
    return each, Sketch(Cuts(tensors["sketch"], tensors["sketch_at"]), int(tensors["most"]))


def _met(left: npt.NDArray[np.int32], right: npt.NDArray[np.int32], *, itself: bool) -> Iterator[tuple[Ints, Ints]]:
    """Yield the places of pairs with one code in two sorted lists, or the same one, a million at a time."""
    low = np.arange(1, len(left) + 1) if itself else np.searchsorted(right, left, "left")
    high = np.searchsorted(right, left, "right")
    ends = np.cumsum(high - low)
    start = 0
    while start < len(left):
        before = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, before + _AT_ONCE, "right")), start + 1)
        one, other = _spread(low[start:stop], high[start:stop])
        if len(one):
            yield one + start, other
        start = stop


def _spread(low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """Return the number of each range, again for each place in it, and the places.

    >>> _spread(np.array([4, 9]), np.array([6, 10]))
    (array([0, 0, 1]), array([4, 5, 9]))
    """
    sizes = high - low
    which = np.repeat(np.arange(len(low)), sizes)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + low[which]
