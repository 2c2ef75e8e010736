"""How long does a test wait for what must come? Minutes, on any machine: only what is broken takes so long.

No outcome of a test hangs on how fast something is. What has to end is given ten minutes, of the processor where it computes;
what has to happen first is waited for; and a port that is given away isn't one that the system gives others meanwhile.
"""

from __future__ import annotations

import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["PATIENCE_S", "free_port", "no_hang", "steps_of", "until"]

T = TypeVar("T")
PATIENCE_S = 600


def until(condition: Callable[[], T]) -> T:
    """Wait until a condition holds, and return what it gives."""
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
    return found


@contextmanager
def no_hang(cpu_seconds: float = PATIENCE_S) -> Iterator[None]:
    """End what takes minutes of processor time: what is refused soon takes two seconds of a quiet core, unmended it takes hours."""

    def end(*_: Any) -> None:
        raise AssertionError(f"it took more than {cpu_seconds:g} s of processor time")

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def steps_of(work: Callable[[], Any]) -> int:
    """Return how many lines of Python some work consists of, those of a loop as often as it goes round: the same on any machine."""
    n = 0

    def count(frame: Any, event: str, argument: Any) -> Any:
        nonlocal n
        n += event in ("call", "line")
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work()
    finally:
        sys.settrace(before)
    return n


def free_port() -> int:
    """Return a free port of the loopback, of those that the system gives to nobody who asks for any: it stays free."""
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(given.read_text().split()[0]) if given.exists() else 32_768
    draw = random.SystemRandom()
    while True:
        port = draw.randrange(lowest // 2, lowest)
        with closing(socket.socket()) as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
