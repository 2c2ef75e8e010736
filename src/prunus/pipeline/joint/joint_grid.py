"""How well do shares of the training data and shares of the model do together?

A row of the grid is a share of the data: a dense model is trained on it, and every cell of the row prunes that one to its share of
the model and recovers it on the same data. Epochs are as long as those of all data, whatever the share, and a model that isn't
pruned is trained on for as long as the others recover, so that all cells of a seed take as many optimizer steps. They are measured
on the validation examples; the test examples aren't looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import mean
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from prunus.core.errors import DataError, RecipeError
from prunus.core.recipes.recipe import Joint, Recipe, Target
from prunus.core.types import Step
from prunus.data import Examples, Repeated
from prunus.evaluate import JudgedGrid, judge_grid, measure_cost, observe
from prunus.evaluate.harm import check_margin
from prunus.graph.tracing.states import duplicate
from prunus.pipeline.jobs.job import Candidate, Job
from prunus.pipeline.measure import CONTROL, epochs_of
from prunus.pipeline.stages.model_stage import fit, fit_dense, prune_model, starting_point
from prunus.pipeline.stages.nested_cover import check_nested, nested_selections
from prunus.pipeline.target_search import check_floor, search_model
from prunus.tasks import Observed, default_metrics

__all__ = ["check_joint", "joint_grid"]

_COSTS = "/costs"
"""Under which name a cell keeps its parameters that aren't zero, its MACs, and its epochs after the dense training."""
_MARGIN = 0.01


def joint_grid(job: Job, steps: Mapping[int, Sequence[Step]]) -> dict[str, Any]:
    """Return how each share of the data does with each share of the model, as plain values.

    Args:
        job: what is trained, and on what.
        steps: what the run decided about the examples under each seed.

    Raises:
        PrunusError: any of its kinds; cells that were finished stay for a resume.
    """
    check_joint(job)
    asked, n_all = _asked(job), len(job.data.train)
    n_rows, n_columns = len(asked.data), len(asked.model)
    observed: list[list[list[Observed]]] = [[[] for _ in range(n_columns)] for _ in range(n_rows)]
    costs: list[list[list[list[int]]]] = [[[] for _ in range(n_columns)] for _ in range(n_rows)]
    n_kept: list[list[int]] = [[] for _ in range(n_rows)]
    places = [(seed, i) for seed in steps for i in range(n_rows)]
    less = {seed: (job.data.train, *nested_selections(job, seed, asked.data[1:], own)) for seed, own in steps.items()}

    def row(place: int) -> list[dict[str, Tensor]]:
        seed, i = places[place]
        return _Row(job, seed, asked.data[i], less[seed][i]).cells(asked.model)

    names = [f"seed {seed}, data {asked.data[i]:g}" for seed, i in places]
    rows = job.by(partial(joint_grid, steps=steps)).parts.each(job.workspace, "joint", names, row)
    for (seed, i), cells in zip(places, rows, strict=True):
        n_kept[i].append(len(less[seed][i]))
        for j, found in enumerate(cells):
            costs[i][j].append(found[_COSTS].tolist())
            observed[i][j].append({name: column.numpy() for name, column in found.items() if name != _COSTS})
    judged = _judged(job, observed)
    facts = [{"asked": s, "kept": mean(n) / n_all, "n": n} for s, n in zip(asked.data, n_kept, strict=True)]
    grid = [[_cell_facts(judged, costs, i, j) for j in range(n_columns)] for i in range(n_rows)]
    return {
        "metric": judged.metric,
        "higher_is_better": judged.higher_is_better,
        "max_drop": judged.max_drop,
        "confidence": judged.confidence,
        "each": judged.each,
        "method": judged.method,
        "model_is": "keep_fraction" if job.recipe.target is None else job.recipe.target.kind,
        "n_train": n_all,
        "n_validation": len(job.data.validation),
        "seeds": list(steps),
        "data": facts,
        "model": list(asked.model),
        "cells": grid,
        "smallest": _smallest(facts, grid),
    }


def check_joint(job: Job) -> None:
    """Refuse a grid that can't be measured, before anything is trained.

    Raises:
        DataError: no validation examples.
        RecipeError: no training that the data could change, a margin that means nothing, a share that leaves a class without its
            floor, or one that no cut reaches.
    """
    asked, recipe = _asked(job), job.recipe
    if len(job.data.validation) == 0:
        raise DataError(
            "joint is measured on validation examples: got none; set data.split.validation, or leave joint out"
        )
    check_margin(_metric(job), _margin(job), key="joint.max_drop")
    if len(asked.data) > 1:
        if not job.train_dense and _recovery_epochs(recipe) == 0:
            raise RecipeError(
                f"joint.data changes what is trained on, and nothing is trained: got {list(asked.data)}, a model that is trained "
                "already and no recovery; set recovery.epochs, or joint.data: [1]"
            )
        check_nested(job, asked.data[1:])
    if len(asked.model) > 1:
        check_floor(replace(job, recipe=_at(recipe, asked.model[-1])), job.build(recipe.seeds[0]).to(job.device))


class _Row:
    """A share of the data under one seed: its dense model, and the smaller ones that are made of it."""

    def __init__(self, job: Job, seed: int, share: float, examples: Examples) -> None:
        self._seed, whole = seed, len(examples) == len(job.data.train)
        train = examples if whole else cast("Examples", Repeated(examples, len(job.data.train)))
        inside = job.workspace.within(f"joint / data {share:g}")
        self._job = replace(job, data=replace(job.data, train=train), workspace=inside)
        # On all data the dense model is the run's own.
        self._dense_job = job if whole else self._job
        self._dense: nn.Module | None = None

    def cells(self, shares: Sequence[float]) -> list[dict[str, Tensor]]:
        """Return what is known of each cell, in the order of ``shares``."""
        found, epochs = {}, 0 if self._job.train_dense else _recovery_epochs(self._job.recipe)
        for number, share in enumerate(reversed(shares)):  # 1 comes last: it is trained on for as long as the others
            found[share] = self._cell(share, epochs)
            epochs = max(int(found[share][_COSTS][2]), epochs if number else 0)
        return [found[share] for share in shares]

    def _cell(self, share: float, epochs: int) -> dict[str, Tensor]:
        job = replace(self._job, workspace=self._job.workspace.within(f"model {share:g}"))
        stage = f"seed {self._seed} / cell"

        def compute() -> dict[str, Tensor]:
            model, spent = self._whole(job, epochs) if share == 1 else self._pruned(job, share)
            validation = job.data.validation
            cost = measure_cost(model, next(iter(validation.batches(1))).inputs)
            seen = observe(model, validation, validation.task)
            columns = {name: torch.from_numpy(np.ascontiguousarray(column)) for name, column in seen.items()}
            return {**columns, _COSTS: torch.tensor([cost.nonzero_parameters, cost.macs, spent])}

        with job.workspace.stage(stage):
            return job.workspace.kept(stage, compute)

    def _whole(self, job: Job, epochs: int) -> tuple[nn.Module, int]:
        """Return the dense model, trained for as many epochs more as the pruned ones."""
        model, config = duplicate(self._dense_model()), job.recipe.recovery.model_copy(update={"epochs": epochs})
        if epochs:
            fit(job, model, job.data.train, config, seed=self._seed, stage=f"seed {self._seed} / {CONTROL}")
        return model, epochs

    def _pruned(self, job: Job, share: float) -> tuple[nn.Module, int]:
        """Return a pruned model that has recovered, and for how many epochs it was trained since the dense one was."""
        dense, seed, train = self._dense_model(), self._seed, job.data.train
        job = replace(job, recipe=_at(job.recipe, share))
        start, rewound = starting_point(replace(self._dense_job, recipe=job.recipe), seed, dense)
        candidate, decide = Candidate(start, rewound=rewound), job.workspace.decided
        if job.recipe.target is not None:
            candidate, _, histories, _ = search_model(job, seed, dense, candidate, train, decide)
        else:
            candidate, _, histories = prune_model(job, seed, dense, candidate, train, decide, recover_last=True)
        strategy = job.recipe.strategy
        during = strategy is not None and strategy.schedule.during == "train"
        return candidate.model, epochs_of(histories)["pruned"] - (job.recipe.train.epochs if during else 0)

    def _dense_model(self) -> nn.Module:
        if self._dense is None:
            self._dense = fit_dense(self._dense_job, self._seed)[0]
        return self._dense


def _judged(job: Job, observed: Sequence[Sequence[Sequence[Observed]]]) -> JudgedGrid:
    evaluation, contract = job.recipe.evaluation, job.recipe.contract
    return judge_grid(
        observed,
        job.data.validation.task,
        _metric(job),
        max_drop=_margin(job),
        confidence=evaluation.confidence if contract is None else contract.confidence,
        bootstrap=evaluation.bootstrap,
        seed=job.recipe.seeds[0],
    )


def _cell_facts(
    judged: JudgedGrid, costs: Sequence[Sequence[Sequence[Sequence[int]]]], i: int, j: int
) -> dict[str, Any]:
    """Return one cell as plain values; shares are of the whole model, means over the seeds."""
    pairs = list(zip(costs[i][j], costs[0][0], strict=True))
    return {
        **judged.cells[i][j].to_dict(),
        "parameters": mean(own[0] / whole[0] for own, whole in pairs),
        "macs": mean(own[1] / max(whole[1], 1) for own, whole in pairs),
        "epochs_after": [own[2] for own, _ in pairs],
    }


def _smallest(rows: Sequence[Mapping[str, Any]], cells: Sequence[Sequence[Mapping[str, Any]]]) -> list[int] | None:
    """Return where the least data times parameters is among what is no worse than all of both; None where nothing smaller is."""
    places = [(i, j) for i, row in enumerate(cells) for j, cell in enumerate(row) if cell["kept"] and (i, j) != (0, 0)]
    if not places:
        return None
    i, j = min(places, key=lambda at: (rows[at[0]]["kept"] * cells[at[0]][at[1]]["parameters"], *at))
    return [i, j]


def _at(recipe: Recipe, share: float) -> Recipe:
    """Return the recipe that prunes the model to a share, and neither searches nor promises anything."""
    target, strategy = recipe.target, recipe.strategy
    if strategy is None:
        return recipe
    changes: dict[str, Any] = {"compare_allocations": False}
    if target is None:
        changes["keep_fraction"] = share
    else:
        target = Target.model_validate({target.kind: share})
    return recipe.model_copy(
        update={"strategy": strategy.model_copy(update=changes), "target": target, "contract": None}
    )


def _recovery_epochs(recipe: Recipe) -> int:
    return 0 if recipe.recovery.method == "none" else recipe.recovery.epochs


def _asked(job: Job) -> Joint:
    return job.recipe.joint or Joint()


def _metric(job: Job) -> str:
    """Return what is compared: what the contract promises, or what leads the report."""
    recipe = job.recipe
    if recipe.contract is not None:
        return recipe.contract.metric
    return (recipe.evaluation.metrics or default_metrics(job.data.validation.task.name))[0]


def _margin(job: Job) -> float:
    asked, contract = _asked(job).max_drop, job.recipe.contract
    if asked is not None:
        return asked
    return _MARGIN if contract is None else contract.max_drop
