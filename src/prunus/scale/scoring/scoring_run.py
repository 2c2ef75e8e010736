"""How are all shards of a data set scored so that one that is damaged, or a kill, costs no other?

Each shard has a file of scores of its own, written in one step, and a state in the output folder says of which source and with
which settings it is. A run that goes on keeps what is there as it was written, and does the rest: the files are the same, bit for
bit. At a URL, what the store says of an object stands for its bytes: none is read again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prunus.core.errors import DataError, OutputError, RecipeError
from prunus.core.events import Event, Listener, silent
from prunus.core.files.plain_files import clear_leftovers, folder_lock
from prunus.core.files.urls.store import refused_as
from prunus.core.files.urls.url_path import path_at
from prunus.core.text import plain
from prunus.data import row_files_of
from prunus.scale.dispatch import Dispatch, Failure, Files, map_shards, reach_workers
from prunus.scale.scoring.score_shard import Scorer, ShardFacts, score_shard
from prunus.scale.scoring.scoring_state import RECENT, STATE, ScoringState

__all__ = ["ShardsScored", "score_shards", "shards_of"]

_STAGE = "score shards"


@dataclass(frozen=True)
class ShardsScored:
    """What was done: ``rows`` of all shards that are done, ``seconds`` of this call; why those that ``failed`` did."""

    shards: int
    shards_resumed: int
    rows: int
    seconds: float
    failed: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self) | {"failed": dict(self.failed)}

    def __str__(self) -> str:
        before = f", {self.shards_resumed} of them before" if self.shards_resumed else ""
        return f"{self.rows:,} rows of {self.shards} shards scored{before}, in {self.seconds:.1f} s"


class _Work:
    """Scores one shard; what scores is opened once in each process."""

    def __init__(self, open_scorer: Callable[[], Scorer], batch_rows: int, keep: tuple[str, ...]) -> None:
        self.open_scorer, self.batch_rows, self.keep = open_scorer, batch_rows, keep
        self._scorer: Scorer | None = None

    def __call__(self, task: tuple[Path, Path]) -> ShardFacts:
        if self._scorer is None:
            self._scorer = self.open_scorer()
        return score_shard(*task, self._scorer, batch_rows=self.batch_rows, keep=self.keep)


def score_shards(
    shards: Sequence[Path],
    output: Path,
    open_scorer: Callable[[], Scorer],
    *,
    settings: Mapping[str, Any],
    keep: tuple[str, ...] = (),
    batch_rows: int = 65536,
    backend: Dispatch | str = "local",
    workers: int | None = None,
    retries: int = 2,
    resume: bool = False,
    reads: Sequence[Path] = (),
    listener: Listener = silent,
) -> ShardsScored:
    """Write a file of scores to ``output`` for each shard, under the shard's name, and go on where one can't be scored.

    Args:
        shards: files, or folders whose files are meant (those that end like data).
        open_scorer: returns what scores; called once in each process, so it must be possible to pickle it.
        settings: what the scores hang on, as plain values: a run with others isn't gone on with.
        keep: columns that are copied, such as an id.
        backend: who scores (``scale.dispatch``); the scores are the same to the bit.
        workers: so many shards at once; None: as ``backend`` says, or one.
        reads: what is opened beside the shards, such as a bundle: a machine of a cluster that doesn't see it is named.

    Raises:
        DataError: no such file, or two of one name.
        OutputError: ``output`` isn't empty and ``resume`` isn't given, it is of another run, or it can't be written.
        RunError: the cluster doesn't answer, or runs other versions.
    """
    if batch_rows < 1:
        raise RecipeError(f"expected batch_rows >= 1: got {batch_rows}")
    start = time.perf_counter()
    output = path_at(output)
    files = shards_of([path_at(shard) for shard in shards])
    with reach_workers(backend, workers), folder_lock(output):
        clear_leftovers(output)
        state = ScoringState(output, {**settings, "keep": list(keep), "batch_rows": batch_rows})
        with refused_as(OutputError):
            there = {path.name: path for path in output.iterdir()} if output.exists() else {}
        held = sorted(there.keys() - {".lock", STATE, RECENT})
        if STATE in there:
            if not resume:
                raise OutputError(f"{output} holds a run of this kind: go on with --resume, or choose another folder")
            state.read()
        elif held:
            raise OutputError(f"{output} isn't empty ({held[0]}): choose another folder")
        outputs = [(shard, output / f"{shard.stem}.parquet") for shard in files]
        tasks = [(shard, made) for shard, made in outputs if not state.holds(shard, there.get(made.name, made))]
        n_before = len(files) - len(tasks)
        state.write()
        failed: dict[str, str] = {}
        listener(Event("start", _STAGE, total=len(files)))
        work = _Work(open_scorer, batch_rows, keep)
        seen = Files((*reads, *(shard for shard, _ in tasks)), (output,))
        answers = map_shards(
            work, tasks, backend=backend, workers=workers, retries=retries, files=seen, listener=listener
        )
        with ExitStack() as last:
            last.callback(clear_leftovers, output)  # of workers that were killed, or ended with their shard
            last.callback(answers.close)
            for n_done, (number, found) in enumerate(answers, n_before + 1):
                shard, made = tasks[number]
                if isinstance(found, Failure):
                    again = f" ({found.n_tries} tries)" if found.n_tries > 1 else ""
                    failed[str(shard)] = f"{found.message.removeprefix(f'{shard}: ')}{again}"
                    state.forget(made)
                    listener(Event("warning", _STAGE, f"{plain(str(shard))}: {failed[str(shard)]}"))
                else:
                    state.finish(shard, made, found)
                listener(Event("progress", _STAGE, done=n_done, total=len(files)))
        state.write()
        seconds = round(time.perf_counter() - start, 3)
        listener(Event("end", _STAGE, facts={"seconds": seconds}))
    order = {str(shard): place for place, shard in enumerate(files)}
    return ShardsScored(
        shards=len(files) - len(failed),
        shards_resumed=n_before,
        rows=state.n_rows(files),
        seconds=seconds,
        failed=dict(sorted(failed.items(), key=lambda item: order[item[0]])),
    )


def shards_of(given: Sequence[Path], *, images: bool = True) -> list[Path]:
    """Return the files that are meant, those of a folder by their names.

    Args:
        images: a folder of images stands for the folders of its classes.

    Raises:
        DataError: there is none, or two would have their scores under one name.
    """
    found = row_files_of(given, images=images)
    first: dict[str, Path] = {}
    for path in found:
        if first.setdefault(path.stem, path) != path:
            raise DataError(
                f"{first[path.stem]} and {path}: what is written of them would have one name; give them on their own"
            )
    return found
