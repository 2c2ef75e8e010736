"""Where does an accident take place: which files are scored, by whom, and what did a run leave?

A run is a process of its own. ``seen_of`` says all that it left; a pause per batch makes room for accidents.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispatch_load import Opens, Slowly, hash_of

from prunus.core.errors import OutputError, PrunusError
from prunus.scale import score_shards
from prunus.scale.dispatch import Dispatch
from prunus.scale.scoring.scoring_state import RECENT, STATE, read_done

__all__ = ["HEAVY_BYTES", "N_ROWS", "N_SHARDS", "WORKERS", "Bench", "children", "done", "run", "said"]

N_SHARDS, N_ROWS, BATCH_ROWS, PAUSE = 40, 5_000, 500, 0.05
WORKERS = 2
HEAVY_BYTES = 300_000
"""So large a function goes to a cluster's workers through its object store."""


@dataclass
class Bench:
    """The folders of a run, the cluster that it is to use, and the draw that says when something happens."""

    folder: Path
    draw: random.Random
    whole: str = ""
    address: str | None = None
    cluster: Any = None

    @property
    def shards(self) -> Path:
        """The files that are scored."""
        return self.folder / "shards"

    @property
    def output(self) -> Path:
        """Where the scores go."""
        return self.folder / "output"

    @property
    def marks(self) -> Path:
        """A file for each time that a shard was begun."""
        return self.folder / "marks"

    def fresh(self, seed: str) -> None:
        """Forget the last run, and draw the next accident from a seed of its own."""
        self.draw = random.Random(seed)
        for folder in (self.output, self.marks):
            shutil.rmtree(folder, ignore_errors=True)
        self.marks.mkdir()

    def started(self, *, heavy: bool = False, pause: float = PAUSE) -> subprocess.Popen[str]:
        """Return a run in a process of its own; ``heavy``: its function is large; ``pause``: seconds after each batch."""
        command = [sys.executable, str(Path(__file__).with_name("faults.py")), "--run"]
        command += [
            *map(str, (self.shards, self.output, self.marks)),
            self.address or "",
            str(HEAVY_BYTES * heavy),
            str(pause),
        ]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def at_a_moment(self) -> int:
        """Wait until as many shards as are drawn are done and all workers are at work, and a bit more; return how many are done."""
        n = self.draw.randrange(1, N_SHARDS - 8)
        while done(self.output) < n or len(self._begun()) < WORKERS:
            time.sleep(0.01)
        time.sleep(self.draw.random() * N_ROWS / BATCH_ROWS * PAUSE)
        return done(self.output)

    def resumed(self, *, heavy: bool = False) -> dict[str, Any]:
        """Go on with what there is, in a process of its own; return what it says."""
        return said(self.started(heavy=heavy))

    def begun_again(self) -> int:
        """Return how many times a shard was begun that had been begun before."""
        return sum(n - 1 for n in Counter(path.name.partition("-")[0] for path in self.marks.iterdir()).values())

    def is_whole(self) -> bool:
        """Tell whether the scores are the undisturbed run's, byte for byte, and nothing else lies beside them."""
        names = {path.name for path in self.output.iterdir()} - {STATE, RECENT, ".lock"}
        return (
            names == {f"part-{number:04d}.parquet" for number in range(N_SHARDS)} and hash_of(self.output) == self.whole
        )

    def at_work(self) -> list[int]:
        """Return the ids of the processes that have a shard right now."""
        finished = names_done(self.output)
        return sorted(pid for pid, numbers in self._begun().items() if any(name not in finished for name in numbers))

    def _begun(self) -> dict[int, list[str]]:
        """Return for each process the names of the scores that it began."""
        found: dict[int, list[str]] = {}
        for path in self.marks.iterdir():
            number, pid, _ = path.name.split("-", 2)
            found.setdefault(int(pid), []).append(f"part-{int(number):04d}.parquet")
        return found


def run(
    shards: Path, output: Path, marks: Path, address: str | None, ballast: int = 0, pause: float = PAUSE
) -> dict[str, Any]:
    """Score the shards by two workers here, or on the cluster at an address; return what was done."""
    dispatch = Dispatch(workers=WORKERS)
    if address == "here":
        dispatch = Dispatch()
    elif address is not None:
        dispatch = Dispatch(backend="ray", workers=WORKERS, address=address)
    opens = heavy(Opens(Slowly, marks, pause), ballast)
    try:
        found = score_shards(
            [shards], output, opens, settings={}, batch_rows=BATCH_ROWS, backend=dispatch, resume=output.exists()
        )
    except OutputError as error:
        return {"stopped": str(error)}
    except PrunusError as error:
        return {"refused": str(error)}
    return found.to_dict()


def heavy(opens: Opens, n_bytes: int) -> Opens:
    """Return what opens the same scorer, and weighs so much more on its way to a worker."""
    vars(opens)["ballast"] = random.Random(0).randbytes(n_bytes)
    return opens


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what a run says at its end."""
    text, _ = process.communicate()
    return dict(json.loads(text)) if process.returncode == 0 else {"exit code": process.returncode}


def done(output: Path) -> int:
    """Return how many shards the run's state says are done."""
    return len(names_done(output))


def names_done(output: Path) -> set[str]:
    """Return the names of the scores that the run's state says are done."""
    try:
        return set(read_done(output)[1])
    except OutputError:
        return set()


def children(parent: int) -> list[int]:
    """Return the ids of the processes that a process started and that live."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found
