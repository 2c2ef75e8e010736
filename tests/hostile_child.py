"""Crafted files, a process with limits and a canary: what does the loader do with each?

The child is forked from a process that has everything imported; a fork of so much takes longer than most cases do, so a child takes
one case after the other until one ends it. What each may use more than it starts with
is bounded; a call of a command, the canary's import and a file that it opens to write outside of its folder are told.
"""

from __future__ import annotations

import faulthandler
import json
import math
import os
import resource
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canary import MODULE, STARTS
from patience import PATIENCE_S
from prunus.core.errors import PrunusError

MORE_BYTES = 500 * 2**20
CPU_SECONDS = 60
"""What is refused soon takes two of a quiet core at most, and what isn't takes hours: so many tell them apart on any machine."""


@dataclass(frozen=True)
class Outcome:
    """What came of one case: refused, accepted, ran code, crash, hang, internal error, noise or more than one line."""

    what: str
    text: str
    cpu_seconds: float = 0.0
    more_bytes: int = 0


Use = Callable[[Path], Any]


def outcome_of(use: Use, folder: Path, cpu_seconds: int = CPU_SECONDS) -> Outcome:
    """Return what ``use(folder)`` does in a child."""
    (found,) = outcomes_of([(use, folder)], cpu_seconds)
    return found


def outcomes_of(cases: Sequence[tuple[Use, Path]], cpu_seconds: int = CPU_SECONDS) -> list[Outcome]:
    """Return what each case does: one after the other in a child, and in a new child behind each that ends it."""
    found: list[Outcome] = []
    while len(found) < len(cases):
        found += _in_a_child(cases[len(found) :], cpu_seconds)
    return found


def _in_a_child(cases: Sequence[tuple[Use, Path]], cpu_seconds: int) -> list[Outcome]:
    """Return what came of the cases up to the one that ended the child, or of all."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            _child(cases, writer, cpu_seconds)
        finally:
            os._exit(3)
    os.close(writer)
    told: list[Outcome] = []
    with os.fdopen(reader, "rb") as pipe:
        for _, folder in cases:
            line = pipe.readline() if select.select([pipe], [], [], PATIENCE_S)[0] else b""
            if not line:
                break
            noise = _said(folder)
            one = Outcome(**json.loads(line))
            told.append(Outcome("noise", noise[:300]) if noise and one.what in ("refused", "accepted") else one)
    if len(told) < len(cases):
        os.kill(child, signal.SIGKILL)  # it is over already, or hangs
    status = os.waitpid(child, 0)[1]
    if len(told) == len(cases):
        return told
    last = _said(cases[len(told)][1])[-300:]
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return [*told, Outcome("hang" if name in ("SIGXCPU", "SIGKILL") else "crash", f"{name} {last}")]
    return [*told, Outcome("crash", f"exit {os.WEXITSTATUS(status)} {last}")]


def _noise_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.said")


def _said(folder: Path) -> str:
    path = _noise_of(folder)
    return path.read_text() if path.exists() else ""


def _child(cases: Sequence[tuple[Use, Path]], writer: int, cpu_seconds: int) -> None:
    faulthandler.disable()  # a crash is told by its signal
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("default")
    watched = _Watched()
    sys.addaudithook(watched)
    for use, folder in cases:
        os.write(writer, json.dumps(_told(use, folder, watched, cpu_seconds)).encode("utf-8", "replace") + b"\n")
    os._exit(0)


def _told(use: Use, folder: Path, watched: _Watched, cpu_seconds: int) -> dict[str, Any]:
    """Return what a case does, in the child; each may use as much as if it were the first."""
    handle = os.open(_noise_of(folder), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    os.chdir(folder)
    (folder / f"{MODULE}.py").write_text("raise SystemExit('it ran')\n")
    watched.folder, watched.touched = folder, []
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of this case
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    peak = _peak_bytes()
    _limit(resource.RLIMIT_AS, pages + MORE_BYTES)
    _limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + cpu_seconds)
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
    if watched.touched:
        what, text = "ran code", "; ".join(watched.touched)
    watched.folder = None
    sys.stdout.flush()
    sys.stderr.flush()
    grown = _peak_bytes() - peak
    _limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)
    return {"what": what, "text": text[:500], "cpu_seconds": spent, "more_bytes": max(grown, 0)}


def _limit(which: int, most: int) -> None:
    resource.setrlimit(which, (most, resource.getrlimit(which)[1]))


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


class _Watched:
    """An audit hook, which can't be taken out again: it notes what a case touches that is none of its business."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.touched: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is not None:
            _watch(event, arguments, self.touched, self.folder)


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
