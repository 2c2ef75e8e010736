"""Which model scores the training examples: the recipe's, or a pruned one that costs less?

A pruned scorer is the recipe's model, cut as its strategy says *before* the short training that the scores come from: a model
that must be trained dense first saves nothing. How far its scores are the dense model's is measured on a sample of the examples,
on which both are trained alike; two dense trainings on it say how much agreement there is to be had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from prunus.core.errors import RecipeError
from prunus.core.recipes.recipe import Examples as ExamplesConfig
from prunus.core.recipes.recipe import Recipe, Recovery, Schedule, Strategy
from prunus.core.runtime import derive_seed, generator
from prunus.core.types import Step
from prunus.core.units import is_mask
from prunus.data import Examples
from prunus.evaluate import measure_cost, rank_correlation
from prunus.graph.tracing.states import duplicate
from prunus.pipeline.jobs.job import Candidate, Job
from prunus.pipeline.stages.model_stage import prune_model
from prunus.pipeline.stages.scoring.example_evidence import (
    evidence_read,
    judging_stage,
    named_criteria,
    needs_training,
    watch_training,
)
from prunus.score import criteria, example_criteria

__all__ = [
    "check_scorer",
    "facts_of_scorer",
    "reads_a_model",
    "scorer_facts",
    "scoring_job",
    "strategy_of_scorer",
    "with_scorer",
]


def check_scorer(recipe: Recipe) -> None:
    """Refuse a pruned scorer that saves nothing.

    Raises:
        RecipeError: zeros are all that the strategy makes.
    """
    strategy = strategy_of_scorer(recipe)
    if strategy is not None and is_mask(strategy.granularity[0]):
        raise RecipeError(
            f"examples.scorer: pruned needs a strategy of widths, since zeros save no time: got granularity "
            f"{strategy.granularity[0]}; leave scorer out, or name widths first (strategy.granularity: [channel, ...])"
        )


def strategy_of_scorer(recipe: Recipe) -> Strategy | None:
    """Return the strategy of a recipe where its scorer is pruned by it; None where nothing is to be pruned for scores."""
    asked = recipe.examples is not None and recipe.examples.scorer.model == "pruned"
    return recipe.strategy if asked else None


def scoring_job(job: Job, seed: int) -> Job:
    """Return the job whose models score the examples: the same, or with pruned models in the place of dense ones."""
    config = job.recipe.examples
    if config is None or config.scorer.model == "dense":
        return job
    slim = _pruned(job, seed, config)
    return replace(job, build=lambda _: duplicate(slim))


def reads_a_model(config: ExamplesConfig) -> bool:
    """Tell whether anything that is asked of the examples reads a model that is trained here."""
    return config.recording is None and (needs_training(config) or config.clean is not None)


def with_scorer(job: Job, scorer: Job, seed: int, config: ExamplesConfig, steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps; the first says which model scored where that was a pruned one, what it costs, and how far it agrees.

    Args:
        job: of the dense model.
        scorer: as :func:`scoring_job` gave it.
    """
    facts = facts_of_scorer(job, scorer, seed, config)
    if facts is None or not steps:
        return tuple(steps)
    return (replace(steps[0], settings={**steps[0].settings, "scorer": facts}), *steps[1:])


def facts_of_scorer(job: Job, scorer: Job, seed: int, config: ExamplesConfig) -> dict[str, Any] | None:
    """Return what a pruned scorer costs and how far it agrees with the dense model; None where the dense one scores."""
    if scorer is job:
        return None
    return job.workspace.remembered(f"{judging_stage(seed)} / scorer", lambda: _facts(job, scorer, seed, config))


def scorer_facts(steps: Sequence[Step]) -> dict[str, Any] | None:
    """Return what the steps say of a pruned scorer; None where the dense model scored, or nothing did."""
    return next((step.settings["scorer"] for step in steps if "scorer" in step.settings), None)


def _pruned(job: Job, seed: int, config: ExamplesConfig) -> nn.Module:
    """Return the model with fewer units, as it is before it is trained for scores."""
    recipe = job.recipe.model_copy(
        update={"strategy": _strategy(job.recipe, config), "recovery": Recovery(method="none"), "target": None}
    )
    part = replace(job, recipe=recipe.model_copy(update={"contract": None}), workspace=job.workspace.within("scorer"))
    model = job.build(seed).to(job.device)
    candidate, _, _ = prune_model(
        part, seed, model, Candidate(model), job.data.train, part.workspace.decided, recover_last=False
    )
    return candidate.model


def _strategy(recipe: Recipe, config: ExamplesConfig) -> Strategy:
    """Return the recipe's strategy in one cut; a criterion that trains first gives way to one that reads weights."""
    strategy = recipe.strategy or Strategy()
    share = config.scorer.keep_fraction or strategy.keep_fraction or 0.5
    widths = tuple(unit for unit in strategy.granularity if not is_mask(unit))
    trains = criteria[strategy.criterion].regularizer is not None or "movement" in criteria[strategy.criterion].needs
    changes: dict[str, Any] = {
        "criterion": "magnitude_l2" if trains else strategy.criterion,
        "granularity": widths,
        "keep_fraction": share,
        "cutoff": None,
        "schedule": Schedule(),
        "allocation": "uniform" if strategy.allocation == "cost" else strategy.allocation,
        "compare_allocations": False,
    }
    return strategy.model_copy(update=changes)


def _facts(job: Job, scorer: Job, seed: int, config: ExamplesConfig) -> dict[str, Any]:
    inputs = next(iter(job.data.calibration.batches(1))).inputs
    dense, pruned = (measure_cost(one.build(seed).to(job.device), inputs) for one in (job, scorer))
    share = _strategy(job.recipe, config).keep_fraction
    n = min(config.scorer.sample, len(job.data.train)) if seed == job.recipe.seeds[0] else 0
    return {
        "model": "pruned",
        "keep_fraction": share,
        "macs": pruned.macs / max(dense.macs, 1),
        "parameters": pruned.parameters / dense.parameters,
        "n_sample": n,
        "agreement": _agreement(job, scorer, seed, config, n) if n else [],
    }


def _agreement(job: Job, scorer: Job, seed: int, config: ExamplesConfig, n: int) -> list[dict[str, Any]]:
    """Return how alike both models order a sample by each score, and how alike two dense models do."""
    train = job.data.train
    chosen = torch.zeros(len(train), dtype=torch.bool)
    chosen[torch.randperm(len(train), generator=generator(seed, "scorer", "sample"))[:n]] = True
    sample, stage = train.select(chosen), f"{judging_stage(seed)} / compare scorers"
    other = derive_seed(seed, "scorer", "again") % 2**31
    found = []
    with job.workspace.stage(stage):
        told = {
            name: job.workspace.kept(
                f"{stage} / {name}",
                # The same draws for the two that are compared: what differs is the model.
                lambda one=one, number=number: watch_training(one, number, config, sample, stage),  # type: ignore[misc]
            )
            for name, one, number in (("pruned", scorer, seed), ("dense", job, seed), ("dense again", job, other))
        }
    confidence = job.recipe.evaluation.confidence
    for name in _compared(config, train):
        scores = {who: _score(name, evidence) for who, evidence in told.items()}
        value, low, high = rank_correlation(scores["pruned"], scores["dense"], confidence)
        ceiling = rank_correlation(scores["dense again"], scores["dense"], confidence)[0]
        numbers = {"value": value, "low": low, "high": high, "between_dense": ceiling}
        found.append({"score": name, **{key: None if x != x else x for key, x in numbers.items()}})  # NaN is not itself
    return found


def _compared(config: ExamplesConfig, train: Examples) -> list[str]:
    """Return by which scores models are compared: those that decide, or what a cleaning reads of them."""
    named = [name for _, name in named_criteria(config) if set(example_criteria[name].needs) - {"noise"}]
    read = evidence_read(config) - {"noise"}
    return list(dict.fromkeys(named)) if read else ["confidence" if train.task.exclusive else "loss"]


def _score(name: str, evidence: dict[str, Tensor]) -> Any:
    return example_criteria[name](evidence).detach().cpu().double().numpy()
