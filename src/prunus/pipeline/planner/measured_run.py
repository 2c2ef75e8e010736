"""What does each stage of one run take, measured from inside of its process?

Started as ``python -m prunus.pipeline.planner.measured_run RECIPE.json FACTS.json``. Memory is what no file on a disk backs
(``RssAnon`` and ``RssShmem``, which is also what lies in a temporary folder that is itself memory): that is what a limit on memory
can't take back. Mapped files (``RssFile``) are told beside it: they count towards a limit, too, but the system drops them first.
Looked at every few milliseconds, by a thread.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

__all__ = ["Meter", "main"]

_EVERY_S = 0.005
START, REST = "start", "rest"
_AMOUNTS = ("seconds", "cpu_seconds", "peak_bytes", "mapped_bytes")


class Meter:
    """Listens to a run, and says of each stage the seconds, the processor's seconds, and the most memory held and mapped."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}
        self.scratch_bytes = 0
        self._stage = START
        self._clock, self._cpu = 0.0, 0.0
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._turn(REST)
        self._done.set()
        self._thread.join()

    def __call__(self, event: Any) -> None:
        """Hear of an event of the run."""
        if event.kind == "start":
            self._turn(event.stage)
        elif event.kind == "end":
            self._turn(REST)

    def _turn(self, stage: str) -> None:
        clock, cpu = time.perf_counter(), time.process_time()
        with self._lock:
            one = self._look()
            if self._stage != START:
                one["seconds"] += clock - self._clock
                one["cpu_seconds"] += cpu - self._cpu
            else:
                one["seconds"], one["cpu_seconds"] = _age_s(), cpu
            self._stage, self._clock, self._cpu = stage, clock, cpu

    def _look(self) -> dict[str, float]:
        one = self.stages.setdefault(self._stage, dict.fromkeys(_AMOUNTS, 0.0))
        held, mapped = memory_bytes(Path("/proc/self/status"))
        one["peak_bytes"], one["mapped_bytes"] = max(one["peak_bytes"], held), max(one["mapped_bytes"], mapped)
        return one

    def _watch(self) -> None:
        turn = 0
        while not self._done.wait(_EVERY_S):
            with self._lock:
                self._look()
            turn += 1
            if turn % 20 == 0:
                self.scratch_bytes = max(self.scratch_bytes, _nameless_bytes())


def memory_bytes(status: Path) -> tuple[float, float]:
    """Return how much memory a process has that no file on a disk backs, and how much is mapped from such files."""
    lines = (line.split() for line in status.read_text().splitlines() if line.startswith("Rss"))
    found = {name: float(n) * 1024 for name, n, *_ in lines}
    return found.get("RssAnon:", 0.0) + found.get("RssShmem:", 0.0), found.get("RssFile:", 0.0)


def _nameless_bytes() -> int:
    """Return how large the files without a name are that this process has mapped: its scratch on disk."""
    total, folder = 0, tempfile.gettempdir()
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith("(deleted)") and folder in line:
            first, last = (int(part, 16) for part in line.split()[0].split("-"))
            total += last - first
    return total


def _age_s() -> float:
    """Return how long this process has been there."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    import os

    return float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def main(recipe_path: str, facts_path: str) -> None:
    """Run a recipe and write what its stages took."""
    from prunus.core.recipes.recipe import Recipe
    from prunus.pipeline.flow.main_job import run

    recipe = Recipe.model_validate_json(Path(recipe_path).read_text(encoding="utf-8"))
    with Meter() as meter:
        run(recipe, overwrite=True, listener=meter)
    facts = {"stages": meter.stages, "scratch_bytes": meter.scratch_bytes}
    Path(facts_path).write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
