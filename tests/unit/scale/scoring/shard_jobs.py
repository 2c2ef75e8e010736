"""Scorers that a spawned process can import: some of them hurt themselves."""

import os
import signal
import time
from pathlib import Path

import numpy as np


class Sums:
    """Scores a row by the sum of two columns."""

    columns = ("a", "b")

    def __call__(self, batch):
        return {"sum": batch.column("a").to_numpy() + batch.column("b").to_numpy()}


class Dies(Sums):
    """Is killed as the system kills for lack of memory: on a shard that holds 13, so many times."""

    def __init__(self, marks, times):
        self.marks, self.times = Path(marks), times

    def __call__(self, batch):
        if 13 in batch.column("a").to_pylist():
            n = len(list(self.marks.iterdir()))
            if n < self.times:
                (self.marks / str(n)).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


class Slow(Sums):
    def __call__(self, batch):
        time.sleep(0.05)
        return super().__call__(batch)


class StopsAfter(Sums):
    """Scores so many batches, and then waits until it is killed."""

    def __init__(self, n):
        self.left = n

    def __call__(self, batch):
        if not self.left:
            time.sleep(3600)
        self.left -= 1
        return super().__call__(batch)


class Opens:
    """Opens a scorer by its class and arguments; counts in a folder how often."""

    def __init__(self, kind, *given, counts=None):
        self.kind, self.given, self.counts = kind, given, counts

    def __call__(self):
        if self.counts is not None:
            (Path(self.counts) / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        return self.kind(*self.given)


class Fails:
    columns = None

    def __call__(self, batch):
        raise RuntimeError("a passing fault")


class Different:
    """Gives another column in the second batch."""

    columns = ("a",)

    def __init__(self):
        self.n = 0

    def __call__(self, batch):
        self.n += 1
        return {"one" if self.n == 1 else "two": np.zeros(batch.num_rows)}


class Short:
    columns = ("a",)

    def __call__(self, batch):
        return {"s": np.zeros(1)}
