"""What is each training example of a recipe worth, and how sure is that? ``prunus score``.

Fresh models are trained as the section ``examples`` says, one for each seed, and what they say of every example is recorded beside
the table that the scores go into; or what the user's own training recorded is scored, and nothing is trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prunus.core.errors import DataError, OutputError
from prunus.core.events import Event, Listener, silent
from prunus.core.files.example_table import Column, ExampleTable, read_example_table, write_example_table
from prunus.core.files.plain_files import remove
from prunus.core.recipes.recipe import Examples, Recipe
from prunus.core.runtime import pick_device, single_run_settings
from prunus.pipeline.flow.open_job import open_job
from prunus.pipeline.handed import prepared_for
from prunus.pipeline.jobs.examples_folder import of_files, open_examples, table_path, write_columns
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.run_folder import RECORDING, TABLE, recipe_text
from prunus.pipeline.jobs.workspace import LOAD_DATA
from prunus.pipeline.stages.plan_table import label_columns
from prunus.pipeline.stages.recorded_training import check_recordable, places_in, record_training
from prunus.pipeline.stages.scoring.pruned_scorer import facts_of_scorer, scoring_job, strategy_of_scorer
from prunus.score import ExampleScores, Recording, scores_of

__all__ = ["Scored", "score_examples", "score_recordings"]

_FIRST = 5
"""So many of the examples at either end of a score are told."""


@dataclass(frozen=True)
class Scored:
    """What was found: ``summary`` are plain values, the table lies at ``table``, and what was recorded in ``recordings``."""

    table: Path
    recordings: tuple[Path, ...]
    summary: Mapping[str, Any]


def score_examples(
    recipe: Recipe,
    *,
    recordings: Sequence[Path] = (),
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener = silent,
) -> Scored:
    """Write the score of every training example, with its standard error, into the table of the output folder.

    Args:
        recipe: its data and model are used, ``examples.epochs``, the settings of ``train``, and the seeds: a training for each.
        recordings: score what these folders hold, of the user's own trainings on these data, instead of training; none: what
            ``examples.recording`` names, if anything.
        resume: go on with what a killed command left, or say what a finished one found.
        overwrite: replace scores that are in the table, and the recording beside it.
        listener: is told about progress.

    Raises:
        PrunusError: any of its kinds; what was trained stays for a resume.
    """
    path, bare = table_path(recipe), _asked(recipe)
    if not recordings and recipe.examples is not None and recipe.examples.recording is not None:
        recordings = (Path(recipe.examples.recording),)
    told_by = hashlib.sha256("\n".join([recipe_text(bare), *map(str, recordings)]).encode()).hexdigest()
    held = read_example_table(path).facts.get("score") if path.exists() and not overwrite else None
    folder = path.with_name(RECORDING)
    if isinstance(held, dict):
        if resume and held.get("recipe") == told_by:
            return Scored(path, tuple(map(Path, held["recordings"])), held["summary"])
        raise OutputError(
            f"{path} holds scores of other settings, or without --resume: add --overwrite to replace them"
        )
    with open_examples(bare, resume=resume, overwrite=overwrite, listener=listener) as workspace:
        scored_by: dict[str, Any] | None = None
        if recordings:
            with single_run_settings(recipe.runtime.threads), workspace.stage(LOAD_DATA):
                data = prepared_for(recipe, pick_device(recipe.runtime.device))[0]
            made = [Recording(where) for where in recordings]
        else:
            if folder.exists() and not (resume or overwrite):
                raise OutputError(
                    f"{folder} is there already: add --resume to go on with it, --overwrite to record anew"
                )
            if overwrite:
                _clear(folder)
            with open_job(bare, workspace) as job:
                data = job.data
                check_recordable(data.train)
                assert bare.examples is not None
                made = _recorded(job, folder, bare.examples.epochs)
                scorer = scoring_job(job, recipe.seeds[0])
                scored_by = facts_of_scorer(job, scorer, recipe.seeds[0], bare.examples)
        with workspace.stage("score examples"):
            scores = scores_of(made)
            labels = None if scores.labels is None else torch.from_numpy(scores.labels)
            places = places_in(made[0], data.train, labels).numpy()
            columns = label_columns(data.train) | {name: one[places] for name, one in scores.columns().items()}
            where = tuple(one.folder for one in made)
            summary = {**_summary(data.train.ids, columns, scores, made), "scorer": scored_by}
            facts = {"recipe": told_by, "recordings": [str(one) for one in where], "summary": summary}
            table = ExampleTable(tuple(data.train.ids), data.fingerprint, columns, {"score": facts})
            write_columns(path, of_files(table, recipe), overwrite=overwrite)
    return Scored(path, where, summary)


def _recorded(job: Job, folder: Path, epochs: int) -> list[Recording]:
    """Return what a training under each seed says of every example."""
    job, seeds = job.by(partial(_recorded, folder=folder, epochs=epochs)), job.recipe.seeds
    stages = [f"seed {seed} / record examples" for seed in seeds]

    def record(place: int) -> Recording:
        scorer, stage = scoring_job(job, seeds[place]), stages[place]
        with job.workspace.stage(stage):
            return record_training(scorer, seeds[place], epochs, folder / f"seed-{seeds[place]}", stage)

    return job.parts.each(job.workspace, "record examples", stages, record)


def score_recordings(folders: Sequence[Path], *, overwrite: bool = False, listener: Listener = silent) -> Scored:
    """Write the scores of what trainings recorded into a table in the first of their folders: no recipe, no data.

    Ids are positions; labels are class numbers.

    Raises:
        PrunusError: no recording, or one that can't be read; or a table is there already.
    """
    path = folders[0] / TABLE
    made = [Recording(folder) for folder in folders]
    for one in made:
        _ = one.header
    if path.exists() and not overwrite:
        raise OutputError(f"{path} is there already: add --overwrite to replace it")
    listener(Event("start", "score examples"))
    scores = scores_of(made)
    ids = tuple(map(str, range(made[0].n_examples)))
    columns: dict[str, Column] = {}
    if scores.labels is not None:
        names = made[0].task.class_names
        said = [names[label] if names else str(label) for label in scores.labels.tolist()]
        columns |= {"stratum": np.array(said, object), "label": np.array(said, object)}
    columns |= scores.columns()
    summary = _summary(ids, columns, scores, made)
    facts = {"recordings": [str(folder) for folder in folders], "summary": summary}
    fingerprint = made[0].header.fingerprint or _fingerprint(scores, made[0])
    write_example_table(ExampleTable(ids, fingerprint, columns, {"score": facts}), path)
    listener(Event("end", "score examples"))
    return Scored(path, tuple(folders), summary)


def _asked(recipe: Recipe) -> Recipe:
    """Return the recipe with what is needed to train and nothing that decides."""
    given, nothing_else = recipe.examples or Examples(), dict.fromkeys(("features", "target", "contract", "joint"))
    section = Examples(epochs=given.epochs, scorer=given.scorer)
    return recipe.model_copy(update={"examples": section, "strategy": strategy_of_scorer(recipe), **nothing_else})


def _clear(folder: Path) -> None:
    """Remove recordings of an earlier command, and nothing else."""
    if folder.is_symlink():
        raise OutputError(f"{folder} is a link, expected a folder of prunus: remove it")
    for one in sorted(folder.glob("seed-*")) if folder.is_dir() else []:
        if (one / "header.json").is_file() and not one.is_symlink():
            remove(one)


def _fingerprint(scores: ExampleScores, recording: Recording) -> str:
    """Return what identifies the data of a recording, as far as it knows: their number, task and labels."""
    digest = hashlib.sha256(f"{recording.header.task} {recording.n_examples} ".encode())
    if scores.labels is not None:
        digest.update(scores.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _summary(
    ids: Sequence[str], columns: Mapping[str, Column], scores: ExampleScores, made: Sequence[Recording]
) -> dict[str, Any]:
    """Return what was found as plain values, for machines and the terminal."""
    rows = []
    for name in scores.values:
        values, errors = columns[name].astype(np.float64), columns[f"{name}_error"].astype(np.float64)
        if not np.isfinite(values).all():
            raise DataError(f"the score {name} of example {ids[int((~np.isfinite(values)).argmax())]!r} isn't a number")
        order = np.argsort(values, kind="stable")
        rows.append(
            {
                "score": name,
                "median": float(np.median(values)),
                "low": float(np.quantile(values, 0.05)),
                "high": float(np.quantile(values, 0.95)),
                "error": _median(errors),
                "reliability": _reliability(values, errors) if scores.n_recordings > 1 else None,
                "lowest": [_row(ids, columns, name, place) for place in order[:_FIRST].tolist()],
                "highest": [_row(ids, columns, name, place) for place in order[::-1][:_FIRST].tolist()],
            }
        )
    return {
        "n": len(ids),
        "task": made[0].header.task,
        "n_trainings": scores.n_recordings,
        "n_epochs": [len(one.epochs) for one in made],
        "n_torn": scores.n_torn,
        "degrees_of_freedom": scores.degrees_of_freedom,
        "scores": rows,
    }


def _median(errors: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    known = errors[np.isfinite(errors)]
    return float(np.median(known)) if len(known) else None


def _reliability(
    values: np.ndarray[Any, np.dtype[np.float64]], errors: np.ndarray[Any, np.dtype[np.float64]]
) -> float | None:
    """Return which share of the examples' variance isn't error: near 0 the order of the examples is chance."""
    known = np.isfinite(errors)
    spread = float(values[known].var()) if known.any() else 0.0
    if spread == 0:
        return None
    return max(0.0, 1.0 - float(np.square(errors[known]).mean()) / spread)


def _row(ids: Sequence[str], columns: Mapping[str, Column], name: str, place: int) -> dict[str, Any]:
    error = float(columns[f"{name}_error"][place])
    label = columns["label"][place] if "label" in columns else None
    return {
        "id": ids[place],
        "label": label if label is None or isinstance(label, str) else float(label),
        "value": float(columns[name][place]),
        "error": error if np.isfinite(error) else None,
    }
