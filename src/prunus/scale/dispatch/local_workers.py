"""How do several processes of this machine call a function, when any of them may die?

Each process holds a pipe of its own, and has one shard at a time, so that it is known which shard a death was about. That one is
tried again in a new process, a few times; all others go on. The processes stay for the next batch of shards.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, Generic, TypeVar

import torch

from prunus.core.code.new_process import begun
from prunus.scale.dispatch.attempt import Failure, Kind, Tries, loaded, packed, tried, unpacked

__all__ = ["Here", "Spawned"]

T = TypeVar("T")
R = TypeVar("R")


class Here(Generic[T, R]):
    """Calls the function in this process, one shard after the other."""

    def __init__(self, function: Callable[[T], R], retries: int) -> None:
        self._function, self._retries = function, retries

    def map(self, shards: Sequence[T]) -> Iterator[tuple[int, R | Failure]]:
        """Yield what the function returns for each shard, with the shard's number."""
        tries = Tries(len(shards), self._retries)
        while tries.waiting:
            number = tries.begin()
            yield from tries.settle(number, *tried(self._function, shards[number]))

    def close(self) -> None:
        """Do nothing: nothing was started."""


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    number: int | None = None


class Spawned(Generic[T, R]):
    """Calls the function in processes of this machine, ``workers`` at most; an idle one waits for the next shards."""

    def __init__(self, function: Callable[[T], R], workers: int, retries: int) -> None:
        self._function, self._workers, self._retries = packed(function), workers, retries
        self._pool: list[_Worker] = []
        self._threads = max((os.cpu_count() or 1) // max(workers, 1), 1)

    def map(self, shards: Sequence[T]) -> Iterator[tuple[int, R | Failure]]:
        """Yield what the function returns for each shard, with the shard's number, as they get done."""
        tries = Tries(len(shards), self._retries)
        try:
            while tries.waiting or self._busy():
                self._hand_out(tries, shards)
                for pipe in wait([worker.pipe for worker in self._busy()]):
                    worker = next(each for each in self._pool if each.pipe is pipe)
                    number = worker.number
                    assert number is not None
                    kind, answer = _received(worker)
                    worker.number = None
                    if kind == "died":
                        self._pool.remove(worker)
                    yield from tries.settle(number, kind, answer)
        finally:
            self._end(self._busy())

    def close(self) -> None:
        """End all processes."""
        self._end(list(self._pool))

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._pool if worker.number is not None]

    def _hand_out(self, tries: Tries, shards: Sequence[T]) -> None:
        while len(self._pool) < min(self._workers, len(self._busy()) + len(tries.waiting)):
            self._pool.append(_started(self._function, self._threads))
        for worker in self._pool:
            if worker.number is None and tries.waiting:
                worker.number = tries.begin()
                # Where it died while it was idle, what is received of it says so.
                with suppress(BrokenPipeError, ConnectionResetError):
                    worker.pipe.send(shards[worker.number])

    def _end(self, workers: list[_Worker]) -> None:
        for worker in workers:
            worker.pipe.close()
            if worker.number is not None:
                worker.process.terminate()
            self._pool.remove(worker)
        for worker in workers:
            worker.process.join()


def _started(function: bytes, threads: int) -> _Worker:
    here, there = multiprocessing.Pipe()
    with there:
        return _Worker(begun(_serve, there, function, threads), here)


def _received(worker: _Worker) -> tuple[Kind, Any]:
    try:
        kind, answer = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        code = worker.process.exitcode
        how = f"was killed by signal {-code}, perhaps for lack of memory" if code and code < 0 else f"ended with {code}"
        return "died", f"the process that had it {how}"
    return kind, unpacked(answer) if kind == "done" else answer


def _serve(pipe: Connection, function: bytes, threads: int) -> None:
    """Do what comes through the pipe until it is closed, or whoever holds its other end was killed."""
    torch.set_num_threads(threads)
    Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this one is told, and ends it
    attempt = loaded(function)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            pipe.send(attempt(pipe.recv()))


def _end_with_parent() -> None:
    """End this process, whatever it is at, when whoever started it is gone: nobody would hear its answer."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
