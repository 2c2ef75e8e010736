"""How does a model get smaller: train, then cut and recover, once per round and granularity?"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any

from torch import nn

from prunus.apply import Masks
from prunus.core.recipe import Recovery, Strategy, Train
from prunus.core.types import Step
from prunus.data import Examples
from prunus.graph import Group
from prunus.pipeline.cut import Round, check_patterns, groups_of, prunable_graph, wide
from prunus.pipeline.job import Candidate, Decide, Job
from prunus.pipeline.objective import base_loss
from prunus.recover import History, Loss, adapters, bound, distillation_loss, match_features, sparsity_step, train
from prunus.score import criteria, prunable_weights
from prunus.select import keep_fractions

__all__ = ["fit_dense", "prune_model", "recover", "retrain"]


def fit_dense(job: Job, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """Return the dense model of ``seed``, trained if its weights were not given, and what the training said."""
    model = job.build(seed).to(job.device)
    if not job.train_dense:
        return model, {}
    return model, fit(job, model, job.data.train, job.recipe.train, seed=seed, stage=f"seed {seed} / train")


def fit(
    job: Job,
    model: nn.Module,
    examples: Examples,
    config: Train,
    *,
    seed: int,
    stage: str,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
    **options: Any,
) -> dict[str, Any]:
    """Train ``model`` in place (or load what was trained before the kill) and return its history as plain values.

    ``around`` makes a block to train in that leaves the model's structure as it was; ``options`` go to
    ``train``; without a ``loss`` among them, what the recipe or the facade says is minimised.
    """
    if "loss" not in options:
        options |= {"loss": base_loss(job, config), "training_step": job.training_step}

    def run(checkpoint: Any) -> dict[str, Any]:
        listener = job.workspace.emit
        with around():
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
    candidate, histories = start.having(model=copy.deepcopy(start.model)), {}
    if criteria[strategy.criterion].regularizer is not None and strategy.l1_epochs > 0:
        histories["sparsify"] = _sparsify(job, seed, candidate.model, strategy, examples)
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


def recover(
    job: Job, seed: int, dense: nn.Module, candidate: Candidate, examples: Examples, *, stage: str
) -> dict[str, Any]:
    """Give ``candidate`` its quality back, in place: fine-tune, distil or train adapters, with the masks held."""
    config = job.recipe.recovery
    if config.method == "none" or config.epochs == 0:
        return {}
    masks = Masks(candidate.model, dict(candidate.masks))
    options: dict[str, Any] = {}
    with ExitStack() as stack:
        if config.method == "distil":
            options["loss"] = _distillation(job, config, dense, candidate.model, examples, stage, stack)
        elif config.method == "lora":
            options["around"] = partial(
                adapters, candidate.model, config.lora, dict(candidate.masks), seed=seed, stage=stage
            )
        facts = fit(job, candidate.model, examples, config, seed=seed, stage=stage, on_optimizer=masks.guard, **options)
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


def _distillation(
    job: Job, config: Recovery, dense: nn.Module, model: nn.Module, examples: Examples, stage: str, stack: ExitStack
) -> Loss:
    """Return the loss of a recovery that distils; what it attaches to the models goes when ``stack`` closes."""
    base = base_loss(job, config) if job.training_step is None else bound(job.training_step, model)
    features = None
    if config.distil.features > 0:
        features = match_features(model, dense, job.trace_inputs[0], config.distil.modules)
        if features is None:
            text = (
                "nothing to compare inside: no module of one name gives a row per example in both models; outputs only"
            )
            job.workspace.note(stage, text)
        else:
            stack.enter_context(features.attached())
            names = ", ".join(name for name, _ in features.pairs)
            job.workspace.note(stage, f"features of both models are compared after {names}")
    return distillation_loss(dense, config.distil, base, examples=examples, features=features)


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
