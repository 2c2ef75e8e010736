"""The main job, as a list of stages.

data -> model -> evidence -> score -> select -> **Plan** -> apply -> recover -> evaluate -> report -> ship
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunus.core.code.place import Place
from prunus.core.errors import PlanError
from prunus.core.events import Listener, silent
from prunus.core.files.example_table import ExampleTable
from prunus.core.files.plan_file import load_plan, save_plan
from prunus.core.recipes.recipe import Recipe, Schedule
from prunus.core.runtime import pick_device, single_run_settings
from prunus.core.types import Plan, Step
from prunus.core.values import check_values
from prunus.data import Prepared
from prunus.graph.tracing.states import duplicate
from prunus.models import build, check_builder, check_kind, check_outputs, load_weights
from prunus.pipeline.cut.compensation import check_compensation
from prunus.pipeline.cut.prunable import check_patterns
from prunus.pipeline.cut.weight_tiles import check_tiles
from prunus.pipeline.exported import check_export, export_notes, export_of_run
from prunus.pipeline.handed import prepared_for
from prunus.pipeline.int8.of_run import check_int8, int8_of_run
from prunus.pipeline.jobs.card_of_run import card_of_run
from prunus.pipeline.jobs.job import Asked, Candidate, Decide, Job, SeedResult
from prunus.pipeline.jobs.objective import check_objective
from prunus.pipeline.jobs.reuse import dense_fingerprint, take_over, training_stage
from prunus.pipeline.jobs.run_again import reached, with_workers
from prunus.pipeline.jobs.shared_trainings import follow_trainings_of, share_trainings
from prunus.pipeline.jobs.workspace import LOAD_DATA, RECORD, TRACKING, Workspace, open_workspace
from prunus.pipeline.joint.joint_grid import check_joint, joint_grid
from prunus.pipeline.measure import CONTROL, epochs_of, measure_run, observe_ahead, timed
from prunus.pipeline.offered import load_offered
from prunus.pipeline.shipping import model_fingerprint, ship, ship_dense
from prunus.pipeline.stages.example_stage import check_examples, clean, judge_examples
from prunus.pipeline.stages.feature_stage import judge_features, select_features
from prunus.pipeline.stages.model_stage import check_schedule, fit, fit_dense, prune_model, retrain, starting_point
from prunus.pipeline.stages.plan_table import table_of_steps
from prunus.pipeline.stages.scoring.example_evidence import named_criteria
from prunus.pipeline.stages.selection_gate import check_gate, gate_selection
from prunus.pipeline.target_search import check_contract, check_floor, search_model
from prunus.report import RunRecord, load_record, save_record, with_int8, write_html
from prunus.report.tracking import tracked
from prunus.score import check_calibration, check_criterion, example_criteria
from prunus.ship import write_card
from prunus.tasks import Regression, check_metrics

__all__ = [
    "apply_plan",
    "check_recipe_names",
    "finish",
    "follow",
    "gated",
    "make_plan",
    "own_seed",
    "plan_of",
    "prune_seed",
    "run",
    "run_job",
    "run_seed",
]


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
    recipe = recipe.model_copy(update={"seeds": (plan.seed,), **_as_decided(plan, recipe)})
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
            save_plan(plan, folder / "plan", _table(job, plan))
        workspace.forget(but=training_stage(plan.seed))
        return plan


def _finish(recipe: Recipe, workspace: Workspace, plan: Plan | None) -> RunRecord:
    assert workspace.folder is not None
    told = recipe.model_dump(mode="json")
    with tracked(recipe.tracking, workspace.folder / TRACKING, recipe.name, told, workspace.listener) as tracker:
        workspace.listener = tracker
        with open_job(recipe, workspace) as job:
            if plan is not None:
                _check_plan(plan, job)
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
        save_plan(made, folder / "plan", _table(job, made))
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


def gated(job: Job, steps: Mapping[int, tuple[Step, ...]]) -> dict[str, Any]:
    """Return how what each seed's steps leave of the examples does against chance and against all of them."""
    kept = {seed: clean(job.data.train, own) for seed, own in steps.items()}
    return gate_selection(job.by(partial(gated, steps=steps)), kept)


def run_job(job: Job, plan: Plan | None = None) -> list[SeedResult]:
    """Return the result of every seed."""
    seeds = job.recipe.seeds
    if plan is not None:
        decide = _decide_from(plan)
        return [run_seed(job, seed, decide) for seed in seeds]
    job, names = job.by(run_job), [f"seed {seed}" for seed in seeds]

    def one(place: int) -> SeedResult:
        result = own_seed(job, seeds[place])
        if job.parts.mine is not None:
            observe_ahead(job, result)  # while its models are here
        return result

    return job.parts.each(job.workspace, "seeds", names, one)


def own_seed(job: Job, seed: int, *, recover_last: bool = True) -> SeedResult:
    """Return the result of one seed, whose decisions are its own."""
    job = job.by(partial(own_seed, seed=seed, recover_last=recover_last))
    return run_seed(job, seed, job.workspace.decided, recover_last=recover_last)


def run_seed(job: Job, seed: int, decide: Decide, *, recover_last: bool = True) -> SeedResult:
    """Return the dense and the pruned model of one seed, and what was decided on the way."""
    dense, history = fit_dense(job, seed)
    result = prune_seed(job, seed, dense, decide, recover_last=recover_last)
    return replace(result, histories={"train": history, **result.histories} if history else result.histories)


def prune_seed(job: Job, seed: int, dense: nn.Module, decide: Decide, *, recover_last: bool = True) -> SeedResult:
    """Return what becomes of a trained model and its data: clean, narrow, prune, recover."""
    example_steps = judge_examples(job, seed, decide)
    train = clean(job.data.train, example_steps)
    feature_steps = judge_features(job, seed, dense, decide)
    start, rewound = starting_point(job, seed, dense)
    candidate = select_features(job, Candidate(start), feature_steps)
    if rewound is not None:
        candidate = candidate.replaced(rewound=select_features(job, Candidate(rewound), feature_steps).model)
    prune_steps: tuple[Step, ...] = ()
    histories: dict[str, dict[str, Any]] = {}
    search: dict[str, Any] | None = None
    if job.recipe.target is not None:
        candidate, prune_steps, histories, search = search_model(job, seed, dense, candidate, train, decide)
    elif job.recipe.strategy is not None:
        candidate, prune_steps, histories = prune_model(
            job, seed, dense, candidate, train, decide, recover_last=recover_last
        )
    elif recover_last:
        candidate, histories = retrain(job, seed, dense, candidate, train)
    compared, control = _control(job, seed, dense, histories) if recover_last else (dense, {})
    steps = (*example_steps, *feature_steps, *prune_steps)
    return SeedResult(seed, compared, candidate, steps, train, {**histories, **control}, search)


def _control(
    job: Job, seed: int, dense: nn.Module, histories: Mapping[str, Mapping[str, Any]]
) -> tuple[nn.Module, dict[str, dict[str, Any]]]:
    """Return the dense model to compare with, and its further training: as many epochs as the pruned model had after the cuts."""
    n_epochs = epochs_of(histories)["pruned"]
    if job.recipe.evaluation.control == "none" or n_epochs == 0:
        return dense, {}
    config = job.recipe.recovery.model_copy(update={"epochs": n_epochs})
    trained = duplicate(dense)
    stage = f"seed {seed} / {CONTROL}"
    return trained, {CONTROL: fit(job, trained, job.data.train, config, seed=seed, stage=stage)}


def follow(prepare: Callable[[], Recipe], here: Place) -> bool:
    """Take part in the trainings of rank 0, whose recipe ``prepare`` gives; see :func:`follow_trainings_of`."""

    def read(recipe: Recipe, device: torch.device) -> Prepared:
        load_offered(recipe)
        check_recipe_names(recipe)
        return prepared_for(recipe, device)[0]

    return follow_trainings_of(prepare, read, here)


@contextmanager
def open_job(recipe: Recipe, workspace: Workspace) -> Iterator[Job]:
    """Load the data, and say how the model is built."""
    load_offered(recipe)
    check_recipe_names(recipe)
    with reached(recipe, workspace), single_run_settings(recipe.runtime.threads):
        device = pick_device(recipe.runtime.device)
        with workspace.stage(LOAD_DATA):
            data, own_test = prepared_for(recipe, device)
            share_trainings(recipe, data)
        for note in data.notes:
            workspace.note(LOAD_DATA, note)

        known = bool(data.train.class_names) or isinstance(data.train.task, Regression)

        def fresh(seed: int) -> nn.Module:
            shape, n_outputs = data.source.input_shape, data.train.n_outputs if known else None
            model = build(recipe.model, input_shape=shape, n_outputs=n_outputs, seed=seed)
            if recipe.model.weights is not None:
                load_weights(model, recipe.model.weights)
            return model

        train_dense = recipe.model.weights is None and recipe.train.epochs > 0
        job = Job(recipe, data, fresh, train_dense, workspace, device, own_split=own_test)
        for note in job.split_notes:
            workspace.note(LOAD_DATA, note)
        _check_fit(job)
        workspace.begin_on(data.fingerprint)
        with with_workers(job, open_job) as shared:
            yield shared


def check_recipe_names(recipe: Recipe) -> None:
    """Find out that a name means nothing before any data are read."""
    check_builder(recipe.model)
    for _, name in named_criteria(recipe.examples) if recipe.examples is not None else ():
        _ = example_criteria[name]
    if recipe.strategy is not None:
        for granularity in recipe.strategy.granularity:
            check_criterion(recipe.strategy.criterion, granularity)
        check_compensation(recipe.strategy)


def _check_fit(job: Job) -> None:
    """Find out that the recipe doesn't fit the data or the model before anything is trained."""
    data, recipe = job.data, job.recipe
    check_metrics(recipe.evaluation.metrics, data.train.task.name)
    check_contract(recipe, data)
    check_int8(job)
    if recipe.strategy is not None:
        check_calibration(recipe.strategy.criterion, len(data.calibration))
    check_examples(job)
    if recipe.examples is not None and recipe.examples.gate:
        check_gate(job)
    batch = next(iter(data.calibration.batches(2)))
    model = job.build(recipe.seeds[0])
    check_export(job, model)
    check_kind(model)
    model = model.to(job.device)
    check_values(model)
    if recipe.strategy is not None:
        check_patterns(model, recipe.strategy)
        check_schedule(job)
        check_tiles(model, recipe.strategy)
    check_outputs(model, batch, data.train.task)
    check_objective(job, model, batch)
    check_floor(job, model)
    if recipe.joint is not None:
        check_joint(job)


def plan_of(job: Job, result: SeedResult) -> Plan:
    """Return the plan that a seed's decisions make."""
    fingerprints = {"data": job.data.fingerprint, "model": model_fingerprint(job.build(result.seed))}
    fingerprints |= dense_fingerprint(job.workspace, result.seed)
    return Plan(result.steps, result.seed, job.recipe.model_dump(mode="json"), fingerprints)


def _table(job: Job, plan: Plan) -> ExampleTable | None:
    """Return what a plan says of the examples, one row each; None where it says nothing."""
    if not any(step.granularity == "example" for step in plan.steps):
        return None
    return table_of_steps(job.data.train, plan.steps, job.data.fingerprint)


def _check_plan(plan: Plan, job: Job) -> None:
    """Refuse a plan for other data or another model before anything is trained."""
    here = {"data": job.data.fingerprint, "model": model_fingerprint(job.build(plan.seed))}
    for what, value in here.items():
        if plan.fingerprints.get(what) != value:
            raise PlanError(
                f"the plan was made for other {what} (fingerprint {plan.fingerprints.get(what, 'missing')[:12]}, got "
                f"{value[:12]}): use the {what} of the plan, or make a new plan"
            )


def _as_decided(plan: Plan, recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe says once all is decided: with a target so many rounds, and nothing left to look for."""
    kept: dict[str, Any] = {"joint": None, "tracking": ()}  # what the plan's maker tracks stays there
    if recipe.examples is not None:
        # What a table or a recording said is in the plan's steps.
        kept["examples"] = recipe.examples.model_copy(update={"plan": None, "recording": None})
    if recipe.target is None or recipe.strategy is None:
        return kept
    n_rounds = sum(1 for _ in plan.of("prune"))
    strategy = recipe.strategy.model_copy(
        update={"schedule": Schedule(kind="linear", rounds=max(1, n_rounds)), "allocation": "uniform"}
    )
    return kept | {"strategy": strategy if n_rounds else None, "target": None, "contract": None}


def _decide_from(plan: Plan) -> Decide:
    """Answer every question from the plan, in its order."""
    pending = list(plan.steps)

    def decide(asked: Asked, name: str, compute: object) -> tuple[Step, ...]:
        taken: list[Step] = []
        if asked == "prune":
            while pending and pending[0].operation != "prune":
                pending.pop(0)
            if not pending:
                raise PlanError(
                    f"{name}: the plan has no step left for it; it was made with another schedule, make a new plan"
                )
            return (pending.pop(0),)
        while pending and pending[0].granularity == asked:
            taken.append(pending.pop(0))
        return tuple(taken)

    return decide
