"""What is wrong with the training examples? ``prunus clean``: labels, duplicates, and test examples that the training knows.

Nothing is removed: what was found is written into a table, which people look at, change and give back (``examples.plan``), and on a
page that shows it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prunus.core.errors import DataError
from prunus.core.events import Listener, silent
from prunus.core.files.example_table import ExampleTable, read_example_table
from prunus.core.recipes.recipe import Clean, Duplicates, Examples, Recipe
from prunus.core.types import Step
from prunus.pipeline.flow.open_job import open_job
from prunus.pipeline.jobs.examples_folder import check_undecided, of_files, open_examples, table_path, write_columns
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.run_folder import EXAMPLES_PAGE, recipe_text
from prunus.pipeline.stages.duplicate_examples import Apart, alike_apart, check_likeness, pair_of, usual_duplicates
from prunus.pipeline.stages.example_facts import class_facts, map_facts, n_alike, pair_facts, suspect_facts
from prunus.pipeline.stages.example_stage import clean, judge_examples, thinned_classes
from prunus.pipeline.stages.label_cleaning import label_facts
from prunus.pipeline.stages.label_precision import precision_facts
from prunus.pipeline.stages.plan_table import table_of_steps
from prunus.pipeline.stages.scoring.pruned_scorer import scorer_facts, strategy_of_scorer
from prunus.pipeline.stages.unseen_answers import FOLDS, plane
from prunus.report import ExamplesFacts, write_examples_html

__all__ = ["Cleaned", "clean_examples"]

_FIRST = 10
"""So many of the examples that are called wrong are told in the terminal."""


@dataclass(frozen=True)
class Cleaned:
    """What was found: ``summary`` are plain values, and the table and the page lie at ``table`` and ``page``."""

    table: Path
    page: Path
    summary: Mapping[str, Any]


def clean_examples(
    recipe: Recipe, *, resume: bool = False, overwrite: bool = False, listener: Listener = silent
) -> Cleaned:
    """Look for wrong labels, near-duplicates and leaked test examples, and write what was found into the output folder's table.

    What the recipe doesn't say of ``clean`` and ``duplicates`` is as by default; its other keys of ``examples`` aren't asked.

    Args:
        recipe: its data, model and training are used, with the first seed.
        resume: go on with what a killed command left, or say what a finished one found.
        overwrite: replace decisions that are in the table.
        listener: is told about progress.

    Raises:
        PrunusError: any of its kinds; what was trained stays for a resume.
    """
    path = table_path(recipe)
    asked, left_out = _asked(recipe)
    assert asked.examples is not None
    bare = asked.model_copy(update={"examples": asked.examples.model_copy(update={"duplicates": None})})
    told_by = hashlib.sha256(recipe_text(asked).encode()).hexdigest()
    if resume and path.exists():
        found = read_example_table(path).facts.get("clean")
        if isinstance(found, dict) and found.get("recipe") == told_by:
            return Cleaned(path, path.with_name(EXAMPLES_PAGE), found["summary"])
    check_undecided(path, overwrite=overwrite)
    with open_examples(asked, resume=resume, overwrite=overwrite, listener=listener) as workspace:
        with open_job(
            bare if recipe.examples is None or recipe.examples.duplicates is None else asked, workspace
        ) as opened:
            if left_out:
                workspace.note("clean", f"examples.{' and '.join(left_out)} aren't asked here: prunus run does that")
            job = _with_duplicates(opened, asked, recipe)
            seed = recipe.seeds[0]
            steps = _judged(job, job.recipe, seed)
            section = job.recipe.examples
            apart = alike_apart(job.data.train, job.data.test, None if section is None else section.duplicates)
            summary = _summary(job, steps, apart)
            table = _table(job, steps, {"clean": {"recipe": told_by, "summary": summary}})
            facts = _facts(job, seed, steps, apart)
        write_columns(path, of_files(table, recipe), overwrite=overwrite)
        write_examples_html(facts, path.with_name(EXAMPLES_PAGE))
    return Cleaned(path, path.with_name(EXAMPLES_PAGE), summary)


def _judged(job: Job, recipe: Recipe, seed: int) -> tuple[Step, ...]:
    """Return what is to become of the examples as ``recipe`` asks, which is the job's once it is known what can be compared."""
    job = replace(job, recipe=recipe).by(partial(_judged, recipe=recipe, seed=seed))
    return judge_examples(job, seed, job.workspace.decided)


def _asked(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """Return the recipe with what is looked for, and which keys of it aren't asked."""
    given = recipe.examples or Examples()
    left_out = [key for key in ("plan", "relabel", "remove") if getattr(given, key)]
    changes = {"clean": given.clean or Clean(), "duplicates": given.duplicates or Duplicates()}
    section = given.model_copy(update={**changes, "plan": None, "relabel": None, "remove": ()})
    nothing_else: dict[str, Any] = dict.fromkeys(("features", "target", "contract", "joint"))
    changed = {"examples": section, "strategy": strategy_of_scorer(recipe), **nothing_else}
    return recipe.model_copy(update=changed), left_out


def _with_duplicates(job: Job, asked: Recipe, recipe: Recipe) -> Job:
    """Return the job with the search for duplicates, of inputs or else of tokens; without it where neither can be compared."""
    if recipe.examples is not None and recipe.examples.duplicates is not None:
        return replace(job, recipe=asked)
    assert asked.examples is not None
    refused = []
    for given in (usual_duplicates(job.data.train), Duplicates(space="tokens")):
        try:
            check_likeness(given, job.data.train, job.data.test)
        except DataError as error:
            refused.append(error)
            continue
        examples = asked.examples.model_copy(update={"duplicates": given})
        return replace(job, recipe=asked.model_copy(update={"examples": examples}))
    job.workspace.note("clean", f"no duplicates are looked for: {refused[0]}")
    return job


def _table(job: Job, steps: Sequence[Step], facts: Mapping[str, Any]) -> ExampleTable:
    """Return the table, with the example that stands for each duplicate."""
    table = table_of_steps(job.data.train, steps, job.data.fingerprint, facts)
    pairs = [pair_of(reason) for reason in table.columns["reason"].tolist()]
    stands = np.array([None if pair is None else pair[0] for pair in pairs], object)
    likeness = np.array([np.nan if pair is None else pair[1] for pair in pairs])
    return table.with_columns({"duplicate_of": stands, "likeness": likeness})


def _summary(job: Job, steps: Sequence[Step], apart: Apart) -> dict[str, Any]:
    """Return what was found as plain values, for machines and the terminal."""
    train, test = job.data.train, job.data.test
    labels = label_facts(steps)
    first = suspect_facts(steps, job.data)[:_FIRST]
    leaked = [
        {"id": test.ids[one], "like": train.ids[other], "likeness": round(likeness, 6)}
        for one, other, likeness in apart.leaked[:_FIRST]
    ]
    return {
        "n": {"train": len(train), "test": len(test)},
        "labels": labels,
        "precision": precision_facts(steps),
        "n_alike": n_alike(steps, apart),
        "n_exact_between_parts": len(job.data.splits.duplicates),
        "suspects": [{key: value for key, value in row.items() if key != "image"} for row in first],
        "leaked": leaked,
        "scorer": scorer_facts(steps),
    }


def _facts(job: Job, seed: int, steps: Sequence[Step], apart: Apart) -> ExamplesFacts:
    """Return what the page shows."""
    train, data, recipe = job.data.train, job.data, job.recipe
    assert recipe.examples is not None
    place = plane(job, max(recipe.examples.folds, FOLDS), f"seed {seed} / judge examples")
    of = "what a model’s last layer reads that was trained on all folds but the first"
    return ExamplesFacts.model_validate(
        {
            "name": recipe.name,
            "source": recipe.data.source,
            "task": train.task.name,
            "n": {"train": len(train), "test": len(data.test)},
            "labels": label_facts(steps),
            "precision": precision_facts(steps),
            "classes": class_facts(steps, train),
            "suspects": suspect_facts(steps, data),
            "pairs": pair_facts(data, steps, apart),
            "n_alike": n_alike(steps, apart),
            "map": None if place is None else map_facts(train, steps, *place, of),
            "notes": [*data.notes, *thinned_classes(train, clean(train, steps))],
        }
    )
