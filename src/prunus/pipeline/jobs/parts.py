"""How do workers do parts of a work (seeds, layers, cells of a grid) before the work itself gets there?

A part is what the work keeps under a name of its own as soon as it is done (``jobs.workspace``). A worker goes on with the work as
after a kill, does its parts, and stops; then the work goes on here, finds them done, and reads them. So what comes out for any
number of workers, on any backend, is what comes out of a run that was killed and resumed: the same, to the bit.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, TypeVar

from prunus.core.errors import NotFiniteError, OutputError, PrunusError, RunError
from prunus.core.events import Event, Listener
from prunus.core.files.plain_files import remove, write_text
from prunus.core.recipes.execution.dispatch_section import Dispatch
from prunus.pipeline.jobs.replaced_run import forget_aside
from prunus.pipeline.jobs.workspace import WORK, Workspace
from prunus.scale.dispatch import Failure, Files, Workers, open_workers
from prunus.scale.dispatch.attempt import packed, unpacked

__all__ = ["Crew", "Done", "Mine", "Opens", "Parts", "Way", "raise_first"]

R = TypeVar("R")

Way = Callable[[Any], object]
"""How a process gets from a work that it opened to the parts: a function of a module, or a ``partial`` of one."""


def _nothing(place: int) -> bool:
    """Tell that nothing is known to be done."""
    return False


class Opens(Protocol):
    """Opens the same work in another process; it can be pickled."""

    @property
    def folder(self) -> str:
        """Where the work keeps what is done."""
        ...

    def __call__(self) -> AbstractContextManager[Callable[[Parts, Listener], Any]]:
        """Open it for a block; what is yielded gives it anew: with the parts that are to be done there, and who is told."""
        ...


@dataclass(frozen=True)
class Mine:
    """Which parts of which stage a worker does; ``way`` (packed) leads there, and ``mark`` is a file in the work's folder."""

    stage: str
    places: tuple[int, ...]
    name: str
    way: bytes
    mark: str


@dataclass(frozen=True)
class Parts:
    """Who does the parts of a work: as it comes, whoever comes to them, one after the other; else a ``crew``, which gets there by
    ``way``. A worker has ``mine`` instead.
    """

    crew: Crew | None = None
    way: Way | None = None
    mine: Mine | None = None

    def by(self, way: Way) -> Parts:
        """Return the same, for parts that others get to in this way."""
        return replace(self, way=way)

    def each(
        self,
        workspace: Workspace,
        stage: str,
        names: Sequence[str],
        do: Callable[[int], R],
        *,
        together: bool = False,
        kept: Callable[[int], bool] = _nothing,
    ) -> list[R]:
        """Return what ``do`` gives for each place of ``names``, in their order; all that takes long in it must be kept.

        Args:
            names: what the parts are called.
            together: it takes long to get there, beside a part: give each worker many at once.
            kept: tells by its place whether a part was done before, so that no worker need begin for it.

        Raises:
            PrunusError: what a part raised, with its name; the others were done first, and stay for a resume.
            RunError: whoever had a part died, time and again.
        """
        raise_first(workspace, stage, self.ahead(workspace, stage, names, do, together=together, kept=kept))
        return [do(place) for place in range(len(names))]

    def ahead(
        self,
        workspace: Workspace,
        stage: str,
        names: Sequence[str],
        do: Callable[[int], object],
        *,
        together: bool = False,
        kept: Callable[[int], bool] = _nothing,
        guessed: bool = False,
        fewest: int = 2,
    ) -> list[Done]:
        """Have workers do all parts that aren't kept, and return what came of them; nothing where nobody does them ahead.

        Args:
            fewest: so many parts are worth a worker.
            guessed: all but the first may turn out not to be wanted: what was told on their way isn't passed on.
        """
        whole = workspace.named(stage)
        if self.mine is not None and self.mine.stage == whole:
            for place in self.mine.places:
                do(place)
            raise _DoneError
        if self.crew is None or self.way is None or workspace.folder is None or len(names) < fewest:
            return []
        left = [place for place in range(len(names)) if not kept(place)]
        if not left:
            return []
        return _sent(self.crew, self.way, workspace, whole, names, left, together=together, guessed=guessed)


@dataclass(frozen=True)
class Done:
    """What came of some parts: their ``name``, what was told, and what was wrong (a message, and its kind) unless it is None."""

    name: str
    events: tuple[Event, ...] = ()
    wrong: tuple[str, type[PrunusError]] | None = None


class Crew:
    """Workers that open a work once and do parts of it, stage by stage, until they are dismissed; ``reads`` is what they open."""

    def __init__(
        self, dispatch: Dispatch, opens: Opens, listener: Listener, *, reads: Sequence[Path] = (), retries: int = 2
    ) -> None:
        self.dispatch, self.opens, self.reads = dispatch, opens, tuple(reads)
        self._listener, self._retries = listener, retries
        self._stack = ExitStack()
        self._workers: Workers[Mine, _Told] | None = None

    def map(self, tasks: Sequence[Mine]) -> Iterator[tuple[int, _Told | Failure]]:
        """Yield what came of each task, with its number, as they get done."""
        if self._workers is None:
            ahead = _Ahead(self.opens)
            files = Files(self.reads, (Path(self.opens.folder, WORK),))
            opened = open_workers(
                ahead, backend=self.dispatch, retries=self._retries, files=files, listener=self._listener
            )
            self._workers = self._stack.enter_context(opened)
        return self._workers.map(tasks)

    def dismiss(self) -> None:
        """End the workers."""
        self._workers = None
        self._stack.close()


@dataclass(frozen=True)
class _Told:
    """What a worker told while it did its parts, and what was wrong with them."""

    events: tuple[Event, ...]
    wrong: tuple[str, type[PrunusError]] | None = None


class _DoneError(BaseException):
    """The worker's parts are done, and nothing more is wanted of it: for no handler on the way."""


@dataclass
class _Ahead:
    """Does parts in another process, which opens the work once, and leaves it open until the process ends."""

    opens: Opens
    _opened: AbstractContextManager[Callable[[Parts, Listener], Any]] | None = field(default=None, init=False)
    _work: Callable[[Parts, Listener], Any] | None = field(default=None, init=False)

    def __call__(self, mine: Mine) -> _Told:
        if not Path(self.opens.folder, WORK, mine.mark).is_file():
            raise OutputError(
                f"workers need the folder of the work under the same path: {self.opens.folder} is another one here, or none"
            )
        told: list[Event] = []
        try:
            if self._work is None:
                self._opened = self.opens()
                self._work = self._opened.__enter__()
            unpacked(mine.way)(self._work(Parts(mine=mine), told.append))
        except _DoneError:
            return _Told(_lasting(told))
        except PrunusError as error:
            passing = isinstance(error, RunError) and not isinstance(error, NotFiniteError)
            if passing or isinstance(error, OutputError):
                raise
            return _Told(_lasting(told), (str(error), type(error)))
        raise RunError(f"a worker didn't come to {mine.stage}; go on without workers")


def _lasting(told: Sequence[Event]) -> tuple[Event, ...]:
    return tuple(event for event in told if event.kind != "progress")


def _sent(
    crew: Crew,
    way: Way,
    workspace: Workspace,
    stage: str,
    names: Sequence[str],
    left: Sequence[int],
    *,
    together: bool,
    guessed: bool,
) -> list[Done]:
    """Have a crew do the parts that are left, and tell what it told, in the order of the parts."""
    assert workspace.folder is not None
    n_tasks = min(crew.dispatch.workers, len(left)) if together else len(left)
    shares = [tuple(left[start::n_tasks]) for start in range(n_tasks)]
    forget_aside(workspace.folder)
    found: dict[int, Done] = {}
    n_heard, n_done, start = 0, len(names) - len(left), perf_counter()
    workspace.listener(Event("start", stage, total=len(names)))
    with _marked(workspace.folder) as mark:
        packed_way = packed(way)
        tasks = [Mine(stage, places, ", ".join(names[at] for at in places), packed_way, mark) for places in shares]
        for number, answer in crew.map(tasks):
            found[number] = _done(tasks[number].name, answer)
            n_done += len(tasks[number].places)
            workspace.listener(Event("progress", stage, tasks[number].name, n_done, len(names)))
            while n_heard in found:
                workspace.hear(() if guessed and n_heard else found[n_heard].events)
                n_heard += 1
    workspace.listener(Event("end", stage, facts={"seconds": round(perf_counter() - start, 3)}))
    return [found[number] for number in range(n_tasks)]


def _done(name: str, answer: _Told | Failure) -> Done:
    if isinstance(answer, Failure):
        tries = "once" if answer.n_tries == 1 else f"{answer.n_tries} times"
        return Done(name, (), (f"{answer.message} (tried {tries})", RunError))
    return Done(name, answer.events, answer.wrong)


def raise_first(workspace: Workspace, stage: str, done: Sequence[Done]) -> None:
    """Raise what was wrong with the first parts that failed, with their name; warnings say what was wrong with others."""
    failed = [(one.name, *one.wrong) for one in done if one.wrong is not None]
    said = [text if text.startswith(name) else f"{name}: {text}" for name, text, _ in failed]
    for message in said[1:]:
        workspace.warn(stage, message)
    if failed:
        raise failed[0][2](said[0])


@contextmanager
def _marked(folder: Path) -> Iterator[str]:
    """Leave a file in the folder by which others know it, for a block."""
    mark = f"workers.{secrets.token_hex(4)}"
    write_text(folder / WORK / mark, "")
    try:
        yield mark
    finally:
        remove(folder / WORK / mark)
