"""Which of the waiting requests does the model answer next, and all together?

There is no fixed wait. Whatever has come by the time that the model gets free is one batch, up to a size: a single request runs
at once and alone, and under load batches grow by themselves. The model runs in a thread; where one request is all there is and
the model takes a moment only, it runs where the request was read, since waking a thread would take as long. The queue is bounded
in requests and bytes; a request whose time is up leaves it. Requests of one shape run together, the shape that waits longest
first.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from prunus.core.errors import PrunusError, out_of_memory
from prunus.serve.refusal import Refusal
from prunus.serve.running.engine import Engine
from prunus.serve.serve_settings import ClientLimits
from prunus.serve.watch.json_logs import say
from prunus.serve.wire.tensor_data import Array

__all__ = ["Answer", "Batcher", "Ran"]

_MOMENT_S = 0.002
"""For so long may the event loop stand still."""
_N_SINGLE = 15
"""So many of the last single examples say how long one takes: of their median, what else the machine does makes little."""

Answer = list[Array]


@dataclass(frozen=True, slots=True)
class Ran:
    """How one batch went: requests and examples in it, seconds in the model, seconds that its first request waited."""

    n_requests: int
    n_examples: int
    seconds: float
    waited: float


class _Waiting:
    """A request in the queue."""

    __slots__ = ("arrays", "came", "future", "n_bytes", "n_examples", "timer")

    def __init__(self, arrays: list[Array], future: asyncio.Future[Answer], came: float, n_bytes: int) -> None:
        self.arrays, self.future, self.came, self.n_bytes = arrays, future, came, n_bytes
        self.n_examples = len(arrays[0])
        self.timer: asyncio.TimerHandle | None = None


class Batcher:
    """Requests for one model, which runs in a thread of its own.

    Args:
        alone: the model's answers depend on what else is in a batch, so each request is one.
        ran: is told of every batch, in the thread of the event loop.
        in_flight: says how many requests the server is at work on.
    """

    def __init__(
        self,
        engine: Engine,
        limits: ClientLimits,
        *,
        alone: bool = False,
        ran: Callable[[Ran], None] = lambda _: None,
        in_flight: Callable[[], int] = lambda: 2,
    ) -> None:
        self._engine, self._limits, self._alone, self._ran, self._in_flight = engine, limits, alone, ran, in_flight
        self._single_s = math.inf
        self._singles: deque[float] = deque(maxlen=_N_SINGLE)
        self._queues: dict[tuple[tuple[int, ...], ...], deque[_Waiting]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._loop = asyncio.get_running_loop()
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._pace_s = 0.0
        self.closed = False
        self.n_waiting = 0
        self.waiting_bytes = 0

    async def answer(self, arrays: list[Array], n_bytes: int, timeout_s: float) -> Answer:
        """Return the model's outputs.

        Raises:
            Refusal: too many wait (429), the time is up (504), or the model fails on these inputs.
        """
        limits = self._limits
        if self.closed:
            raise Refusal(404, "this version was replaced by another one", field="version")
        if self.n_waiting >= limits.queued or self.waiting_bytes + n_bytes > max(limits.held_bytes, n_bytes):
            raise Refusal(
                429, f"{self.n_waiting} requests wait already: come again later", retry_after_s=self.expected_wait_s()
            )
        if not self._busy and self._single_s < _MOMENT_S and len(arrays[0]) == 1 and self._in_flight() <= 1:
            return self._at_once(arrays)
        waiting = _Waiting(arrays, self._loop.create_future(), perf_counter(), n_bytes)
        waiting.timer = self._loop.call_later(timeout_s, self._expire, waiting, timeout_s)
        self._queues.setdefault(tuple([array.shape[1:] for array in arrays]), deque()).append(waiting)
        self.n_waiting += 1
        self.waiting_bytes += n_bytes
        self._idle.clear()
        if not self._busy:
            self._start()
        try:
            return await waiting.future
        finally:
            waiting.timer.cancel()

    def _at_once(self, arrays: list[Array]) -> Answer:
        """Return the model's outputs for one example, while nothing else is done."""
        (result,), _, seconds = _run(self._engine, [arrays], self._limits.batch)
        self._learn(1, seconds)
        self._ran(Ran(1, 1, seconds, 0.0))
        if isinstance(result, Exception):
            raise result
        return result

    def _learn(self, n_examples: int, seconds: float) -> None:
        """Remember how long one example takes by itself."""
        if n_examples == 1:
            self._singles.append(seconds)
            self._single_s = sorted(self._singles)[len(self._singles) // 2]

    def expected_wait_s(self) -> float:
        """Return about how long the queue takes, by the pace of the batches so far."""
        return max(self._pace_s * self.n_waiting, 0.0)

    @property
    def half_full(self) -> bool:
        """Whether what isn't needed at once should better not be asked."""
        return 2 * self.n_waiting >= self._limits.queued or 2 * self.waiting_bytes >= self._limits.held_bytes

    async def drained(self) -> None:
        """Wait until nothing waits and nothing runs."""
        while self._busy or self.n_waiting:
            await self._idle.wait()

    def close(self) -> None:
        """Let the thread go; call it when drained."""
        self.closed = True
        self._thread.shutdown(wait=False)

    def _expire(self, waiting: _Waiting, timeout_s: float) -> None:
        if not waiting.future.done():
            waiting.future.set_exception(
                Refusal(504, f"no answer within {timeout_s:.3g} s, which the request or the server allows")
            )

    def _start(self) -> None:
        """Run the next batch, if something waits."""
        batch = self._next()
        if not batch:
            self._busy = False
            if not self.n_waiting:
                self._idle.set()
            return
        self._busy = True
        first = batch[0].came
        done = self._thread.submit(_run, self._engine, [w.arrays for w in batch], self._limits.batch)
        done.add_done_callback(lambda future: self._loop.call_soon_threadsafe(self._end, batch, first, future))

    def _next(self) -> list[_Waiting]:
        """Take a batch out of the queue of the shape that waits longest."""
        limits = self._limits
        while self._queues:
            shape = (
                min(self._queues, key=lambda key: self._queues[key][0].came)
                if len(self._queues) > 1
                else next(iter(self._queues))
            )
            queue, batch, n_examples, n_bytes = self._queues[shape], list[_Waiting](), 0, 0
            while queue:
                waiting = queue[0]
                if not waiting.future.done():
                    full = (
                        n_examples + waiting.n_examples > limits.batch or n_bytes + waiting.n_bytes > limits.batch_bytes
                    )
                    if batch and (full or self._alone):
                        break
                    batch.append(waiting)
                    n_examples += waiting.n_examples
                    n_bytes += waiting.n_bytes
                queue.popleft()
                self.n_waiting -= 1
                self.waiting_bytes -= waiting.n_bytes
            if not queue:
                del self._queues[shape]
            if batch:
                return batch
        return []

    def _end(self, batch: list[_Waiting], first: float, future: Future[_Results]) -> None:
        """Start the next batch, then hand out the answers of this one."""
        self._start()
        error = future.exception()
        results: Sequence[Answer | Exception]
        if error is not None:
            results, began, seconds = [_failed(error)] * len(batch), first, 0.0
        else:
            results, began, seconds = future.result()
            self._learn(sum(waiting.n_examples for waiting in batch), seconds)
            self._pace_s = 0.9 * self._pace_s + 0.1 * seconds / len(batch) if self._pace_s else seconds / len(batch)
        for waiting, result in zip(batch, results, strict=True):
            if waiting.future.done():  # its time was up, or its client is gone
                continue
            if isinstance(result, Exception):
                waiting.future.set_exception(result)
            else:
                waiting.future.set_result(result)
        self._ran(Ran(len(batch), sum(w.n_examples for w in batch), seconds, began - first))


_Results = tuple[list[Answer | Exception], float, float]


def _run(engine: Engine, requests: Sequence[list[Array]], most: int) -> _Results:
    """Return the answer to each request of a batch, when it began and how many seconds it took; in the model's thread."""
    began = perf_counter()
    found: list[Answer | Exception]
    try:
        if len(requests) == 1:
            found = [_checked(_in_parts(engine, requests[0], most))]
        else:
            sizes = [len(arrays[0]) for arrays in requests]
            outputs = engine.run([np.concatenate(parts) for parts in zip(*requests, strict=True)])
            found = _apart(outputs, sizes)
    except PrunusError as error:
        # One request spoils no other's answer: each is tried by itself.
        alone = len(requests) == 1
        found = [_refused(error)] if alone else [_run(engine, [arrays], most)[0][0] for arrays in requests]
    return found, began, perf_counter() - began


def _in_parts(engine: Engine, arrays: list[Array], most: int) -> Answer:
    """Return the answer to one request, of which so many examples run at once."""
    if len(arrays[0]) <= most:
        return engine.run(arrays)
    parts = [engine.run([array[at : at + most] for array in arrays]) for at in range(0, len(arrays[0]), most)]
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def _apart(outputs: Answer, sizes: Sequence[int]) -> list[Answer | Exception]:
    """Return each request's rows of a batch's outputs."""
    found: list[Answer | Exception] = []
    start, finite = 0, all(_finite(output) for output in outputs)
    for size in sizes:
        own = [output[start : start + size] for output in outputs]
        found.append(own if finite or all(map(_finite, own)) else _overflow())
        start += size
    return found


def _checked(outputs: Answer) -> Answer | Exception:
    return outputs if all(map(_finite, outputs)) else _overflow()


def _finite(values: Array) -> bool:
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


def _overflow() -> Refusal:
    return Refusal(
        422, "the model's answer is NaN or infinite: the inputs are far from what it learnt from", field="inputs"
    )


def _failed(error: BaseException) -> Refusal:
    """Return what is said where the server is at fault."""
    if out_of_memory(error) is not None:
        return Refusal(503, "not enough memory for this batch", retry_after_s=1.0)
    say("the model failed", level=logging.ERROR, error=f"{type(error).__name__}: {error}"[:300])
    return Refusal(500, "the model failed on this batch; the server's log says why")


def _refused(error: PrunusError) -> Refusal:
    return Refusal(422, str(error), field="inputs")
