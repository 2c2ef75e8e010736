"""Who calls the function: this process, others of this machine, or a cluster's?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from prunus.core.errors import RecipeError, UnknownNameError, near
from prunus.core.events import Listener, silent
from prunus.core.recipes.execution.dispatch_section import BACKENDS, Dispatch
from prunus.scale.dispatch.attempt import Failure
from prunus.scale.dispatch.local_workers import Here, Spawned
from prunus.scale.dispatch.same_files import Files

__all__ = ["Workers", "open_workers", "reach_workers"]

T = TypeVar("T")
R = TypeVar("R")
T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Workers(Protocol[T_contra, R_co]):
    """Those who call one function, for as many batches of shards as there are."""

    def map(self, shards: Sequence[T_contra]) -> Iterator[tuple[int, R_co | Failure]]:
        """Yield what the function returns for each shard, with the shard's number, as they get done."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


@contextmanager
def open_workers(
    function: Callable[[T], R],
    *,
    backend: Dispatch | str = "local",
    workers: int | None = None,
    retries: int = 2,
    files: Files | None = None,
    listener: Listener = silent,
) -> Iterator[Workers[T, R]]:
    """Yield those who call ``function``; they are ended with the block.

    Args:
        files: what all machines of a cluster must see as this one does.

    Raises:
        RecipeError: there is no such backend, the function can't be pickled for it, or no node has what a worker needs.
        RunError: the cluster doesn't answer, runs other versions, or doesn't see the files.
        MissingExtraError: Ray isn't installed.
    """
    asked = _asked(backend, workers)
    if retries < 0:
        raise RecipeError(f"expected retries >= 0: got {retries}")
    found = _started(function, asked, retries, files or Files(), listener)
    try:
        yield found
    finally:
        found.close()


@contextmanager
def reach_workers(backend: Dispatch | str | None, workers: int | None = None) -> Iterator[None]:
    """Be a part of the cluster that is asked for, for a block: what is wrong with it is said before any of the work is begun.

    Who opens workers in the block works on that cluster. Processes of this machine need nothing beforehand.

    Raises:
        RecipeError: there is no such backend, or no node has what a worker needs.
        RunError: the cluster doesn't answer, or runs other versions.
        MissingExtraError: Ray isn't installed.
    """
    asked = _asked("local" if backend is None else backend, workers)
    if asked.backend != "ray":
        yield
        return
    from prunus.scale.dispatch.ray_cluster import open_cluster

    cluster = open_cluster(asked)
    try:
        yield
    finally:
        cluster.close()


def _started(
    function: Callable[[T], R], asked: Dispatch, retries: int, files: Files, listener: Listener
) -> Workers[T, R]:
    if asked.backend == "ray":
        from prunus.scale.dispatch.ray_workers import RayWorkers

        return RayWorkers(function, asked, retries, files, listener)
    return Here(function, retries) if asked.workers == 1 else Spawned(function, asked.workers, retries)


def _asked(backend: Dispatch | str, workers: int | None) -> Dispatch:
    if isinstance(backend, str) and backend not in BACKENDS:
        raise UnknownNameError(f"there is no backend {backend!r}: {near(backend, BACKENDS)}")
    if workers is not None and workers < 1:
        raise RecipeError(f"expected workers >= 1: got {workers}")
    told: dict[str, Any] = {} if workers is None else {"workers": workers}
    if isinstance(backend, str):
        return Dispatch.model_validate({"backend": backend, **told})
    return backend.model_copy(update=told)
