"""How is a function called on all shards of a work, or on trials of which each batch hangs on those before?"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol, TypeVar

from prunus.core.events import Listener, silent
from prunus.core.recipes.execution.dispatch_section import Dispatch
from prunus.scale.dispatch.attempt import Failure
from prunus.scale.dispatch.open_workers import open_workers
from prunus.scale.dispatch.same_files import Files

__all__ = ["AskTell", "map_shards", "run_trials"]

T = TypeVar("T")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)
R_contra = TypeVar("R_contra", contravariant=True)


def map_shards(
    function: Callable[[T], R],
    shards: Sequence[T],
    *,
    backend: Dispatch | str = "local",
    workers: int | None = None,
    retries: int = 2,
    files: Files | None = None,
    listener: Listener = silent,
) -> Generator[tuple[int, R | Failure], None, None]:
    """Yield what ``function`` returns for each shard, with the shard's number, as they get done; a failure stops no other.

    Wrong data or a wrong model are wrong again; other errors, and what a worker that dies had, are tried again. A function that
    writes a file writes it in one step, so that a second try finds all of it or nothing.

    Args:
        function: of one argument. One local worker calls it right here; for others it must be possible to pickle it, and what it
            keeps between calls is each worker's own.
        backend: a name, or all that there is to say of the workers.
        workers: so many shards at once; None: as ``backend`` says, or one.
        retries: how often a shard is tried again.
        files: what all machines of a cluster must see as this one does; one that doesn't is named.
        listener: is told which workers there are, and which did how much.

    Raises:
        OutputError: the output can't be written, which no other shard's could either.
        RecipeError: there is no such backend, the function can't be pickled, or no node has what a worker needs.
        RunError: the cluster doesn't answer, runs other versions, doesn't see the files, or has lost all its nodes.
        MissingExtraError: Ray isn't installed.

    >>> dict(map_shards(len, ["one", "three"]))
    {0: 3, 1: 5}
    """
    with open_workers(
        function, backend=backend, workers=workers, retries=retries, files=files, listener=listener
    ) as opened:
        yield from opened.map(shards)


class AskTell(Protocol[T_co, R_contra]):
    """Chooses trials a batch at a time, each from what those before gave."""

    def ask(self) -> Sequence[T_co]:
        """Return the next trials; none: it is over."""
        ...

    def tell(self, found: Sequence[R_contra | Failure]) -> None:
        """Take what the batch gave, in its order: so what is chosen next doesn't hang on who was done first."""
        ...


def run_trials(
    function: Callable[[T], R],
    study: AskTell[T, R],
    *,
    backend: Dispatch | str = "local",
    workers: int | None = None,
    retries: int = 2,
    files: Files | None = None,
    listener: Listener = silent,
) -> Iterator[tuple[T, R | Failure]]:
    """Yield the study's trials and what ``function`` returns for each, as they get done; the workers stay from batch to batch.

    Args and errors are those of ``map_shards``.
    """
    with open_workers(
        function, backend=backend, workers=workers, retries=retries, files=files, listener=listener
    ) as opened:
        while batch := study.ask():
            found: dict[int, R | Failure] = {}
            for place, answer in opened.map(batch):
                found[place] = answer
                yield batch[place], answer
            study.tell([found[place] for place in range(len(batch))])
