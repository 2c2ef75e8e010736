"""How does a run share its trainings with the other processes that torchrun started?

Rank 0 runs everything, as one process would: it scores, decides, cuts, measures, writes and speaks. The others have read the same
data and wait for trainings. So the plan is that of one process by construction, and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from prunus.core.code.place import Place, place
from prunus.core.errors import PrunusError, RecipeError
from prunus.core.recipes.recipe import Recipe
from prunus.core.runtime import pick_device, single_run_settings
from prunus.data import Prepared
from prunus.pipeline.jobs.workspace import LOAD_DATA, LOG, Workspace
from prunus.recover import current, follow_trainings, leading, open_meeting

__all__ = ["follow_trainings_of", "led", "share_trainings"]

_LOOKED_AT = 1024
"""Bytes of the log's end."""
_PARTS = ("train", "validation", "calibration", "test")


@contextmanager
def led(recipe: Recipe, here: Place | None = None) -> Iterator[None]:
    """Lead the other processes inside the block, where there are any; at its end they end, too.

    Raises:
        RunError: they can't be reached.
    """
    here = here or place()
    if here.alone:
        yield
        return
    meeting = open_meeting(here, cuda=_on_cuda(recipe))
    meeting.sharding = recipe.runtime.sharding
    try:
        with leading(meeting):
            yield
    finally:
        meeting.end()


def share_trainings(recipe: Recipe, data: Prepared, workspace: Workspace) -> None:
    """Find out before any training that the others have the same data, and that every batch has an example for each.

    Who doesn't see the folder of the run is named: a restart may make it rank 0.

    Raises:
        RecipeError: a batch has too few examples.
        RunError: another process has other versions, other data, or none.
    """
    meeting = current()
    if meeting is None:
        return
    for key, section in (("train", recipe.train), ("recovery", recipe.recovery)):
        if section.epochs and section.batch_size < meeting.place.n_ranks:
            raise RecipeError(
                f"{key}.batch_size: every rank needs an example of each batch: got {section.batch_size} for "
                f"{meeting.place.n_ranks} ranks; raise it, or start fewer"
            )
    meeting.show(_end_of_log(workspace.folder))
    if blind := meeting.check_reports(data.fingerprint):
        workspace.warn(
            LOAD_DATA,
            f"{', '.join(blind)} can't see {workspace.folder} as it is on {meeting.place.host}: where a restart makes that rank 0, "
            "the run begins anew there; put the output on storage that all machines share",
        )
    meeting.known = _known(data)


def follow_trainings_of(
    prepare: Callable[[], Recipe], read: Callable[[Recipe, torch.device], Prepared], here: Place
) -> bool:
    """Take part in the trainings of rank 0; return whether it ended them, False where something is wrong that it says.

    Args:
        prepare: gives the recipe.
        read: gives its data.

    Raises:
        RunError: something is wrong here, and rank 0 isn't there to say so.
    """
    problem: PrunusError | None = None
    recipe: Recipe | None = None
    try:
        recipe = prepare()
    except PrunusError as error:
        problem = error
    meeting = open_meeting(here, cuda=recipe is not None and _on_cuda(recipe))
    if recipe is not None:
        with single_run_settings(recipe.runtime.threads):
            try:
                data = read(recipe, pick_device(recipe.runtime.device))
            except PrunusError as error:
                problem = error
            else:
                meeting.known = _known(data)
                sees = _sees(Path(recipe.output), meeting.shown())
                meeting.report({"fingerprint": data.fingerprint, "sees": sees})
                return follow_trainings(meeting)
    meeting.report({"error": str(problem)})
    meeting.await_call()
    meeting.leave()
    return False


def _end_of_log(folder: Path | None) -> dict[str, Any] | None:
    """Return how the log of a run ends just now: no other run's ends so, since its lines have their time."""
    if folder is None:
        return None
    content = (folder / LOG).read_bytes()
    return {"before": max(len(content) - _LOOKED_AT, 0), "end": content[-_LOOKED_AT:].decode("latin-1")}


def _sees(folder: Path, shown: dict[str, Any] | None) -> bool:
    """Return whether the log that rank 0 shows lies here, too."""
    if shown is None:
        return True
    try:
        with (folder / LOG).open("rb") as file:
            file.seek(shown["before"])
            return bool(file.read(len(shown["end"])).decode("latin-1") == shown["end"])
    except OSError:
        return False


def _on_cuda(recipe: Recipe) -> bool:
    name = recipe.runtime.device
    return torch.cuda.is_available() and (name == "auto" or name.startswith("cuda"))


def _known(data: Prepared) -> dict[str, Any]:
    """Return what every process has of its own, by name: it isn't sent with a training."""
    known: dict[str, Any] = {"source": data.source}
    for name in _PARTS:
        examples = getattr(data, name)
        for attribute in ("source", "_inputs", "_teacher"):
            known[f"{name}.{attribute}"] = getattr(examples, attribute, None)
    return known
