"""What does a run start from, and does it fit together?

All that can be found out before anything is trained is found out here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from prunus.core.code.place import Place
from prunus.core.recipes.recipe import Recipe
from prunus.core.runtime import pick_device, single_run_settings
from prunus.core.values import check_values
from prunus.data import Prepared
from prunus.models import build, check_builder, check_kind, check_outputs, load_weights
from prunus.pipeline.cut.compensation import check_compensation
from prunus.pipeline.cut.prunable import check_patterns
from prunus.pipeline.cut.weight_tiles import check_tiles
from prunus.pipeline.exported import check_export
from prunus.pipeline.handed import prepared_for
from prunus.pipeline.int8.of_run import check_int8
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.objective import check_objective
from prunus.pipeline.jobs.run_again import reached, with_workers
from prunus.pipeline.jobs.shared_trainings import follow_trainings_of, share_trainings
from prunus.pipeline.jobs.workspace import LOAD_DATA, Workspace
from prunus.pipeline.joint.joint_grid import check_joint
from prunus.pipeline.offered import load_offered
from prunus.pipeline.stages.example_stage import check_examples
from prunus.pipeline.stages.model_stage import check_schedule
from prunus.pipeline.stages.scoring.example_evidence import named_criteria
from prunus.pipeline.stages.selection_gate import check_gate
from prunus.pipeline.target_search import check_contract, check_floor
from prunus.score import check_calibration, check_criterion, example_criteria
from prunus.tasks import Regression, check_metrics

__all__ = ["check_recipe_names", "follow", "open_job"]


@contextmanager
def open_job(recipe: Recipe, workspace: Workspace) -> Iterator[Job]:
    """Load the data, and say how the model is built."""
    load_offered(recipe)
    check_recipe_names(recipe)
    with reached(recipe, workspace), single_run_settings(recipe.runtime.threads):
        device = pick_device(recipe.runtime.device)
        with workspace.stage(LOAD_DATA):
            data, own_test = prepared_for(recipe, device)
            share_trainings(recipe, data, workspace)
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
        workspace.begin_on(data.fingerprint, recipe.model.weights)
        with with_workers(job, open_job) as shared:
            yield shared


def follow(prepare: Callable[[], Recipe], here: Place) -> bool:
    """Take part in the trainings of rank 0, whose recipe ``prepare`` gives; see :func:`follow_trainings_of`."""

    def read(recipe: Recipe, device: torch.device) -> Prepared:
        load_offered(recipe)
        check_recipe_names(recipe)
        return prepared_for(recipe, device)[0]

    return follow_trainings_of(prepare, read, here)


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
