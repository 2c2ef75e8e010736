"""What becomes of one seed, and of all of them?

model -> evidence -> score -> select -> steps of the **Plan** -> apply -> recover
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from prunus.core.types import Plan, Step
from prunus.graph.tracing.states import duplicate
from prunus.pipeline.flow.plan_of_run import decide_from
from prunus.pipeline.jobs.job import Candidate, Decide, Job, SeedResult
from prunus.pipeline.measure import CONTROL, epochs_of, observe_ahead
from prunus.pipeline.stages.example_stage import clean, judge_examples
from prunus.pipeline.stages.feature_stage import judge_features, select_features
from prunus.pipeline.stages.model_stage import fit, fit_dense, prune_model, retrain, starting_point
from prunus.pipeline.stages.selection_gate import gate_selection
from prunus.pipeline.target_search import search_model

__all__ = ["gated", "own_seed", "prune_seed", "run_job", "run_seed"]


def run_job(job: Job, plan: Plan | None = None) -> list[SeedResult]:
    """Return the result of every seed."""
    seeds = job.recipe.seeds
    if plan is not None:
        decide = decide_from(plan)
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


def gated(job: Job, steps: Mapping[int, tuple[Step, ...]]) -> dict[str, Any]:
    """Return how what each seed's steps leave of the examples does against chance and against all of them."""
    kept = {seed: clean(job.data.train, own) for seed, own in steps.items()}
    return gate_selection(job.by(partial(gated, steps=steps)), kept)
