"""How does a model get smaller: train, then cut and recover, once per round and granularity?"""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from prunus.apply import Masks
from prunus.core.recipe import Recovery, Strategy, Train
from prunus.core.types import Step
from prunus.data import Examples
from prunus.graph import Group
from prunus.pipeline.cut import Round, check_patterns, groups_of, prunable_graph, wide
from prunus.pipeline.job import Candidate, Decide, Job
from prunus.recover import History, Loss, default_loss, distillation_loss, sparsity_step, train
from prunus.score import criteria, prunable_weights
from prunus.select import keep_fractions

__all__ = ["begin", "fit_dense", "prune_model", "recover", "retrain"]


def fit_dense(job: Job, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """Return the dense model of ``seed``, trained if its weights were not given, and what the training said."""
    model = job.build(seed).to(job.device)
    if not job.train_dense:
        return model, {}
    return model, fit(job, model, job.data.train, job.recipe.train, seed=seed, stage=f"seed {seed} / train")


def fit(
    job: Job, model: nn.Module, examples: Examples, config: Train, *, seed: int, stage: str, **options: Any
) -> dict[str, Any]:
    """Train ``model`` in place (or load what was trained before the kill) and return its history as plain values."""

    def run(checkpoint: Any) -> dict[str, Any]:
        listener = job.workspace.emit
        history = train(
            model, examples, config, seed=seed, stage=stage, checkpoint=checkpoint, listener=listener, **options
        )
        return history_facts(history)

    with job.workspace.stage(stage):
        return job.workspace.trained(stage, model, run)


def history_facts(history: History) -> dict[str, Any]:
    """Return the learning curve as plain values."""
    return {"loss": list(history.loss), "accuracy": list(history.accuracy)}


def prune_model(
    job: Job, seed: int, dense: nn.Module, start: Candidate, examples: Examples, decide: Decide, *, recover_last: bool
) -> tuple[Candidate, tuple[Step, ...], dict[str, dict[str, Any]]]:
    """Return the pruned and recovered model, the steps that were decided, and the histories of the training.

    ``recover_last`` False stops after the last decision: a plan needs no more.
    """
    strategy = job.recipe.strategy
    assert strategy is not None
    check_patterns(dense, strategy)
    candidate, histories = begin(job, seed, start, examples)
    steps: list[Step] = []
    n_rounds = 1 if strategy.amount is None else len(keep_fractions(strategy.schedule, strategy.amount))
    rounds = [(granularity, number) for granularity in strategy.granularity for number in range(n_rounds)]
    for place, (granularity, number) in enumerate(rounds, start=1):
        stage = f"seed {seed} / prune {place} of {len(rounds)}"
        if number == 0:
            candidate = candidate.having(alive={}, original={})
        with job.workspace.stage(stage):
            candidate, step = Round(job, seed, strategy, granularity, number, stage, decide).cut(candidate)
        steps.append(step)
        if place < len(rounds) or recover_last:
            name = f"recover {place} of {len(rounds)}"
            histories[name] = recover(job, seed, dense, candidate, examples, stage=f"seed {seed} / {name}")
    return candidate, tuple(steps), histories


def begin(job: Job, seed: int, start: Candidate, examples: Examples) -> tuple[Candidate, dict[str, dict[str, Any]]]:
    """Return a copy of ``start`` that is ready for the first cut, and the histories of the training for it."""
    strategy = job.recipe.strategy
    assert strategy is not None
    candidate, histories = start.having(model=copy.deepcopy(start.model), uncut=start.model), {}
    if criteria[strategy.criterion].regularizer is not None and strategy.l1_epochs > 0:
        histories["sparsify"] = _sparsify(job, seed, candidate.model, strategy, examples)
    return candidate, histories


def recover(
    job: Job, seed: int, dense: nn.Module, candidate: Candidate, examples: Examples, *, stage: str
) -> dict[str, Any]:
    """Give ``candidate`` its quality back, in place: fine-tune or distil, with the masks held."""
    config = job.recipe.recovery
    if config.method == "none" or config.epochs == 0:
        return {}
    masks = Masks(candidate.model, dict(candidate.masks))
    facts = fit(
        job,
        candidate.model,
        examples,
        config,
        seed=seed,
        stage=stage,
        loss=_recovery_loss(config, dense, examples),
        on_optimizer=masks.guard,
    )
    masks.enforce()
    return facts


def retrain(
    job: Job, seed: int, dense: nn.Module, candidate: Candidate, examples: Examples
) -> tuple[Candidate, dict[str, dict[str, Any]]]:
    """Return what the data alone changed: the narrowed model recovered, or the dense structure trained anew on ``examples``."""
    stage = f"seed {seed} / retrain"
    if candidate.model is not dense:
        candidate = candidate.having(model=copy.deepcopy(candidate.model))
        return candidate, {"recover": recover(job, seed, dense, candidate, examples, stage=stage)}
    fresh = job.build(seed).to(job.device)
    if not job.train_dense:
        candidate = candidate.having(model=fresh)
        return candidate, {"recover": recover(job, seed, dense, candidate, examples, stage=stage)}
    history = fit(job, fresh, examples, job.recipe.train, seed=seed, stage=stage)
    return candidate.having(model=fresh), {"retrain": history}


def _recovery_loss(config: Recovery, dense: nn.Module, examples: Examples) -> Loss:
    base = default_loss(examples.task, config.label_smoothing)
    return base if config.method == "fine_tune" else distillation_loss(dense, config.distil, base, examples=examples)


def _sparsify(job: Job, seed: int, model: nn.Module, strategy: Strategy, examples: Examples) -> dict[str, Any]:
    """Train with a penalty that drives what isn't needed to zero."""
    groups: tuple[Group, ...] = ()
    if strategy.granularity[0] != "weight":
        graph = prunable_graph(
            model, job.trace_inputs, strategy.exclude, seed=seed, granularity=strategy.granularity[0]
        )
        groups = tuple(group for group in groups_of(graph, strategy.granularity[0]) if not group.containers)
    names = prunable_weights(model, wide(strategy.exclude))
    kind = criteria[strategy.criterion].regularizer
    assert kind is not None
    penalty = sparsity_step(model, kind=kind, names=names, groups=groups, strength=strategy.l1_strength)
    config = job.recipe.train.model_copy(update={"epochs": strategy.l1_epochs})
    return fit(
        job,
        model,
        examples,
        config,
        seed=seed,
        stage=f"seed {seed} / sparsify",
        on_optimizer=penalty.attach,
    )
