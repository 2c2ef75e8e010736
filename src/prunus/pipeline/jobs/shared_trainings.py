"""How does a run share its trainings with the other processes that torchrun started?

Rank 0 runs everything, as one process would: it scores, decides, cuts, measures, writes and speaks. The others have read the same
data and wait for trainings. So the plan is that of one process by construction, and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from prunus.core.code.place import Place, place
from prunus.core.errors import PrunusError, RecipeError
from prunus.core.recipes.recipe import Recipe
from prunus.core.runtime import pick_device, single_run_settings
from prunus.data import Prepared
from prunus.recover import current, follow_trainings, leading, open_meeting

__all__ = ["follow_trainings_of", "led", "share_trainings"]

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


def share_trainings(recipe: Recipe, data: Prepared) -> None:
    """Find out before any training that the others have the same data, and that every batch has an example for each.

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
    meeting.check_reports(data.fingerprint)
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
                meeting.report({"fingerprint": data.fingerprint})
                return follow_trainings(meeting)
    meeting.report({"error": str(problem)})
    meeting.await_call()
    meeting.leave()
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
