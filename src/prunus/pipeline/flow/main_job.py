"""The main job, as a list of stages.

data -> model -> evidence -> score -> select -> **Plan** -> apply -> recover -> evaluate -> report -> ship
"""

from __future__ import annotations

from pathlib import Path

from prunus.core.events import Listener, silent
from prunus.core.files.plan_file import load_plan, save_plan
from prunus.core.recipes.recipe import Recipe
from prunus.core.types import Plan
from prunus.pipeline.exported import export_notes, export_of_run
from prunus.pipeline.flow.open_job import open_job
from prunus.pipeline.flow.plan_of_run import as_decided, check_plan, plan_of, table_of
from prunus.pipeline.flow.seed_run import gated, own_seed, run_job
from prunus.pipeline.int8.of_run import int8_of_run
from prunus.pipeline.jobs.card_of_run import card_of_run
from prunus.pipeline.jobs.job import Job, SeedResult
from prunus.pipeline.jobs.reuse import take_over, training_stage
from prunus.pipeline.jobs.run_folder import RECORD, TRACKING, open_workspace
from prunus.pipeline.jobs.workspace import Workspace
from prunus.pipeline.joint.joint_grid import joint_grid
from prunus.pipeline.measure import measure_run, timed
from prunus.pipeline.shipping import ship, ship_dense
from prunus.report import RunRecord, load_record, save_record, with_int8, write_html
from prunus.report.tracking import tracked
from prunus.ship import write_card

__all__ = ["apply_plan", "finish", "make_plan", "run"]


def run(
    recipe: Recipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener = silent,
) -> RunRecord:
    """Do everything that ``recipe`` describes, and return the record of it.

    Args:
        resume: go on with the run that the output folder holds; a finished one is only read.
        overwrite: throw that run away.

    Raises:
        PrunusError: any of its kinds; whatever was finished stays for a resume.
    """
    folder = Path(recipe.output)
    with open_workspace(recipe, folder, resume=resume, overwrite=overwrite, listener=listener) as workspace:
        if (folder / RECORD).exists():
            return load_record(folder / RECORD)
        return _finish(recipe, workspace, None)


def apply_plan(
    plan: Plan,
    recipe: Recipe,
    *,
    made_in: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener = silent,
) -> RunRecord:
    """Carry out ``plan`` as it stands: no scoring, the same cuts, then recovery, evaluation and shipping.

    Args:
        made_in: the folder that the plan was made in; the dense model that lies there isn't trained again.

    Raises:
        PlanError: the plan was made for other data or another model.
    """
    folder = Path(recipe.output)
    recipe = recipe.model_copy(update={"seeds": (plan.seed,), **as_decided(plan, recipe)})
    with open_workspace(recipe, folder, resume=resume, overwrite=overwrite, listener=listener) as workspace:
        if (folder / RECORD).exists():
            return load_record(folder / RECORD)
        if made_in is not None:
            take_over(plan, made_in, recipe, workspace)
        return _finish(recipe, workspace, plan)


def make_plan(recipe: Recipe, *, resume: bool = False, overwrite: bool = False, listener: Listener = silent) -> Plan:
    """Decide what would go with the recipe's first seed, write it to the output folder, and cut nothing."""
    folder = Path(recipe.output)
    with open_workspace(recipe, folder, resume=resume, overwrite=overwrite, listener=listener) as workspace:
        if (folder / "plan" / "plan.json").exists():
            return load_plan(folder)
        with open_job(recipe, workspace) as job:
            result = own_seed(job, recipe.seeds[0], recover_last=False)
            plan = plan_of(job, result)
            save_plan(plan, folder / "plan", table_of(job, plan))
        workspace.forget(but=training_stage(plan.seed))
        return plan


def _finish(recipe: Recipe, workspace: Workspace, plan: Plan | None) -> RunRecord:
    assert workspace.folder is not None
    told = recipe.model_dump(mode="json")
    with tracked(recipe.tracking, workspace.folder / TRACKING, recipe.name, told, workspace.listener) as tracker:
        workspace.listener = tracker
        with open_job(recipe, workspace) as job:
            if plan is not None:
                check_plan(plan, job)
            record, _ = finish(job, plan)
        tracker.finish(record)
    workspace.forget()
    return record


def finish(job: Job, plan: Plan | None = None) -> tuple[RunRecord, list[SeedResult]]:
    """Run every seed, measure, and write what a run leaves; the record comes last, as the sign that all is there.

    Without a folder nothing is written.
    """
    folder = job.workspace.folder
    results = run_job(job, plan)
    made = plan_of(job, results[0])
    if folder is not None:
        save_plan(made, folder / "plan", table_of(job, made))
    asked = job.recipe.examples is not None and job.recipe.examples.gate
    gate = gated(job, {result.seed: result.steps for result in results}) if asked else None
    joint = joint_grid(job, {result.seed: result.steps for result in results}) if job.recipe.joint else None
    with job.workspace.stage("evaluate"):
        record = measure_run(job, results, made, gate, joint)
    if folder is not None:
        sha256 = ship(job, results[0], folder / "bundle", card_of_run(job, results[0], record))
        record = record.model_copy(update={"fingerprints": {**record.fingerprints, "bundle": sha256}})
        if job.recipe.keep_dense:
            ship_dense(job, results[0], folder)
    if folder is not None and job.recipe.export is not None:
        exports = export_of_run(job, folder)
        record = record.model_copy(update={"exports": exports, "notes": [*record.notes, *export_notes(job, exports)]})
    if folder is not None and job.recipe.quantize is not None:
        record = with_int8(record, *int8_of_run(job, results[0], folder))
    if folder is not None and (record.exports or record.int8 is not None):
        sha256 = write_card(folder / "bundle", card_of_run(job, results[0], record))
        record = record.model_copy(update={"fingerprints": {**record.fingerprints, "bundle": sha256}})
    record = timed(record, job.workspace)
    if folder is not None:
        write_html(record, folder / "report.html")
        save_record(record, folder / RECORD)
    return record, results
