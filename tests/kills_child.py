"""A process that does a job once undisturbed, and again with deaths at random moments; it tells what came of each.

Everything is imported once; each attempt is a fork of this process, which has one thread. A moment is so many events of the job,
and a random time after the last of them, of the processor: a busy machine doesn't let the job end before. The kernel ends it then
as by SIGKILL: no line of the job's runs any more.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # imported by some job later, and by every fork anew otherwise

from patience import PATIENCE_S
from prunus.core.events import Event, Listener
from prunus.core.recipes.recipe import Recipe
from prunus.pipeline import run
from prunus.search import search

__all__ = ["killed"]

JOBS: dict[str, Callable[..., Any]] = {"search": search, "run": run}
LONGEST_DELAY_S = 0.05


def killed(job: str, tree: dict[str, Any], folder: Path, *, n: int, seed: int) -> list[dict[str, Any]]:
    """Return for the undisturbed job, and for each of ``n`` moments, where it wrote and how often it was killed (``kills``)."""
    given = json.dumps({"job": job, "recipe": tree, "folder": str(folder), "n": n, "seed": seed})
    done = subprocess.run(
        [sys.executable, __file__], input=given, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def main() -> None:
    """Do it."""
    asked = json.load(sys.stdin)
    torch.set_num_threads(1)
    draw, folder = random.Random(asked["seed"]), Path(asked["folder"])

    def work(name: str, resume: bool, listener: Listener) -> None:
        recipe = Recipe.model_validate({**asked["recipe"], "output": str(folder / name)})
        JOBS[asked["job"]](recipe, resume=resume, listener=listener)

    n_events, _ = _attempt(lambda listener: work("whole", False, listener), None, 0.0)
    rows = [{"output": str(folder / "whole"), "kills": 0, "events": n_events}]
    for number in range(asked["n"]):
        # One moment in each part of the job; what goes on is killed once more.
        first = 1 + int((number + draw.random()) / asked["n"] * 0.9 * n_events)
        kills, resume = 0, False
        for after in (first, draw.randint(1, max(n_events // 3, 1)), None):
            name = f"killed{number}"
            delay_s = draw.random() * LONGEST_DELAY_S
            _, ended = _attempt(lambda listener, n=name, r=resume: work(n, r, listener), after, delay_s)
            kills, resume = kills + (not ended), True
            if ended:
                break
        rows.append({"output": str(folder / name), "kills": kills, "after": first})
    json.dump(rows, sys.stdout)


def _attempt(work: Callable[[Listener], None], after: int | None, delay_s: float) -> tuple[int, bool]:
    """Return how many events a fork told of, and whether it ended by itself; after so many it has so long to live."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        code, n = 1, 0
        try:
            os.close(reads)
            os.dup2(2, 1)

            def tell(_: Event) -> None:
                nonlocal n
                n += 1
                os.write(writes, b".")
                if n == after:
                    signal.signal(signal.SIGPROF, signal.SIG_DFL)
                    signal.setitimer(signal.ITIMER_PROF, max(delay_s, 1e-6))

            work(tell)
            code = 0
        except BaseException:  # it ends here, whatever it was
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writes)
    told = 0
    while more := os.read(reads, 4096):
        told += len(more)
    _, status = os.waitpid(child, 0)
    os.close(reads)
    was_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF
    assert was_killed or os.waitstatus_to_exitcode(status) == 0, f"the job failed: {status}"
    return told, not was_killed


if __name__ == "__main__":
    main()
