"""How does another process open a run that this one does, to do a part of it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from prunus.core.errors import RecipeError
from prunus.core.events import Listener
from prunus.core.recipes.execution.dispatch_section import Dispatch
from prunus.core.recipes.named_places import local_places
from prunus.core.recipes.recipe import Recipe
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.parts import Crew, Parts
from prunus.pipeline.jobs.workspace import Workspace
from prunus.recover import current
from prunus.scale.dispatch import reach_workers

__all__ = ["RunAgain", "reached", "with_workers"]

OpenJob = Callable[[Recipe, Workspace], AbstractContextManager[Job]]


@dataclass(frozen=True)
class RunAgain:
    """Opens the run of a recipe in its folder; ``open_job`` is a function of a module."""

    recipe: Recipe
    folder: str
    open_job: OpenJob

    @contextmanager
    def __call__(self) -> Iterator[Callable[[Parts, Listener], Job]]:
        """Yield a function that gives the job anew."""
        folder = Path(self.folder)
        with self.open_job(self.recipe, Workspace(folder, logs=False)) as job:
            yield lambda parts, listener: replace(job, parts=parts, workspace=Workspace(folder, listener, logs=False))


@contextmanager
def reached(recipe: Recipe, workspace: Workspace) -> Iterator[None]:
    """Be a part of the cluster that a recipe asks for, for a block; a cluster that can't be had is told before any data are read.

    Raises:
        RecipeError: torchrun shares the trainings among processes already, or no node has what a worker needs.
        RunError: the cluster doesn't answer, or runs other versions.
    """
    dispatch = _asked(recipe, workspace.folder)
    with reach_workers(None if _is_timed(recipe) else dispatch):
        yield


@contextmanager
def with_workers(job: Job, open_job: OpenJob) -> Iterator[Job]:
    """Yield the job with those who do what falls into parts, as its recipe's section ``dispatch`` says.

    Raises:
        RecipeError: torchrun shares the trainings among processes already.
    """
    folder = job.workspace.folder
    dispatch = _asked(job.recipe, folder)
    if dispatch is None:
        yield job
        return
    if _is_timed(job.recipe):
        job.workspace.note("load data", "a latency is measured, which workers would disturb: this process does all")
        yield job
        return
    again = RunAgain(job.recipe.model_copy(update={"dispatch": None}), str(folder), open_job)
    crew = Crew(dispatch, again, job.workspace.listener, reads=local_places(job.recipe))
    try:
        yield replace(job, parts=Parts(crew))
    finally:
        crew.dismiss()


def _asked(recipe: Recipe, folder: Path | None) -> Dispatch | None:
    """Return which workers a recipe asks for; None where this process does all."""
    dispatch = recipe.dispatch
    if dispatch is None or folder is None or not dispatch.shares:
        return None
    if current() is not None:
        raise RecipeError(
            f"dispatch: torchrun's processes share every training already: got {dispatch.workers} workers, too; leave them out, or "
            "start without torchrun"
        )
    return dispatch


def _is_timed(recipe: Recipe) -> bool:
    return recipe.target is not None and recipe.target.kind == "latency"
