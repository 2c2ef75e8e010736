"""How does a model get smaller: evidence, score, select, apply, recover, once per round?

The decisions of a round number the units as the dense model does, so that a plan reads without knowing the rounds before.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunus.apply import Masks, follow_class, shrink
from prunus.core.errors import PlanError, RecipeError, RunError, near
from prunus.core.recipe import Recovery, Strategy, Train
from prunus.core.types import Bools, Decision, Ints, Step, Stratum
from prunus.data import Examples
from prunus.graph import AxisGraph, Group, analyze, certify
from prunus.pipeline.job import Candidate, Decide, Job
from prunus.recover import History, Loss, default_loss, distillation_loss, sparsity_step, train
from prunus.score import criteria, gather, norm_scales, prunable_weights, score_channels, score_weights
from prunus.select import keep_fractions, select

__all__ = ["check_exclude", "fit_dense", "prunable_graph", "prune_model", "recover", "retrain"]


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


def prunable_graph(model: nn.Module, inputs: tuple[Tensor, ...], exclude: Sequence[str], *, seed: int) -> AxisGraph:
    """Return the certified groups of ``model`` without those that a name pattern excludes."""
    graph = follow_class(model, inputs, certify(model, inputs, analyze(model, inputs), seed=seed))
    groups = tuple(group for group in graph.groups if not _excluded(group, wide(exclude)))
    return replace(graph, groups=groups)


def wide(exclude: Sequence[str]) -> tuple[str, ...]:
    """Return name patterns that also fit a model whose input features were cut (it lies in ``inner``)."""
    return (*exclude, *(f"inner.{pattern}" for pattern in exclude))


def check_exclude(model: nn.Module, exclude: Sequence[str]) -> None:
    """Refuse a pattern that fits no name: it would protect nothing.

    Raises:
        RecipeError: it names the pattern and some names.
    """
    names = [name for name, _ in (*model.named_modules(), *model.named_parameters()) if name]
    for pattern in exclude:
        if not fnmatch.filter(names, pattern):
            raise RecipeError(f"strategy.exclude: {pattern!r} fits no layer or parameter; {near(pattern, names[:60])}")


def _excluded(group: Group, patterns: Sequence[str]) -> bool:
    names = {group.name}
    for member in group.members:
        names |= {member.tensor, member.tensor.rpartition(".")[0]}
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def prune_model(
    job: Job, seed: int, dense: nn.Module, start: Candidate, examples: Examples, decide: Decide, *, recover_last: bool
) -> tuple[Candidate, tuple[Step, ...], dict[str, dict[str, Any]]]:
    """Return the pruned and recovered model, the steps that were decided, and the histories of the training.

    ``recover_last`` False stops after the last decision: a plan needs no more.
    """
    strategy = job.recipe.strategy
    assert strategy is not None
    candidate, histories = start.having(model=copy.deepcopy(start.model), uncut=start.model), {}
    if criteria[strategy.criterion].regularizer is not None and strategy.l1_epochs > 0:
        histories["sparsify"] = _sparsify(job, seed, candidate.model, strategy, examples)
    steps: list[Step] = []
    fractions = (None,) if strategy.amount is None else keep_fractions(strategy.schedule, strategy.amount)
    for number, fraction in enumerate(fractions):
        stage = f"seed {seed} / prune {number + 1} of {len(fractions)}"
        with job.workspace.stage(stage):
            prune = _prune_weights if strategy.granularity == "weight" else _prune_channels
            candidate, step = prune(job, seed, candidate, strategy, fraction, stage, decide, number)
        steps.append(step)
        if number + 1 < len(fractions) or recover_last:
            name = f"recover {number + 1} of {len(fractions)}"
            histories[name] = recover(job, seed, dense, candidate, examples, stage=f"seed {seed} / {name}")
    return candidate, tuple(steps), histories


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
    if strategy.granularity == "channel":
        groups = prunable_graph(model, job.trace_inputs, strategy.exclude, seed=seed).groups
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


def _evidence(job: Job, model: nn.Module, names: Sequence[str], strategy: Strategy) -> Any:
    criterion = criteria[strategy.criterion]
    examples = job.data.calibration
    return gather(model, names, examples, default_loss(examples.task), criterion.needs)


def _choose(strata: Sequence[Stratum], strategy: Strategy, fraction: float | None, n_original: int) -> list[Bools]:
    """Keep ``fraction`` of what the dense model had, among what is left of it."""
    options: dict[str, Any] = {"allocation": strategy.allocation, "normalize": strategy.normalize}
    if fraction is None:
        return select(strata, cutoff=strategy.cutoff, **options)
    left = sum(len(stratum.saliency) for stratum in strata)
    return select(strata, keep_fraction=min(1.0, round(fraction * n_original) / max(left, 1)), **options)


def _step(strata: Sequence[Stratum], keep: Sequence[Bools], strategy: Strategy, number: int) -> Step:
    reason = f"{strategy.criterion}: lowest in its " + ("layer" if strategy.allocation == "uniform" else "model")
    if strategy.cutoff is not None:
        reason = f"{strategy.criterion}: below the cutoff {strategy.cutoff:g}"
    decisions = tuple(
        Decision(s.name, s.units, s.saliency, k, np.where(k, "kept", reason).astype(object))
        for s, k in zip(strata, keep, strict=True)
    )
    return Step("prune", strategy.granularity, strategy.criterion, decisions, {"round": number})


def _prune_weights(
    job: Job,
    seed: int,
    candidate: Candidate,
    strategy: Strategy,
    fraction: float | None,
    stage: str,
    decide: Decide,
    number: int,
) -> tuple[Candidate, Step]:
    model = candidate.model
    names = prunable_weights(model, wide(strategy.exclude))
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    if not names:
        raise RunError(
            f"{stage}: the model has no weight that may be pruned (excluded: {list(strategy.exclude)}); allow some"
        )
    masks = dict(candidate.masks) or {name: torch.ones(sizes[name], dtype=torch.bool) for name in names}

    def compute() -> tuple[Step, ...]:
        strata = score_weights(_evidence(job, model, names, strategy), names, strategy.criterion, seed=seed)
        strata = [
            replace(_only(stratum, masks[stratum.name].flatten().numpy()), min_units=strategy.min_units)
            for stratum in strata
        ]
        return (
            _step(strata, _choose(strata, strategy, fraction, sum(sizes[name] for name in names)), strategy, number),
        )

    (step,) = decide(stage, compute)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    new = {}
    for decision in step.decisions:
        if decision.stratum not in shapes or decision.unit.max(initial=-1) >= sizes[decision.stratum]:
            raise PlanError(
                f"the plan prunes {decision.stratum!r}, which this model doesn't have in that size: use the model of the plan"
            )
        mask = torch.zeros(sizes[decision.stratum], dtype=torch.bool)
        mask[torch.from_numpy(decision.unit[decision.keep])] = True
        new[decision.stratum] = mask.view(shapes[decision.stratum])
    Masks(model, new).enforce()
    return candidate.having(masks=new), step


def _only(stratum: Stratum, alive: Bools) -> Stratum:
    return replace(stratum, saliency=stratum.saliency[alive], unit=np.flatnonzero(alive).astype(np.int64))


def _prune_channels(
    job: Job,
    seed: int,
    candidate: Candidate,
    strategy: Strategy,
    fraction: float | None,
    stage: str,
    decide: Decide,
    number: int,
) -> tuple[Candidate, Step]:
    model, inputs = candidate.model, job.trace_inputs
    graph = prunable_graph(model, inputs, strategy.exclude, seed=seed)
    if not graph.groups:
        reasons = "; ".join(sorted({f"{item.name}: {item.reason}" for item in graph.frozen})[:3])
        raise RunError(
            f"{stage}: no group of channels can be pruned ({reasons}); use granularity weight or exclude less"
        )
    alive = dict(candidate.alive) or {group.name: np.arange(group.size, dtype=np.int64) for group in graph.groups}
    n_original = candidate.n_original or sum(group.size for group in graph.groups)

    def compute() -> tuple[Step, ...]:
        names = sorted({member.tensor for group in graph.groups for member in group.members if member.is_parameter})
        strata = score_channels(
            graph,
            _evidence(job, model, names, strategy),
            strategy.criterion,
            reduce=strategy.reduce,
            norm_scales=norm_scales(model),
            seed=seed,
            note=lambda text: job.workspace.note(stage, text),
        )
        strata = [
            replace(s, unit=alive[s.name], min_units=strategy.min_units, multiple=strategy.round_to) for s in strata
        ]
        return (_step(strata, _choose(strata, strategy, fraction, n_original), strategy, number),)

    (step,) = decide(stage, compute)
    keep = _aligned(step, alive)
    shrunk = shrink(model, inputs, graph, {name: torch.from_numpy(mask) for name, mask in keep.items()})
    for note in shrunk.notes:
        job.workspace.note(stage, note)
    left = {name: alive[name][keep[name]] if name in keep else alive[name] for name in alive}
    frozen = tuple({"name": f.name, "size": f.size, "reason": f.reason} for f in graph.frozen)
    return (
        candidate.having(
            model=shrunk.model,
            kind="graph" if "graph" in (candidate.kind, shrunk.kind) else "eager",
            cuts=(*candidate.cuts, {name: tuple(np.flatnonzero(mask).tolist()) for name, mask in keep.items()}),
            alive=left,
            n_original=n_original,
            frozen=candidate.frozen or frozen,
        ),
        step,
    )


def _aligned(step: Step, alive: Mapping[str, Ints]) -> dict[str, Bools]:
    """Return, per group, which of the channels that are still there stay.

    Raises:
        PlanError: the plan speaks of channels that aren't there.
    """
    keep = {}
    for decision in step.decisions:
        if decision.stratum not in alive or not np.array_equal(decision.unit, alive[decision.stratum]):
            raise PlanError(
                f"the plan prunes the channels {decision.stratum!r} of another model (expected {len(decision.unit)} of them): "
                "use the model and the prunus that the plan was made with"
            )
        keep[decision.stratum] = decision.keep
    return keep
