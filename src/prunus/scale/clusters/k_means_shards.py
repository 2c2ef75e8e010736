"""Which rows lie together, of more than one memory or machine holds?

k-means as for rows in memory, shard by shard: each pass gives every shard's rows to their nearest centres, and adds up its sums.
Sums are merged in the shards' order, so the number of workers changes no bit. What a pass leaves stands in files of its own,
written in one step: a shard that is done again, because who had it was lost, finds what it found the first time, and a run that
was stopped goes on with the pass that it was in.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunus.core.errors import DataError, RecipeError, RunError
from prunus.core.events import Event, Listener, silent
from prunus.core.files.plain_files import atomic_path, folder_lock
from prunus.scale.dispatch import Dispatch, Failure, Files, Workers, open_workers, reach_workers
from prunus.scale.mapped_matrix import mapped_matrix
from prunus.scale.own_folder import begun, note_end
from prunus.scale.scoring.scoring_state import seen_of
from prunus.score.examples.cover.k_means import (
    SETTLED,
    as_finite_table,
    beginning_rows,
    beginnings,
    cluster_sums,
    means_of,
    nearest_centre,
)

__all__ = ["ShardClusters", "k_means_shards"]

_STAGE = "k-means"
_STATE, _CENTRES = ".prunus-k-means.json", ".prunus-k-means-centres.npy"


@dataclass(frozen=True, eq=False)
class ShardClusters:
    """The centres ``(clusters, features)``, and where each shard's clusters stand: an array of one number per row."""

    centres: Tensor
    files: tuple[Path, ...]
    n_rows: int
    n_passes: int


class Task(NamedTuple):
    """A shard, the centres, and where its clusters of the last pass stand, and those of this one shall."""

    shard: Path
    centres: Path
    before: Path | None
    after: Path


class Sums(NamedTuple):
    """The sum of the rows of each cluster, how many they are, and how many rows are in another cluster than before."""

    total: npt.NDArray[np.float64]
    n_rows: npt.NDArray[np.int64]
    n_changed: int


def k_means_shards(
    shards: Sequence[Path],
    n_clusters: int,
    output: Path,
    *,
    seed: int = 0,
    max_passes: int = 25,
    backend: Dispatch | str = "local",
    workers: int | None = None,
    resume: bool = False,
    listener: Listener = silent,
) -> ShardClusters:
    """Return the clusters of all rows of the shards; they are those of ``k_means`` on the rows one below the other, up to rounding.

    Args:
        shards: ``.npy`` files, each ``(rows, features)``; they are mapped into memory, never read into it.
        output: a folder, empty or not there: ``NAME.npy`` for each shard gets the clusters of its rows.
        backend: who works (``scale.dispatch``).
        resume: go on with what was stopped in ``output``, or read what was finished there.

    Raises:
        DataError: a shard is no matrix of finite numbers, has other features than the first one, or another's name.
        OutputError: ``output`` holds something else, or such a run and ``resume`` isn't given.
        RecipeError: more clusters than rows, or fewer than one.
        RunError: a shard can't be done, of which the first one's error is told; or the cluster doesn't answer.
    """
    lengths = _lengths(shards)
    n = sum(lengths)
    if not 1 <= n_clusters <= n:
        raise RecipeError(f"{n} rows make 1 to {n} clusters: got {n_clusters}")
    asked = {"n_clusters": n_clusters, "seed": seed, "max_passes": max_passes, "shards": list(map(seen_of, shards))}
    with reach_workers(backend, workers), folder_lock(output), ExitStack() as stack:
        before = begun(output, _STATE, asked, resume=resume)
        files = tuple(output / f"{shard.stem}.npy" for shard in shards)
        if before and all(file.exists() for file in files):
            _tidy(output)
            return ShardClusters(torch.from_numpy(np.load(output / _CENTRES)), files, n, before["n_passes"])
        first = _stopped_in(output, shards)
        if first:
            centres = torch.from_numpy(np.load(_centres(output, first)))
        else:
            centres = beginnings(_rows(shards, lengths, beginning_rows(n, n_clusters, seed)), n_clusters)
        seen = Files(tuple(shards), (output,))
        opened = stack.enter_context(
            open_workers(one_pass, backend=backend, workers=workers, files=seen, listener=listener)
        )
        listener(Event("start", _STAGE, total=max_passes))
        settled, number = False, max_passes
        for number in range(max(first, 1), max_passes + 1):
            found = _passed(opened, shards, output, centres, number)
            n_changed = sum(one.n_changed for one in found)
            listener(Event("progress", _STAGE, f"{n_changed} rows changed their cluster", number, max_passes))
            settled = n_changed <= SETTLED * n and number > 1
            if settled:
                break
            total, count = np.sum([one.total for one in found], axis=0), np.sum([one.n_rows for one in found], axis=0)
            centres = means_of(torch.from_numpy(total), torch.from_numpy(count), centres)
        if not settled:
            _passed(opened, shards, output, centres, max_passes + 1)
        last = number if settled else max_passes + 1
        for shard, file in zip(shards, files, strict=True):
            _file(output, shard, last).replace(file)
        _save(output / _CENTRES, centres.numpy())
        note_end(output, _STATE, asked, {"n_passes": number})
        _tidy(output)
        listener(Event("end", _STAGE))
    return ShardClusters(centres, files, n, number)


def one_pass(task: Task) -> Sums:
    """Give a shard's rows to their nearest centres, keep that in a file, and return the sums of each centre's rows."""
    table, centres = torch.from_numpy(mapped_matrix(task.shard)), torch.from_numpy(np.load(task.centres))
    if task.before is None:
        as_finite_table(table)
    cluster, _ = nearest_centre(table, centres)
    before = np.full(len(table), -1) if task.before is None else np.load(task.before)
    total, count = cluster_sums(table, cluster, len(centres))
    _save(task.after, cluster)
    return Sums(total.numpy(), count.numpy(), int(np.count_nonzero(cluster != before)))


def _passed(
    opened: Workers[Task, Sums], shards: Sequence[Path], output: Path, centres: Tensor, number: int
) -> list[Sums]:
    """Return what one pass gave, in the shards' order, and forget the files of the pass before the last one."""
    held = _centres(output, number)
    _save(held, centres.numpy())
    tasks = [
        Task(shard, held, None if number == 1 else _file(output, shard, number - 1), _file(output, shard, number))
        for shard in shards
    ]
    found: dict[int, Sums] = {}
    for place, answer in opened.map(tasks):
        if isinstance(answer, Failure):
            raise RunError(f"{shards[place]}: {answer.message.removeprefix(f'{shards[place]}: ')}")
        found[place] = answer
    for shard in shards:
        _file(output, shard, number - 2).unlink(missing_ok=True)
    return [found[place] for place in range(len(shards))]


def _tidy(output: Path) -> None:
    """Remove what passes left, now that the end is noted."""
    for path in (*output.glob(".pass-*.npy"), *output.glob(".centres-*.npy")):
        path.unlink(missing_ok=True)


def _stopped_in(output: Path, shards: Sequence[Path]) -> int:
    """Return the pass that a run was stopped in, if all that it needs of the pass before is there; else 0."""
    found = [int(path.stem.removeprefix(".centres-")) for path in output.glob(".centres-*.npy")]
    last = max(found, default=0)
    needed = shards if last > 1 else ()
    return last if all(_file(output, shard, last - 1).exists() for shard in needed) else 0


def _centres(output: Path, number: int) -> Path:
    return output / f".centres-{number}.npy"


def _file(output: Path, shard: Path, number: int) -> Path:
    return output / f".pass-{number}-{shard.stem}.npy"


def _save(path: Path, values: npt.NDArray[Any]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, values)


def _lengths(shards: Sequence[Path]) -> list[int]:
    first: dict[str, Path] = {}
    lengths, width = [], None
    for shard in shards:
        if first.setdefault(shard.stem, shard) != shard:
            raise DataError(f"{first[shard.stem]} and {shard}: their clusters would have one name; rename one")
        table = mapped_matrix(shard)
        width = table.shape[1] if width is None else width
        if table.shape[1] != width:
            raise DataError(f"{shard}: expected {width} features, as in {shards[0]}: got {table.shape[1]}")
        lengths.append(len(table))
    return lengths


def _rows(shards: Sequence[Path], lengths: Sequence[int], numbers: npt.NDArray[np.int64]) -> Tensor:
    """Return the rows of these numbers, counted through all shards, in the numbers' order."""
    ends = np.cumsum(lengths)
    where = np.searchsorted(ends, numbers, side="right")
    rows: npt.NDArray[np.float32] | None = None
    for place in np.unique(where):
        table, mine = mapped_matrix(shards[place]), where == place
        if rows is None:
            rows = np.empty((len(numbers), table.shape[1]), np.float32)
        rows[mine] = table[numbers[mine] - (ends[place] - lengths[place])]
    assert rows is not None
    return torch.from_numpy(rows)
