"""Which rows of all shards are near pairs, a round at a time? The same ones as of all rows in memory.

A round draws tables of buckets from a sample, has each shard's rows put into them, and each two shards' rows that met compared.
What decides when a round ends is counted over all shards, so the answer hangs on neither the workers nor who is done first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations_with_replacement, count, islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunus.core.errors import RunError
from prunus.core.events import Event, Listener
from prunus.core.types import Ints
from prunus.scale.dispatch import Failure, Workers
from prunus.scale.duplicates.bucket_units import Place, Task, file_of, is_whole, loaded, saved
from prunus.score.examples.duplicates.near_pairs import CROWD, FEW, all_pairs, cosines, is_crowd, sample_of
from prunus.score.examples.duplicates.random_cuts import Sketch, Table, draw_tables

__all__ = ["STAGE", "Rounds", "done_units"]

STAGE = "near-duplicates"
Near = npt.NDArray[np.float32]
_BLOCK = 65536
_TABLES_AT_ONCE = 8
"""Rows are read once for so many tables; where they crowd, few are looked through in vain."""
_MOST_CUTS = 24
"""A code has no more bits."""


class Rounds:
    """Finds the near pairs of the rows that are still compared, by any workers; it keeps all that it found.

    Args:
        ends: behind which row of all each shard ends.
        scale: one over each row's norm, of all shards.
    """

    def __init__(
        self,
        place: Place,
        ends: Ints,
        scale: Near,
        least: float,
        recall: float,
        seed: int,
        workers: Workers[Task, None],
        listener: Listener,
    ) -> None:
        self._place, self._ends, self._scale, self._least, self._recall, self._seed = (
            place,
            ends,
            scale,
            least,
            recall,
            seed,
        )
        self._workers, self._listener = workers, listener
        self._firsts = ends - np.diff(ends, prepend=0)
        self.found: list[Ints] = []

    def near_pairs(self, alive: Ints, number: int) -> tuple[Ints, Near, float, bool]:
        """Return what ``score``'s ``near_pairs`` does, of rows that are numbered through all shards."""
        found = self._few(alive) if len(alive) <= FEW else self._many(alive, number)
        self.found.append(found[0])
        return found

    def cosines(self, pairs: Ints) -> Near:
        """Return the cosine of each pair of rows."""
        found = [np.zeros(0, np.float32)]
        for start in range(0, len(pairs), _BLOCK):
            rows, place = np.unique(pairs[start : start + _BLOCK], return_inverse=True)
            found.append(cosines(self._rows(rows), self._scale_of(rows), place.reshape(-1, 2)))
        return np.concatenate(found)

    def _few(self, alive: Ints) -> tuple[Ints, Near, float, bool]:
        places = all_pairs(len(alive))
        near = cosines(self._rows(alive), self._scale_of(alive), places)
        return alive[places[near >= self._least]], near[near >= self._least], 1.0, False

    def _many(self, alive: Ints, number: int) -> tuple[Ints, Near, float, bool]:
        sample, random = sample_of(alive, (self._seed, number))
        here = self._rows(sample).float() * self._scale_of(sample)[:, None]
        sketch, tables = draw_tables(here, self._least, self._recall, len(alive), random)
        self._write_alive(alive, number)
        kept: list[tuple[Ints, Near]] = []
        total, met, crowded, over = 0, 0.0, False, False
        for part in count():
            some = list(islice(tables, _TABLES_AT_ONCE))
            if over or not some:
                break
            self._write_tables(some, sketch, number, part)
            stars, tasks, n_found = self._part(len(some), number, part, len(alive))
            last = -1
            for last, (_, met) in enumerate(some):
                n_stars = int((stars["table"] == last).sum())
                if is_crowd(n_stars=n_stars, n_rows=len(alive)):
                    crowded = over = True
                    break
                total += n_stars + int(n_found[last])
                over = met >= self._recall
                crowded = not over and is_crowd(n_found=total, n_rows=len(alive))
                over = over or crowded
                if over:
                    break
            kept.append(self._joined([stars, *map(self._read, tasks)], last))
        pairs, near = (np.concatenate(both) for both in zip(*kept, strict=True))
        n = int(self._ends[-1])
        code, first = np.unique(pairs @ np.array([n, 1]), return_index=True)
        return np.stack([code // n, code % n], axis=1), near[first], met, crowded

    def _part(
        self, n_tables: int, number: int, part: int, n_alive: int
    ) -> tuple[dict[str, npt.NDArray[Any]], list[Task], Ints]:
        """Have some tables looked through; return what is near first rows of crowded buckets, the tasks, and how many pairs met.

        Tables from the first one on in which rows crowd aren't looked through any further.
        """
        say, shards = f"round {number + 1}, part {part + 1}: ", range(len(self._ends))
        self._listener(Event("note", STAGE, f"round {number + 1}, part {part + 1}: {n_alive:,} rows are compared"))
        codes = [Task("codes", shard, round=number, part=part) for shard in shards]
        self._do(codes, f"{say}buckets of shards")
        stars = self._stars(n_tables, number, part, f"{say}crowded buckets of shards")
        n_stars = np.bincount(stars["table"], minlength=n_tables).tolist()
        crowds = [table for table, n in enumerate(n_stars) if is_crowd(n_stars=n, n_rows=n_alive)]
        asked = crowds[0] if crowds else n_tables
        tasks = [
            Task("pairs", *two, round=number, part=part, n_tables=asked)
            for two in combinations_with_replacement(shards, 2)
            if asked
        ]
        self._do(tasks, f"{say}pairs of shards")
        n_found = np.zeros(n_tables, np.int64)
        for task in tasks:
            n_found[:asked] += self._read(task)["counts"]
        return stars, tasks, n_found

    def _joined(self, parts: Iterable[Mapping[str, npt.NDArray[Any]]], last: int) -> tuple[Ints, Near]:
        pairs, near = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
        for held in parts:
            good = held["table"] <= last
            pairs.append(held["pairs"][good])
            near.append(held["near"][good])
        return np.concatenate(pairs), np.concatenate(near)

    def _stars(self, n_tables: int, number: int, part: int, say: str) -> dict[str, npt.NDArray[Any]]:
        """Return the near pairs of the first rows of buckets that crowd, and in which table each met."""
        firsts = self._crowded(n_tables, number, part)
        empty: dict[str, npt.NDArray[Any]] = {
            "pairs": np.zeros((0, 2), np.int64),
            "near": np.zeros(0, np.float32),
            "table": np.zeros(0, np.int64),
        }
        if not len(firsts["row"]):
            return empty
        saved(self._place.work / f"firsts-{number}-{part}.npz", firsts)
        tasks = [Task("stars", shard, round=number, part=part) for shard in range(len(self._ends))]
        self._do(tasks, say)
        found = list(map(self._read, tasks))
        return {name: np.concatenate([held[name] for held in found]) for name in empty}

    def _crowded(self, n_tables: int, number: int, part: int) -> dict[str, npt.NDArray[Any]]:
        """Return the table, the code and the first row of each bucket that crowds, counted over all shards."""
        table, code, row = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
        for place in range(n_tables):
            size = np.zeros(1 << _MOST_CUTS, np.int32)
            runs = []
            for shard in range(len(self._ends)):
                codes = self._bucket(shard, number, part, f"codes-{place}")
                starts = np.flatnonzero(np.diff(codes, prepend=-1))
                runs.append((codes[starts], starts))
                size[codes[starts]] += np.diff(starts, append=len(codes)).astype(np.int32)
            crowds = np.flatnonzero(size > CROWD).astype(np.int32)
            first = np.full(len(crowds), -1, np.int64)
            for shard, (held, starts) in enumerate(runs if len(crowds) else ()):
                at = np.minimum(np.searchsorted(held, crowds), len(held) - 1)
                new = (first < 0) & (held[at] == crowds) if len(held) else np.zeros(len(crowds), np.bool_)
                order = self._bucket(shard, number, part, f"order-{place}")
                first[new] = self._firsts[shard] + self._alive(shard, number)[order[starts[at[new]]]]
            table.append(np.full(len(crowds), place))
            code.append(crowds)
            row.append(first)
        rows = np.concatenate(row)
        values = self._rows(rows).float().numpy() if len(rows) else np.zeros((0, 0), np.float32)
        return {
            "table": np.concatenate(table),
            "code": np.concatenate(code),
            "row": rows,
            "rows": values,
            "scale": self._scale[rows],
        }

    def _write_tables(self, some: Sequence[Table], sketch: Sketch, number: int, part: int) -> None:
        """Write the tables of a part of a round for all who put rows into their buckets."""
        tensors = {
            "directions": torch.stack([cuts.directions for cuts, _ in some]),
            "at": torch.stack([cuts.at for cuts, _ in some]),
            "sketch": sketch.cuts.directions,
            "sketch_at": sketch.cuts.at,
            "most": torch.tensor(sketch.most),
        }
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        saved(self._place.work / f"tables-{number}-{part}.npz", arrays)

    def _write_alive(self, alive: Ints, number: int) -> None:
        """Write for each shard which of its rows a round compares."""
        edges = np.searchsorted(alive, np.concatenate([self._firsts, self._ends[-1:]]))
        for shard, first in enumerate(self._firsts):
            own = alive[edges[shard] : edges[shard + 1]] - first
            path = self._place.work / f"alive-{number}-{shard}.npz"
            saved(path, {"alive": own, "n_alive": np.array(len(alive)), "first": np.array(first)})

    def _do(self, tasks: Sequence[Task], say: str) -> None:
        """Have the units done whose results aren't there.

        Raises:
            RunError: one can't be; the first one's error is told.
        """
        failed = done_units(self._place, tasks, self._workers, say, self._listener)
        for task, message in failed.items():
            raise RunError(
                f"{self._place.shards[task.one]}: {message.removeprefix(f'{self._place.shards[task.one]}: ')}"
            )

    def _read(self, task: Task) -> dict[str, npt.NDArray[Any]]:
        found = loaded(file_of(self._place.work, task))
        if found is None:
            raise RunError(
                f"{file_of(self._place.work, task)} isn't as it was written: go on with --resume, which writes it anew"
            )
        return found

    def _bucket(self, shard: int, number: int, part: int, name: str) -> npt.NDArray[Any]:
        with np.load(
            file_of(self._place.work, Task("codes", shard, round=number, part=part)), allow_pickle=False
        ) as held:
            found: npt.NDArray[Any] = held[name]
        return found

    def _alive(self, shard: int, number: int) -> Ints:
        held = loaded(self._place.work / f"alive-{number}-{shard}.npz")
        assert held is not None
        return held["alive"]

    def _scale_of(self, rows: Ints) -> Tensor:
        return torch.from_numpy(self._scale[rows])

    def _rows(self, rows: Ints) -> Tensor:
        """Return rows by their numbers through all shards, in the numbers' order."""
        where = np.searchsorted(self._ends, rows, side="right")
        found: Tensor | None = None
        for shard in np.unique(where).tolist():
            table, mine = self._place.matrix(shard), torch.from_numpy(where == shard)
            some = table[torch.from_numpy(rows[where == shard] - self._firsts[shard])]
            if found is None:
                found = torch.empty(len(rows), table.shape[1], dtype=torch.float32)
            found[mine] = some.float()
        assert found is not None
        return found


def done_units(
    place: Place, tasks: Sequence[Task], workers: Workers[Task, None], say: str, listener: Listener
) -> dict[Task, str]:
    """Have the units done whose results aren't there, or aren't whole; return why others can't be, in the tasks' order."""
    left = [task for task in tasks if not is_whole(file_of(place.work, task))]
    failed: dict[Task, str] = {}
    n_before = len(tasks) - len(left)
    for n_done, (number, answer) in enumerate(workers.map(left), n_before + 1):
        if isinstance(answer, Failure):
            again = f" ({answer.n_tries} tries)" if answer.n_tries > 1 else ""
            failed[left[number]] = f"{answer.message}{again}"
        listener(Event("progress", STAGE, say, n_done, len(tasks)))
    return {task: failed[task] for task in left if task in failed}
