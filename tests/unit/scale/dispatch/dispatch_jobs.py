"""Functions that workers can import: some of them hurt themselves."""

import os
import signal
import time
from pathlib import Path

from prunus.core.errors import DataError, OutputError, RunError


class Job:
    """Does what the shard says, and tells who did it: ``(answer, process, calls that this copy had before)``."""

    def __init__(self, marks=None):
        self.marks, self.calls = marks, 0

    def __call__(self, shard):
        what, number = shard
        self.calls += 1
        if what == "die" or (what == "die once" and self.first(number)):
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "pass" or (what == "pass once" and self.first(number)):
            raise RunError("a passing fault")
        if what == "odd":
            raise ValueError("two\nlines")
        if what == "wrong":
            raise DataError("wrong data")
        if what == "full":
            raise OutputError("no space left")
        if what == "slowly":
            (Path(self.marks) / f"{number}-{os.getpid()}-{time.monotonic_ns()}").touch()
            time.sleep(0.3)
        if what == "lambda":
            return lambda: number
        return number**2, os.getpid(), self.calls

    def first(self, number):
        """Tell whether this is the first time, in whatever process."""
        mark = Path(self.marks) / str(number)
        if mark.exists():
            return False
        mark.touch()
        return True


class OnlyHere:
    """Can be pickled, and not be loaded by a worker: its module isn't known there."""

    def __reduce__(self):
        return __import__("importlib").import_module, ("no_such_module",)

    def __call__(self, shard):
        return shard


class Sums:
    """Asks for ``n`` batches of three numbers, each of which hangs on what the one before gave; remembers all."""

    def __init__(self, n):
        self.n, self.told, self.start = n, [], 1

    def ask(self):
        return [] if len(self.told) == self.n else [("", self.start + place) for place in range(3)]

    def tell(self, found):
        self.told.append([answer[0] for answer in found])
        self.start = sum(self.told[-1]) % 7
