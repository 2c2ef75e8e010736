"""Which rows of a data set are near-duplicates, when no memory holds it? Those that the search in memory finds.

Each shard's rows are put into buckets, and each two shards' rows that met there are compared: every step is a unit of work that
any worker does, and that is done when its file stands. Who stays for whom is decided here, from the pairs alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from prunus.core.errors import DataError, OutputError, RecipeError
from prunus.core.events import Event, Listener, silent
from prunus.core.files.file_hash import sha256_file
from prunus.core.files.plain_files import atomic_path, clear_leftovers, discard, folder_lock
from prunus.core.files.sealed import short_digest
from prunus.core.files.urls.url_path import is_url, path_at, refuse_url
from prunus.core.text import plain
from prunus.core.types import Ints
from prunus.data import print_of
from prunus.scale.dispatch import Dispatch, Files, open_workers, reach_workers
from prunus.scale.duplicates.bucket_units import Place, Task, Units, file_of, loaded
from prunus.scale.duplicates.components import components
from prunus.scale.duplicates.shard_rounds import STAGE, Rounds, done_units
from prunus.scale.own_folder import begun, note_end
from prunus.scale.scoring.score_shard import ShardFacts
from prunus.scale.scoring.scoring_run import shards_of
from prunus.scale.scoring.scoring_state import ScoringState
from prunus.score.examples.duplicates.keepers import Duplicates, keep_typical
from prunus.score.examples.duplicates.near_duplicates import ROUNDING, check_amounts

__all__ = ["STATE", "ShardDuplicates", "near_duplicates_shards"]

STATE, _WORK = ".prunus-duplicates.json", ".work"


@dataclass(frozen=True)
class ShardDuplicates:
    """What was found: how many rows there are, how many stay, and in how many groups those lie that aren't alone.

    ``recall`` is the measured share of pairs at the threshold that met. Where shards ``failed``, nothing was looked for yet.
    """

    shards: int
    rows: int
    kept: int
    groups: int
    recall: float
    seconds: float
    failed: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self) | {"failed": dict(self.failed)}

    def __str__(self) -> str:
        if self.failed:
            return f"{self.shards} shards were read, {len(self.failed)} can't be"
        return (
            f"{self.rows - self.kept:,} of {self.rows:,} rows are near-duplicates of one that stays, in {self.groups:,} groups "
            f"({self.shards} shards, recall {self.recall:.3f}, {self.seconds:.1f} s)"
        )


def near_duplicates_shards(
    shards: Sequence[Path],
    output: Path,
    *,
    cosine: float = 0.99,
    recall: float = 0.99,
    seed: int = 0,
    columns: Sequence[str] | None = None,
    backend: Dispatch | str = "local",
    workers: int | None = None,
    retries: int = 2,
    resume: bool = False,
    work: Path | None = None,
    listener: Listener = silent,
) -> ShardDuplicates:
    """Write to ``output``, for each shard under its name, which row stands for each of its rows; return what was found.

    The answer is that of ``score.near_duplicates`` for the rows one below the other, for any workers. A file has a row per row:
    ``row``, ``shard``, ``group`` (the number of its first row, counted through all shards), ``representative`` and
    ``representative_shard`` (the row that stays for it), ``similarity`` (their cosine) and ``stays``.

    Args:
        shards: files, or folders whose files are meant; ``.npy`` matrices are mapped as they lie, others, and those at URLs, copied
            first.
        cosine: the least similarity of duplicates, in (0, 1].
        recall: the share of pairs at the threshold to find, in (0, 1).
        seed: of the random cuts.
        columns: one that holds an array per row, or several that hold a number each; None: the only one that holds arrays.
        backend: who works (``scale.dispatch``).
        resume: go on with what was stopped in ``output``, or read what was finished there.
        work: a folder that all workers see, for what is kept on the way; default: one in ``output``; where that is a URL, one of
            this machine that goes with the call, so that what was stopped begins anew.

    Raises:
        DataError: no such file, two of one name, or shards of different widths.
        OutputError: ``output`` holds something else, or such a run and ``resume`` isn't given, or it can't be written.
        RecipeError: a threshold or share out of its range; a URL as ``work``, or as ``output`` of a cluster without ``work``.
        RunError: a unit of the work can't be done, or the cluster doesn't answer.
    """
    check_amounts(cosine, recall)
    start = time.perf_counter()
    output = path_at(output)
    files = tuple(shards_of([path_at(shard) for shard in shards], images=False))
    own = None if columns is None else tuple(columns)
    asked = {
        "cosine": cosine,
        "recall": recall,
        "seed": seed,
        "columns": own,
        "torch": torch.__version__,
        "shards": [str(shard) for shard in files],
    }
    least = cosine - ROUNDING
    with ExitStack() as stack:
        place = Place(files, own, _work_folder(output, work, asked, backend, stack))
        stack.enter_context(reach_workers(backend, workers))
        stack.enter_context(folder_lock(output))
        before = begun(output, STATE, asked, resume=resume)
        if before:
            _check_unchanged(files, before["prints"], "choose another folder")
            if place.work.is_dir():  # stopped between the end and this
                discard(place.work)
            return ShardDuplicates(**before["found"], failed={})
        place.work.mkdir(parents=True, exist_ok=True)
        if work is not None:  # the lock of an output at a URL holds nobody
            stack.enter_context(folder_lock(place.work))
        clear_leftovers(place.work)
        _forget_changed(place)
        told: dict[str, Any] = {"backend": backend, "workers": workers, "retries": retries, "listener": listener}
        told["files"] = Files(files, (place.work,))
        opened = stack.enter_context(open_workers(Units(place, least), **told))
        listener(Event("start", STAGE))
        tasks = [Task("rows", shard) for shard in range(len(files))]
        failed = done_units(place, tasks, opened, "rows of shards", listener)
        if failed:
            why = {
                str(files[task.one]): message.removeprefix(f"{files[task.one]}: ") for task, message in failed.items()
            }
            for shard, message in why.items():
                listener(Event("warning", STAGE, f"{plain(shard)}: {message}"))
            seconds = round(time.perf_counter() - start, 3)
            listener(Event("end", STAGE, facts={"seconds": seconds}))
            return ShardDuplicates(len(files) - len(why), 0, 0, 0, 0.0, seconds, why)
        ends, scale, prints = _sizes(place)
        rounds = Rounds(place, ends, scale, least, recall, seed, opened, listener)
        found = keep_typical(scale > 0, rounds.near_pairs, rounds.cosines, least)
        n = int(ends[-1])
        links = np.stack([np.arange(n), found.keeper], axis=1)[~found.kept]
        group = components(n, np.concatenate([*rounds.found, links]))
        _check_unchanged(files, prints, "--resume looks through it anew")
        _write_tables(place, output, ends, found, group)
        sizes = np.bincount(group, minlength=n)
        facts: dict[str, Any] = {
            "shards": len(files),
            "rows": n,
            "kept": int(found.kept.sum()),
            "groups": int((sizes > 1).sum()),
            "recall": found.recall,
            "seconds": round(time.perf_counter() - start, 3),
        }
        note_end(output, STATE, asked, {"found": facts, "prints": prints})
        discard(place.work)
        listener(Event("end", STAGE, facts={"seconds": facts["seconds"]}))
    return ShardDuplicates(**facts, failed={})


def _work_folder(
    output: Path, work: Path | None, asked: Mapping[str, Any], backend: Dispatch | str, stack: ExitStack
) -> Path:
    """Return where units keep their results; another search's, below the same ``work``, are elsewhere."""
    if work is not None:
        refuse_url(
            work, "the folder of what is kept on the way", "rows are compared many times: give one of this machine"
        )
        return Path(work) / f"duplicates-{short_digest({**asked, 'output': str(output)})[:12]}"
    if not is_url(output):
        return output / _WORK
    if "ray" in (backend, getattr(backend, "backend", "")):
        raise RecipeError(
            f"workers of a cluster keep results on the way in a folder that all of them see: got the output {output}, which is a "
            "URL; name such a folder with --work"
        )
    return Path(stack.enter_context(TemporaryDirectory(prefix="prunus-"))) / _WORK


def _sizes(place: Place) -> tuple[Ints, npt.NDArray[np.float32], list[str]]:
    """Return behind which row of all each shard ends, one over each row's norm, and the print of what was read of each shard.

    Raises:
        DataError: shards of different widths.
    """
    lengths, scales, prints, width = [], [], [], None
    for number, shard in enumerate(place.shards):
        held = loaded(file_of(place.work, Task("rows", number)))
        assert held is not None
        n, own = held["shape"].tolist()
        width = own if width is None else width
        if own != width:
            raise DataError(f"{shard}: expected {width} numbers per row, as in {place.shards[0]}: got {own}")
        lengths.append(n)
        scales.append(held["scale"])
        prints.append(str(held["print"]))
    return np.cumsum(lengths), np.concatenate(scales), prints


def _forget_changed(place: Place) -> None:
    """Remove what is kept of shards that were changed since, and of all rounds, since those hang on every shard.

    A shard without whole rows counts as changed: whoever removed them may have been stopped before the rounds were gone.
    """
    changed = False
    for number, shard in enumerate(place.shards):
        path = file_of(place.work, Task("rows", number))
        held = loaded(path)
        if held is None or str(held["print"]) != print_of(shard):
            path.unlink(missing_ok=True)
            changed = True
    for path in place.work.iterdir() if changed else ():
        if not path.name.startswith(("rows-", "matrix-", ".")):
            path.unlink()


def _check_unchanged(files: Sequence[Path], prints: Sequence[str], way: str) -> None:
    for shard, before in zip(files, prints, strict=True):
        if print_of(shard) != before:
            raise OutputError(f"{shard} was changed since the search that the output folder holds was begun: {way}")


def _write_tables(place: Place, output: Path, ends: Ints, found: Duplicates, group: Ints) -> None:
    """Write a file for each shard, and the state by which its rows are known to those who choose rows by scores."""
    names = [shard.stem for shard in place.shards]
    state = ScoringState(output, {"of": "near-duplicates"})
    for path in state.paths if is_url(output) else ():  # of a call that was stopped here
        path.unlink()
    state.write()
    home = np.searchsorted(ends, found.keeper, side="right")
    firsts = ends - np.diff(ends, prepend=0)
    for number, shard in enumerate(place.shards):
        own = slice(int(firsts[number]), int(ends[number]))
        n = own.stop - own.start
        columns = {
            "row": np.arange(n),
            "shard": pa.DictionaryArray.from_arrays(np.full(n, 0, np.int32), [names[number]]),
            "group": group[own],
            "representative": found.keeper[own] - firsts[home[own]],
            "representative_shard": pa.DictionaryArray.from_arrays(home[own].astype(np.int32), names),
            "similarity": found.similarity[own],
            "stays": found.kept[own],
        }
        path = output / f"{names[number]}.parquet"
        with atomic_path(path) as temporary:
            pq.write_table(pa.table(columns), temporary, compression="zstd", compression_level=1)
            sha256 = sha256_file(temporary) if is_url(path) else ""
        state.finish(shard, path, ShardFacts(n, tuple(columns), sha256))
    state.write()
