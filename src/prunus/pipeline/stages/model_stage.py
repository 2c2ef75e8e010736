"""How does a model get smaller: train, then cut and recover, once per round and granularity?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from prunus.apply import Masks
from prunus.core.errors import RecipeError, RunError
from prunus.core.recipes.recipe import Average, Strategy, Train
from prunus.core.types import Granularity, Step
from prunus.core.units import as_mask, is_mask
from prunus.data import Examples
from prunus.graph import Group
from prunus.graph.tracing.states import duplicate
from prunus.pipeline.cut.one_round import Round
from prunus.pipeline.cut.prunable import check_patterns, groups_of, prunable_graph, wide
from prunus.pipeline.jobs.given_weights import check_given
from prunus.pipeline.jobs.job import Candidate, Decide, Job
from prunus.pipeline.jobs.objective import base_loss, distilling
from prunus.pipeline.jobs.reuse import training_stage
from prunus.pipeline.stages.overfitting.generalisation import (
    ENDS,
    Overfits,
    each_epoch,
    stopping,
    taken_back,
    trend,
    watched,
)
from prunus.recover import (
    History,
    Penalty,
    adapters,
    adjust,
    sparsity_step,
    train,
)
from prunus.score import criteria, prunable_weights
from prunus.select import keep_fractions

__all__ = [
    "adjust_after_cut",
    "begin",
    "check_schedule",
    "fit_dense",
    "n_rounds",
    "prune_model",
    "recover",
    "retrain",
    "starting_point",
    "training_parts",
]


def fit_dense(job: Job, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """Return the dense model of ``seed``, trained if its weights were not given, and what the training said.

    Raises:
        ModelError: given weights that do no better than guessing, or clearly better on inputs scaled otherwise.
    """
    model = job.build(seed).to(job.device)
    stage = training_stage(seed)
    if not job.train_dense:
        check_given(job, model)
        return model, {}
    goal = rewind_epoch(job)
    job.workspace.check_state(f"{stage} / epoch {goal}", stage)

    def after_epoch(done: int) -> None:
        if done == goal:
            job.workspace.keep_state(f"{stage} / epoch {goal}", model)

    return model, fit(job, model, job.data.train, job.recipe.train, seed=seed, stage=stage, after_epoch=after_epoch)


def fit(
    job: Job,
    model: nn.Module,
    examples: Examples,
    config: Train,
    *,
    seed: int,
    stage: str,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
    penalty: Penalty | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train ``model`` in place (or load what was trained before the kill) and return its history as plain values.

    ``around`` makes a block to train in that leaves the model's structure as it was; ``options`` go to
    ``train``; without a ``loss`` among them, what the recipe or the facade says is minimised.
    """
    if "loss" not in options:
        options |= {"loss": base_loss(job, config), "training_step": job.training_step}
    options["still"] = job.still
    gone = set(job.still) - {name.removeprefix("inner.") for name, _ in model.named_modules()}
    if gone:
        job.workspace.note(
            stage, f"{', '.join(sorted(gone))} was in evaluation mode and is no part of its own any more"
        )

    def run(checkpoint: Any) -> dict[str, Any]:
        listener = job.workspace.emit
        if penalty is not None:
            options["on_optimizer"] = penalty.attach
            checkpoint = checkpoint if penalty.resumable else None
        with around():
            history = train(
                model, examples, config, seed=seed, stage=stage, checkpoint=checkpoint, listener=listener, **options
            )
        if penalty is not None:
            penalty.finish()
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
    rounds = _rounds(strategy)
    during = strategy.schedule.during == "train"
    parts = training_parts(job.recipe.train.epochs, len(rounds)) if during else ()
    overfits = Overfits(job, seed, dense, examples) if watched(job, rounds=len(rounds)) else None
    may_stop = overfits is not None and job.recipe.recovery.gap_margin is not None and len(strategy.granularity) == 1

    def train_part(number: int) -> None:
        name = f"train {number + 1} of {len(parts)}"
        histories[name] = _train_part(job, seed, candidate, examples, parts[number], stage=f"seed {seed} / {name}")

    for place, (granularity, number) in enumerate(rounds, start=1):
        stage = f"seed {seed} / prune {place} of {len(rounds)}"
        if number == 0:
            candidate = candidate.replaced(alive={}, original={}, losses={})
        earlier = candidate.replaced(model=duplicate(candidate.model)) if may_stop and place > 1 else None
        if during:
            train_part(place - 1)
        before = duplicate(candidate.model) if job.recipe.recovery.adjust else candidate.model
        with job.workspace.stage(stage):
            candidate, step = Round(job, seed, strategy, granularity, number, stage, decide, examples).cut(candidate)
        steps.append(step)
        _rewind(candidate)
        last = place == len(rounds)
        if candidate.rewound is None and (recover_last or not last):
            target = None if during else dense
            candidate = adjust_after_cut(job, candidate, before, dense=target, stage=stage, seed=seed)
        if during and last and recover_last:
            train_part(place)
        if recover_last if last else not during:
            name = f"recover {place} of {len(rounds)}"
            histories[name] = recover(
                job, seed, dense, candidate, examples, stage=f"seed {seed} / {name}", overfits=overfits
            )
        if overfits is not None and (recover_last or not last):
            candidate = trend(candidate, overfits, step, first=number == 0)
            if earlier is not None and overfits.exceeds(candidate.gaps[-1]["gap"]):
                candidate = taken_back(job, stage, earlier, candidate)
                steps[-2:] = [replace(steps[-2], settings={**steps[-2].settings, ENDS: True})]
                break
        if step.settings.get(ENDS):  # a plan says so
            break
    return candidate, tuple(steps), histories


def begin(job: Job, seed: int, start: Candidate, examples: Examples) -> tuple[Candidate, dict[str, dict[str, Any]]]:
    """Return a copy of ``start`` that is ready for the first cut, and the histories of the training for it."""
    strategy = job.recipe.strategy
    assert strategy is not None
    candidate = start.replaced(model=duplicate(start.model))
    histories: dict[str, dict[str, Any]] = {}
    if criteria[strategy.criterion].regularizer is not None and strategy.l1_epochs > 0:
        histories["sparsify"] = _sparsify(job, seed, candidate.model, strategy, examples)
    return candidate, histories


def adjust_after_cut(
    job: Job, candidate: Candidate, before: nn.Module, *, dense: nn.Module | None, stage: str, seed: int
) -> Candidate:
    """Set the model right in place after a cut, as the recipe wants it, with the masks held; return it with what was done.

    Args:
        before: the model that was cut.
        dense: whose outputs the model should come close to; None: those of ``before``.
    """
    kinds = job.recipe.recovery.adjust
    if not kinds:
        return candidate
    masks = dict(candidate.masks)
    found = adjust(
        candidate.model,
        before,
        job.data.calibration,
        kinds,
        target=dense,
        measure=job.measure,
        kept=candidate.kept_outputs,
        folded=candidate.folded_outputs,
        masks=masks,
    )
    for note in found.notes:
        job.workspace.note(stage, note)
    Masks(candidate.model, masks).enforce()
    facts = {"seed": seed, "after": stage.partition(" / ")[2], **found.to_dict()}
    return candidate.replaced(adjustments=(*candidate.adjustments, facts))


def _rounds(strategy: Strategy) -> list[tuple[Granularity, int]]:
    """Return every cut: its granularity, and the how-many-eth of that it is. N:M needs one."""
    n_rounds = 1 if strategy.amount is None else len(keep_fractions(strategy.schedule, strategy.amount))
    found = []
    for granularity in strategy.granularity:
        mask = as_mask(granularity)
        once = mask is not None and mask.kind == "n_m"
        found += [(granularity, number) for number in range(1 if once else n_rounds)]
    return found


def n_rounds(strategy: Strategy) -> int:
    """Return how many cuts a strategy makes."""
    return len(_rounds(strategy))


def training_parts(epochs: int, n_cuts: int) -> tuple[tuple[int, int], ...]:
    """Return the epochs before, between and after the cuts of a pruning during training: (first, end) each.

    Raises:
        RecipeError: there are too few epochs to train before and after every cut.

    >>> training_parts(10, 3)
    ((0, 2), (2, 5), (5, 7), (7, 10))
    """
    if epochs <= n_cuts:
        raise RecipeError(
            f"strategy.schedule.during: train makes {n_cuts} cuts and trains before and after each: got train.epochs {epochs}, "
            f"give at least {n_cuts + 1}, or fewer rounds"
        )
    ends = [number * epochs // (n_cuts + 1) for number in range(n_cuts + 2)]
    return tuple(pairwise(ends))


def check_schedule(job: Job) -> None:
    """Refuse a schedule that this run can't keep, before anything is trained.

    Raises:
        RecipeError: there is no dense training, or too little of it, or a criterion that trains before the first cut.
    """
    strategy = job.recipe.strategy
    if strategy is None:
        return
    schedule = strategy.schedule
    if schedule.during == "train":
        training_parts(job.recipe.train.epochs, len(_rounds(strategy)))
        if criteria[strategy.criterion].regularizer is not None:
            raise RecipeError(
                f"strategy.criterion: {strategy.criterion} trains by itself before the first cut, which contradicts "
                "schedule.during: train; choose another criterion"
            )
    if not job.train_dense and (schedule.during == "train" or (schedule.rewind_to or 0) > 0):
        key = "during: train" if schedule.during == "train" else f"rewind_to: {schedule.rewind_to}"
        raise RecipeError(f"strategy.schedule.{key} needs the dense training: got a model that is trained already")


def _train_part(
    job: Job, seed: int, candidate: Candidate, examples: Examples, part: tuple[int, int], *, stage: str
) -> dict[str, Any]:
    """Train ``candidate`` in place for some epochs of the section ``train``, with the masks held and a new optimizer."""
    masks = Masks(candidate.model, dict(candidate.masks))
    facts = fit(
        job,
        candidate.model,
        examples,
        job.recipe.train,
        seed=seed,
        stage=stage,
        epochs=part,
        on_optimizer=masks.guard,
    )
    masks.enforce()
    return facts


def rewind_epoch(job: Job) -> int | None:
    """Return to which epoch of the dense training the weights go back, if they do."""
    return None if job.recipe.strategy is None else job.recipe.strategy.schedule.rewind_to


def starting_point(job: Job, seed: int, dense: nn.Module) -> tuple[nn.Module, nn.Module | None]:
    """Return the model that is pruned, and the one with the weights to go back to after each round.

    Raises:
        RunError: the dense training wasn't seen here, so that its early weights are unknown.
    """
    strategy, epoch = job.recipe.strategy, rewind_epoch(job)
    if strategy is not None and strategy.schedule.during == "train":
        return job.build(seed).to(job.device), None
    if epoch is None:
        return dense, None
    rewound = job.build(seed)
    if epoch > 0:
        state = job.workspace.kept_state(f"{training_stage(seed)} / epoch {epoch}")
        if state is None:
            raise RunError(
                f"strategy.schedule.rewind_to: the weights at epoch {epoch} were not kept, as the dense model came trained; "
                "train it here, or rewind to 0"
            )
        rewound.load_state_dict(state)
    return dense, rewound.to(job.device)


@torch.no_grad()
def _rewind(candidate: Candidate) -> None:
    """Give what is left the weights to go back to, in place."""
    if candidate.rewound is not None:
        candidate.model.load_state_dict(candidate.rewound.state_dict())
        Masks(candidate.model, dict(candidate.masks)).enforce()


def recover(
    job: Job,
    seed: int,
    dense: nn.Module,
    candidate: Candidate,
    examples: Examples,
    *,
    stage: str,
    overfits: Overfits | None = None,
) -> dict[str, Any]:
    """Give ``candidate`` its quality back, in place: fine-tune, distil or train adapters, with the masks held."""
    config = job.recipe.recovery
    if config.method == "none" or config.epochs == 0:
        return {}
    masks = Masks(candidate.model, dict(candidate.masks))
    options: dict[str, Any] = {}
    with ExitStack() as stack:
        if config.method == "distil":
            options["loss"] = distilling(job, config, dense, candidate.model, examples, stage, stack)
        elif config.method == "lora":
            options["around"] = partial(
                adapters, candidate.model, config.lora, dict(candidate.masks), seed=seed, stage=stage
            )
        looks = [] if job.watch is None else [partial(job.watch, stage, candidate.model)]
        stop = None if overfits is None else stopping(overfits, stage, candidate.model)
        if looks or stop is not None:
            options["after_epoch"] = each_epoch(looks, stop)
        facts = fit(job, candidate.model, examples, config, seed=seed, stage=stage, on_optimizer=masks.guard, **options)
    masks.enforce()
    return facts


def retrain(
    job: Job, seed: int, dense: nn.Module, candidate: Candidate, examples: Examples
) -> tuple[Candidate, dict[str, dict[str, Any]]]:
    """Return what the data alone changed: the narrowed model recovered, or the dense structure trained anew on ``examples``."""
    stage = f"seed {seed} / retrain"
    if candidate.model is not dense:
        candidate = candidate.replaced(model=duplicate(candidate.model))
        return candidate, {"recover": recover(job, seed, dense, candidate, examples, stage=stage)}
    fresh = job.build(seed).to(job.device)
    if not job.train_dense:
        candidate = candidate.replaced(model=fresh)
        return candidate, {"recover": recover(job, seed, dense, candidate, examples, stage=stage)}
    seen = None if job.watch is None else partial(job.watch, stage, fresh)
    history = fit(job, fresh, examples, job.recipe.train, seed=seed, stage=stage, after_epoch=seen)
    return candidate.replaced(model=fresh), {"retrain": history}


def _sparsify(job: Job, seed: int, model: nn.Module, strategy: Strategy, examples: Examples) -> dict[str, Any]:
    """Train with a penalty that drives what isn't needed to zero."""
    groups: tuple[Group, ...] = ()
    if not is_mask(strategy.granularity[0]):
        graph = prunable_graph(
            model,
            job.trace_inputs,
            strategy.exclude,
            seed=seed,
            granularity=strategy.granularity[0],
            by_config=strategy.expressible,
        )
        groups = tuple(group for group in groups_of(graph, strategy.granularity[0]) if not group.containers)
    names = prunable_weights(model, wide(strategy.exclude))
    kind = criteria[strategy.criterion].regularizer
    assert kind is not None
    penalty = sparsity_step(model, kind=kind, names=names, groups=groups, strength=strategy.l1_strength, seed=seed)
    config = job.recipe.train.model_copy(update={"epochs": strategy.l1_epochs})
    if kind == "l0":  # an average of gated weights is no gated model
        config = config.model_copy(update={"average": Average()})
    return fit(job, model, examples, config, seed=seed, stage=f"seed {seed} / sparsify", penalty=penalty)
