"""How is the dense model that many trials prune trained once?

It hangs on data, model, training and runtime alone. What one trial trained is kept, under a name that follows from these, and the
others take it over; where two train it at once, they get the same.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from prunus.core.files.plain_files import atomic_folder
from prunus.core.files.sealed import short_digest
from prunus.core.recipes.recipe import Recipe
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.reuse import training_stage

__all__ = ["dense_place", "keep_dense", "take_dense"]


def take_dense(shared: Path, job: Job, seed: int, share: float) -> None:
    """Put the dense model of a seed where the job will find it, if it was trained before."""
    source, own = dense_place(shared, job.recipe, seed, share), _own(job, seed)
    if not job.train_dense or own is None or own.exists() or not source.is_dir():
        return
    own.parent.mkdir(parents=True, exist_ok=True)
    for kept in sorted(
        source.iterdir(), key=lambda path: path.name == own.name
    ):  # states to rewind to first, the sign last
        if kept.is_dir():
            shutil.copytree(kept, own.parent / kept.name, dirs_exist_ok=True)
        else:
            shutil.copy2(kept, own.parent / kept.name)


def keep_dense(shared: Path, job: Job, seed: int, share: float) -> None:
    """Keep the dense model of a seed for other trials."""
    target, own = dense_place(shared, job.recipe, seed, share), _own(job, seed)
    if not job.train_dense or own is None or not own.is_dir() or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(target) as temporary:
        for kept in own.parent.glob(f"{own.name}*"):
            if kept.is_dir():
                shutil.copytree(kept, temporary / kept.name)
            elif not kept.name.endswith(".checkpoint"):
                shutil.copy2(kept, temporary / kept.name)


def _own(job: Job, seed: int) -> Path | None:
    return job.workspace.path(training_stage(seed))


def dense_place(shared: Path, recipe: Recipe, seed: int, share: float) -> Path:
    """Return where the dense model that a recipe trains under a seed, on a share of its examples, is kept."""
    sections = {name: getattr(recipe, name).model_dump(mode="json") for name in ("data", "model", "train", "runtime")}
    rewind = None if recipe.strategy is None else recipe.strategy.schedule.rewind_to
    return shared / short_digest({**sections, "rewind": rewind, "share": share}) / f"seed {seed}"
