"""How is what a layer's loss was when it alone was pruned measured once for many trials?

The sensitivity hangs on the dense model, the criterion and the units, and neither on how much goes nor on the recovery. What one
trial (or the search, for its first trials) measured is kept under a name that follows from these, and the others take it over.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from prunus.core.files.plain_files import atomic_folder
from prunus.core.files.sealed import short_digest
from prunus.core.recipes.recipe import Strategy
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.stages.model_stage import n_rounds
from prunus.score import criteria

__all__ = ["keep_losses", "take_losses"]

_ABOUT = ("data", "model", "train", "examples", "features", "runtime")
_FREE = ("keep_fraction", "cutoff", "allocation", "schedule", "compare_allocations", "owl_multiple", "owl_spread")
"""What the strategy says beside which units there are and how they are scored."""


def take_losses(shared: Path, job: Job, seed: int, share: float) -> None:
    """Put the losses where the first cut of the job will find them, if they were measured before."""
    strategy = job.recipe.strategy
    if strategy is None or not _measures(job):
        return
    source, work = _place(shared, job, strategy, seed, share), job.workspace.path()
    if work is None or not source.is_dir():
        return
    work.mkdir(parents=True, exist_ok=True)
    for kept in sorted(source.iterdir()):
        target = work / f"{_start(strategy, seed)}{kept.name}"
        if not target.exists():
            shutil.copy2(kept, target)


def keep_losses(shared: Path, job: Job, seed: int, share: float) -> None:
    """Keep the losses that the job measured for other trials."""
    strategy = job.recipe.strategy
    if strategy is None or not _measures(job):
        return
    target, work = _place(shared, job, strategy, seed, share), job.workspace.path()
    start = _start(strategy, seed)
    found = [] if work is None or target.exists() else sorted(work.glob(f"{start}*.safetensors"))
    if not found:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(target) as temporary:
        for path in found:
            shutil.copy2(path, temporary / path.name.removeprefix(start))


def _measures(job: Job) -> bool:
    """Return whether the first cut of a job is of the dense model as it was trained, and measures losses."""
    recipe, strategy = job.recipe, job.recipe.strategy
    if strategy is None or recipe.target is not None or strategy.allocation != "sensitivity":
        return False
    return strategy.schedule.during == "recovery" and criteria[strategy.criterion].regularizer is None


def _start(strategy: Strategy, seed: int) -> str:
    return f"seed {seed} _ prune 1 of {n_rounds(strategy)} _ loss"


def _place(shared: Path, job: Job, strategy: Strategy, seed: int, share: float) -> Path:
    about = {
        name: None if section is None else section.model_dump(mode="json")
        for name, section in ((name, getattr(job.recipe, name)) for name in _ABOUT)
    }
    scored = {key: value for key, value in strategy.model_dump(mode="json").items() if key not in _FREE}
    return shared / f"losses {short_digest({**about, 'strategy': scored, 'share': share})}" / f"seed {seed}"
