"""How do workers of a Ray cluster call a function, when any of them, or a node, may be lost?

So many shards as there are workers are under way at a time, spread over the nodes. Ray tries none again on its own: it is counted
here, as for local workers. What travels is the function, once, and for each shard its name and its answer.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from time import monotonic
from typing import Any, Generic, TypeVar

from prunus.core.code.imports import one_line
from prunus.core.errors import RunError
from prunus.core.events import Event, Listener
from prunus.core.recipes.execution.dispatch_section import Dispatch
from prunus.scale.dispatch.attempt import Failure, Kind, Tries, packed, unpacked
from prunus.scale.dispatch.ray_cluster import open_cluster
from prunus.scale.dispatch.ray_task import Order, serve
from prunus.scale.dispatch.same_code import versions
from prunus.scale.dispatch.same_files import Expected, Files, expected, odd_file

__all__ = ["RayWorkers"]

T = TypeVar("T")
R = TypeVar("R")

_STAGE = "dispatch"
_INLINE_BYTES = 100_000
"""A larger function is put into the object store, from which each node fetches it once."""

_SECONDS_WITHOUT_A_NODE = 60.0

_SHARE = "all that work need the same code, and the same files under the same path: on a file system that they share, or at a URL"


class RayWorkers(Generic[T, R]):
    """Calls the function on the nodes of a Ray cluster."""

    def __init__(
        self, function: Callable[[T], R], asked: Dispatch, retries: int, files: Files, listener: Listener
    ) -> None:
        whole = packed(function)
        self._asked, self._retries, self._listener = asked, retries, listener
        self._done: Counter[str] = Counter()
        self._stack = ExitStack()
        self._cluster = open_cluster(asked)
        self._stack.callback(self._cluster.close)
        try:
            ray = self._cluster.ray
            self._names = self._cluster.nodes()
            seen = self._stack.enter_context(expected(files))
            self._check_files(seen)
            self._task = ray.remote(serve).options(
                num_cpus=asked.cores, num_gpus=asked.gpus, max_retries=0, scheduling_strategy="SPREAD"
            )
            # What is small travels with each shard, and not through the object store, which may be full of what is another's.
            self._order = Order(
                key=hashlib.sha256(whole).hexdigest(),
                function=(whole if len(whole) <= _INLINE_BYTES else self._stored(whole),),
                sys_path=tuple(os.path.realpath(path) for path in sys.path if path),
                folder=os.getcwd(),  # noqa: PTH109
                threads=max(int(asked.cores), 1),
                versions=versions(),
                files=seen,
            )
            self._say(f"{asked.workers} workers on {len(self._names)} nodes: {', '.join(self._names.values())}")
        except BaseException:
            self._stack.close()
            raise

    def map(self, shards: Sequence[T]) -> Iterator[tuple[int, R | Failure]]:
        """Yield what the function returns for each shard, with the shard's number, as they get done."""
        ray = self._cluster.ray
        tries = Tries(len(shards), self._retries)
        under_way: dict[Any, int] = {}
        heard = monotonic()
        try:
            while tries.waiting or under_way:
                while tries.waiting and len(under_way) < self._asked.workers:
                    number = tries.begin()
                    under_way[self._task.remote(self._order, shards[number])] = number
                ready, _ = ray.wait(list(under_way), num_returns=1, timeout=5.0)
                heard = self._heard(heard) if not ready else monotonic()
                for answer in ready:
                    number = under_way.pop(answer)
                    yield from tries.settle(number, *self._received(answer))
        finally:
            for answer in under_way:
                ray.cancel(answer, force=True)

    def close(self) -> None:
        """Say who did what, and leave the cluster."""
        try:
            if self._done:
                by_name = {self._names[node]: n for node, n in sorted(self._done.items())}
                told = ", ".join(f"{n} on {name}" for name, n in by_name.items())
                self._say(f"{sum(self._done.values())} were done: {told}", by_node=by_name)
        finally:
            self._stack.close()

    def _check_files(self, seen: Expected) -> None:
        """Refuse to begin where a node that may work doesn't see the files of this machine."""
        if not seen.sizes and not seen.marks:
            return

        def asked() -> str:
            return odd_file(seen)

        for node, odd in self._cluster.ask(asked, self._cluster.with_room(self._asked)):
            if odd:
                raise RunError(f"dispatch: the node {self._names.get(node, node[:6])} {odd}; {_SHARE}")

    def _stored(self, function: bytes) -> Any:
        exceptions = self._cluster.ray.exceptions
        try:
            return self._cluster.ray.put(function)
        except (exceptions.ObjectStoreFullError, exceptions.OutOfDiskError) as error:
            raise RunError(
                f"dispatch: the object store of this node is full, and a function of {len(function):,} bytes has to go through it; "
                "see with `ray memory` who holds what, make room, and go on with --resume"
            ) from error

    def _received(self, answer: Any) -> tuple[Kind, Any]:
        exceptions = self._cluster.ray.exceptions
        try:
            kind, found, node = self._cluster.ray.get(answer)
        except exceptions.OutOfMemoryError:
            return "died", "the worker that had it was ended for lack of memory on its node"
        except (exceptions.NodeDiedError, exceptions.OwnerDiedError, exceptions.ObjectLostError):
            return "died", "the node that had it was lost"
        except exceptions.WorkerCrashedError:
            return "died", "the worker that had it died, perhaps for lack of memory, or with its node"
        except exceptions.RayError as error:
            return "died", f"the worker that had it couldn't do it: {_last_line(error)}"
        if node not in self._names:
            self._names |= self._cluster.nodes()
            self._names.setdefault(node, node[:6])
        if kind == "done":
            self._done[node] += 1
            return kind, unpacked(found)
        if kind == "refused":
            return kind, f"dispatch: the node {self._names[node]}, which came later, {found}; {_SHARE}"
        return kind, f"{found} (on {self._names[node]})" if len(self._names) > 1 else found

    def _heard(self, since: float) -> float:
        """Return since when there has been a node that could do the work; raise if that is too long ago."""
        if self._cluster.with_room(self._asked):
            return monotonic()
        if monotonic() - since > _SECONDS_WITHOUT_A_NODE:
            raise RunError(
                f"dispatch: for {_SECONDS_WITHOUT_A_NODE:g} s no node that could do the work has been left in the cluster; bring "
                "one back, and go on with --resume"
            )
        return since

    def _say(self, text: str, **facts: Any) -> None:
        self._listener(Event("note", _STAGE, f"ray: {text}", facts=facts))


def _last_line(error: BaseException) -> str:
    """Return what was raised on the worker, without the stack that Ray puts before it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(RuntimeError(lines[-1])).removeprefix("RuntimeError: ") if lines else type(error).__name__
