"""Which training examples should stay, and does it pay? ``prunus select``: score, select, judge, and write a table to look at.

Nothing is removed: what was decided is written into the table of the output folder, which people look at, change and give back
(``examples.plan``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from prunus.core.errors import RecipeError
from prunus.core.events import Listener, silent
from prunus.core.files.example_table import read_example_table
from prunus.core.recipes.recipe import Recipe
from prunus.core.types import Step
from prunus.data import Examples
from prunus.pipeline.flow.open_job import open_job
from prunus.pipeline.flow.seed_run import gated
from prunus.pipeline.jobs.examples_folder import check_undecided, of_files, open_examples, table_path, write_columns
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.run_folder import recipe_text
from prunus.pipeline.stages.example_stage import clean, judge_examples
from prunus.pipeline.stages.plan_table import table_of_steps
from prunus.pipeline.stages.scoring.pruned_scorer import scorer_facts, strategy_of_scorer

__all__ = ["Selected", "select_examples"]


@dataclass(frozen=True)
class Selected:
    """What was selected: ``summary`` are plain values (the gate's among them), and the table lies at ``table``."""

    table: Path
    summary: Mapping[str, Any]


def select_examples(
    recipe: Recipe, *, resume: bool = False, overwrite: bool = False, listener: Listener = silent
) -> Selected:
    """Select training examples as the recipe's section ``examples`` says, judge that, and write the table of the first seed.

    Every seed selects anew and is judged on the validation examples, against as many by chance and all examples for as many steps.

    Args:
        recipe: its data, model, training and seeds are used.
        resume: go on with what a killed command left, or say what a finished one found.
        overwrite: replace decisions that are in the table.
        listener: is told about progress.

    Raises:
        PrunusError: any of its kinds; what was trained stays for a resume.
    """
    asked, path = _asked(recipe), table_path(recipe)
    told_by = hashlib.sha256(recipe_text(asked).encode()).hexdigest()
    if resume and path.exists():
        found = read_example_table(path).facts.get("select")
        if isinstance(found, dict) and found.get("recipe") == told_by:
            return Selected(path, found["summary"])
    check_undecided(path, overwrite=overwrite)
    with open_examples(asked, resume=resume, overwrite=overwrite, listener=listener) as workspace:
        with open_job(asked, workspace) as job:
            steps = _selected(job)
            train = job.data.train
            gate = gated(job, steps)
            first = recipe.seeds[0]
            kept = clean(train, steps[first])
            summary = {
                "n": {"train": len(train), "kept": len(kept)},
                "classes": _classes(train, kept),
                "gate": gate,
                "scorer": scorer_facts(steps[first]),
            }
            facts = {"select": {"recipe": told_by, "seed": first, "summary": summary}}
            table = table_of_steps(train, steps[first], job.data.fingerprint, facts)
        write_columns(path, of_files(table, recipe), overwrite=overwrite)
    return Selected(path, summary)


def _selected(job: Job) -> dict[int, tuple[Step, ...]]:
    """Return what each seed selects."""
    job, seeds = job.by(_selected), job.recipe.seeds
    names = [f"seed {seed}" for seed in seeds]
    found = job.parts.each(job.workspace, "seeds", names, lambda place: _judged(job, seeds[place]))
    return dict(zip(seeds, found, strict=True))


def _judged(job: Job, seed: int) -> tuple[Step, ...]:
    return judge_examples(job.by(partial(_judged, seed=seed)), seed, job.workspace.decided)


def _asked(recipe: Recipe) -> Recipe:
    """Return the recipe of the selection alone.

    Raises:
        RecipeError: it says nothing of what stays.
    """
    examples = recipe.examples
    keys = ("plan", "clean", "relabel", "duplicates", "remove", "cover")
    if examples is None or not any(getattr(examples, key) for key in keys):
        raise RecipeError(
            "prunus select needs to know what stays: got no examples section that says it; add examples.cover.keep_fraction (-o "
            "examples.cover.keep_fraction=0.5)"
        )
    nothing_else: dict[str, Any] = dict.fromkeys(("features", "strategy", "target", "contract", "joint"))
    changes = {**nothing_else, "strategy": strategy_of_scorer(recipe)}
    return recipe.model_copy(update={"examples": examples.model_copy(update={"gate": True}), **changes})


def _classes(before: Examples, after: Examples) -> list[dict[str, Any]]:
    """Return how many examples of each class stay."""
    if not before.task.exclusive:
        return []
    given, left = (torch.bincount(part.targets.cpu(), minlength=before.n_outputs).tolist() for part in (before, after))
    return [{"name": name, "before": n, "kept": k} for name, n, k in zip(before.class_names, given, left, strict=True)]
