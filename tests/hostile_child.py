"""One crafted file, one process with limits and a canary: what does the loader do with it?

The child is forked from a process that has everything imported, so it costs milliseconds. What it may use more than it starts with
is bounded; a call of a command, the canary's import and a file that it opens to write outside of its folder are told.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canary import MODULE, STARTS
from prunus.core.errors import PrunusError

MORE_BYTES = 500 * 2**20
CPU_SECONDS = 6
"""The promise is 2; on a machine that is shared, processor time is up to three times as much."""
WALL_SECONDS = 60


@dataclass(frozen=True)
class Outcome:
    """What came of one case: refused, accepted, ran code, crash, hang, internal error, noise or more than one line."""

    what: str
    text: str
    cpu_seconds: float = 0.0
    more_bytes: int = 0


def outcome_of(use: Callable[[Path], Any], folder: Path, cpu_seconds: int = CPU_SECONDS) -> Outcome:
    """Return what ``use(folder)`` does in a child."""
    reader, writer = os.pipe()
    said = folder.with_name(f"{folder.name}.said")
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            _child(use, folder, said, writer, cpu_seconds)
        finally:
            os._exit(3)
    os.close(writer)
    status = _wait(child)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return Outcome("hang" if name in ("SIGXCPU", "SIGKILL") else "crash", f"{name} {said.read_text()[-300:]}")
    if not told:
        return Outcome("crash", f"exit {os.WEXITSTATUS(status)} {said.read_text()[-300:]}")
    found = Outcome(**json.loads(told))
    noise = said.read_text()
    return Outcome("noise", noise[:300]) if noise and found.what in ("refused", "accepted") else found


def _wait(child: int) -> int:
    until = time.monotonic() + WALL_SECONDS
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _child(use: Callable[[Path], Any], folder: Path, said: Path, writer: int, cpu_seconds: int) -> None:
    handle = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    faulthandler.disable()  # a crash is told by its signal
    os.chdir(folder)
    (folder / f"{MODULE}.py").write_text("raise SystemExit('it ran')\n")
    touched: list[str] = []
    sys.addaudithook(lambda event, arguments: _watch(event, arguments, touched, folder))
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (pages + MORE_BYTES, pages + MORE_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("default")
    started = time.process_time()
    what, text = "accepted", ""
    try:
        use(folder)
    except PrunusError as error:
        text = str(error)
        what = (
            "refused"
            if "\n" not in text and len(text) < 2000 and "internal error" not in text
            else "more than one line"
        )
    except BaseException as error:
        what, text = "internal error", f"{type(error).__name__}: {error}"
    spent = time.process_time() - started
    if touched:
        what, text = "ran code", "; ".join(touched)
    sys.stdout.flush()
    sys.stderr.flush()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
    told = {"what": what, "text": text[:500], "cpu_seconds": spent, "more_bytes": max(grown, 0)}
    os.write(writer, json.dumps(told).encode("utf-8", "replace"))
    os._exit(0)


def _watch(event: str, arguments: tuple[Any, ...], touched: list[str], folder: Path) -> None:
    # A module that is imported by its name is first seen when its file is opened.
    if event in STARTS or (event in ("import", "open") and MODULE in str(arguments[0])):
        touched.append(f"{event} {arguments[0]}"[:200])
    elif (
        event == "open"
        and isinstance(arguments[0], str)
        and isinstance(arguments[1], str)
        and set(arguments[1]) & set("wax+")
    ):
        path = Path(arguments[0]).absolute()
        if folder not in path.parents and not str(path).startswith(("/dev/", "/proc/")):
            touched.append(f"writes {path}"[:200])
