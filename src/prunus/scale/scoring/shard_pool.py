"""How is the same function called on many shards, by several processes of which any may die?

Each process is spawned, holds a pipe of its own, and has one shard at a time, so that it is known which shard a death was about.
That one is tried again in a new process, a few times; all others go on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

import torch

from prunus.core.code.imports import one_line
from prunus.core.errors import NotFiniteError, OutputError, PrunusError, RunError, raise_if_out_of_memory

__all__ = ["Failure", "run_each"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Failure:
    """Why a shard couldn't be done, and after how many tries."""

    message: str
    n_tries: int


@dataclass
class _Worker(Generic[T]):
    process: BaseProcess
    pipe: Connection
    number: int | None = None


def run_each(
    work: Callable[[T], R], tasks: Sequence[T], *, workers: int = 1, retries: int = 2
) -> Iterator[tuple[int, R | Failure]]:
    """Yield what ``work`` returns for each task, with the task's number, as they get done; a failure stops no other task.

    Wrong data or a wrong model are wrong again; other errors, and what a process that dies had, are tried again.

    Args:
        work: a function that can be pickled. With one worker it is called right here.
        retries: how often a task is tried again.

    Raises:
        OutputError: the output can't be written, which no other task could either.
    """
    if workers <= 1:
        yield from _run_here(work, tasks, retries)
        return
    yield from _run_spawned(work, tasks, min(workers, len(tasks)), retries)


def _run_here(work: Callable[[T], R], tasks: Sequence[T], retries: int) -> Iterator[tuple[int, R | Failure]]:
    for number, task in enumerate(tasks):
        for attempt in range(retries + 1):
            kind, answer = _tried(work, task)
            if kind == "output":
                raise OutputError(answer)
            if kind != "again" or attempt == retries:
                yield number, answer if kind == "done" else Failure(answer, attempt + 1)
                break


def _run_spawned(
    work: Callable[[T], R], tasks: Sequence[T], workers: int, retries: int
) -> Iterator[tuple[int, R | Failure]]:
    context = multiprocessing.get_context("spawn")
    todo: deque[int] = deque(range(len(tasks)))
    tries = [0] * len(tasks)
    pool: list[_Worker[T]] = []
    left = len(tasks)
    threads = max((os.cpu_count() or 1) // max(workers, 1), 1)
    try:
        while left:
            while todo and len(pool) < workers:
                pool.append(_started(context, work, threads))
            for worker in pool:
                if worker.number is None and todo:
                    worker.number = todo.popleft()
                    tries[worker.number] += 1
                    _send(worker, tasks[worker.number])
            for pipe in wait([worker.pipe for worker in pool if worker.number is not None]):
                worker = next(each for each in pool if each.pipe is pipe)
                number = worker.number
                assert number is not None
                kind, answer = _received(worker)
                if kind == "output":
                    raise OutputError(answer)
                if kind == "died":
                    pool.remove(worker)
                worker.number = None
                if kind in ("again", "died") and tries[number] <= retries:
                    todo.append(number)
                    continue
                left -= 1
                yield number, answer if kind == "done" else Failure(answer, tries[number])
    finally:
        for worker in pool:
            worker.pipe.close()
            if worker.number is not None:
                worker.process.terminate()
        for worker in pool:
            worker.process.join()


def _started(context: Any, work: Callable[[T], R], threads: int) -> _Worker[T]:
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, work, threads), daemon=True)
    process.start()
    there.close()
    return _Worker(process, here)


def _send(worker: _Worker[T], task: T) -> None:
    # Where it died while it was idle, what is received of it says so.
    with suppress(BrokenPipeError, ConnectionResetError):
        worker.pipe.send(task)


def _received(worker: _Worker[T]) -> tuple[str, Any]:
    try:
        answer: tuple[str, Any] = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        code = worker.process.exitcode
        how = f"was killed by signal {-code}, perhaps for lack of memory" if code and code < 0 else f"ended with {code}"
        return "died", f"the process that scored it {how}"
    return answer


def _serve(pipe: Connection, work: Callable[[T], R], threads: int) -> None:
    """Do what comes through the pipe until it is closed."""
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this one is told, and ends it
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(_tried(work, task))


def _tried(work: Callable[[T], R], task: T) -> tuple[str, Any]:
    """Return what came of a task: ``done``, ``failed``, ``again`` (it may be worth another try) or ``output``."""
    try:
        return "done", work(task)
    except OutputError as error:
        return "output", str(error)
    except PrunusError as error:
        passing = isinstance(error, RunError) and not isinstance(error, NotFiniteError)
        return "again" if passing else "failed", str(error)
    except Exception as error:
        raise_if_out_of_memory(error)
        return "again", one_line(error)
