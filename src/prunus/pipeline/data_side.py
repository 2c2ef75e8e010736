"""Which training examples and which input features may go, and what takes their place?

The evidence about the examples comes from one short training of a fresh model (and, with folds, from models that never
saw the example that they judge); it is gathered once and kept, so that a resumed run decides on the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prunus.apply import relabel_examples, remove_examples
from prunus.core.recipe import Examples as ExamplesConfig
from prunus.core.recipe import Remove, Train
from prunus.core.runtime import generator
from prunus.core.types import Bools, Decision, Step
from prunus.data import Examples
from prunus.evaluate import predict_outputs
from prunus.pipeline.job import Decide, Job
from prunus.pipeline.objective import base_loss
from prunus.recover import train
from prunus.score import ExampleRecorder, embed, example_strata, suggest_labels
from prunus.select import select

__all__ = ["clean", "judge_examples"]


def judge_examples(job: Job, seed: int, decide: Decide) -> tuple[Step, ...]:
    """Return what to do with the training examples: the relabelling first, then each removal, in the recipe's order."""
    config = job.recipe.examples
    if config is None:
        return ()
    stage = f"seed {seed} / judge examples"

    def compute() -> tuple[Step, ...]:
        evidence = job.workspace.kept(f"{stage} / evidence", lambda: _watch(job, seed, config, stage))
        return _decide(job.data.train, config, evidence, seed)

    with job.workspace.stage(stage):
        return decide(stage, compute)


def clean(examples: Examples, steps: Sequence[Step]) -> Examples:
    """Return ``examples`` after the relabelling and the removals of a plan."""
    for step in steps:
        if step.granularity == "example":
            examples = (relabel_examples if step.operation == "relabel" else remove_examples)(examples, step)
    return examples


def _watch(job: Job, seed: int, config: ExamplesConfig, stage: str) -> dict[str, Tensor]:
    """Train briefly while a recorder watches; with folds, let models judge what they didn't train on.

    The loss is minimised, never a training step of the user's: that shows no outputs to record.
    """
    examples = job.data.train
    settings = job.recipe.train.model_copy(update={"epochs": config.epochs})
    recorder = ExampleRecorder(len(examples), examples.n_outputs, task=examples.task)
    model = job.build(seed).to(job.device)
    train(
        model,
        examples,
        settings,
        seed=seed,
        stage=stage,
        loss=base_loss(job, settings),
        watch=recorder,
        listener=job.workspace.listener,
    )
    evidence = recorder.tensors()
    if config.relabel is not None:
        evidence["embedding"] = embed(model, examples)
        if config.folds > 1:
            evidence["probability"] = _out_of_fold(job, seed, config.folds, settings, stage)
    return evidence


def _out_of_fold(job: Job, seed: int, n_folds: int, settings: Train, stage: str) -> Tensor:
    """Return, for every example, the probabilities of a model that was not trained on it: ``(n, classes)``."""
    examples = job.data.train
    fold = torch.randperm(len(examples), generator=generator(seed, stage, "folds")) % n_folds
    probability = torch.zeros(len(examples), examples.n_outputs)
    for number in range(n_folds):
        model = job.build(seed).to(job.device)
        name = f"{stage} / fold {number + 1} of {n_folds}"
        train(
            model,
            examples.select(fold != number),
            settings,
            seed=seed,
            stage=name,
            loss=base_loss(job, settings),
            listener=job.workspace.listener,
        )
        held = torch.nonzero(fold == number).flatten()
        probability[held] = predict_outputs(model, examples.select(fold == number)).softmax(dim=1).cpu()
    return probability


def _decide(examples: Examples, config: ExamplesConfig, evidence: dict[str, Tensor], seed: int) -> tuple[Step, ...]:
    """Turn the evidence into steps; a removal judges what the steps before it left, and never a relabelled example."""
    steps = []
    alive = np.ones(len(examples), dtype=np.bool_)
    judged = np.ones(len(examples), dtype=np.bool_)
    if config.relabel is not None:
        step = suggest_labels(evidence["probability"], evidence["embedding"], examples, config.relabel)
        judged[np.concatenate([d.unit[~np.isnan(d.after)] for d in step.decisions if d.after is not None])] = False
        steps.append(step)
    for number, remove in enumerate(config.remove):
        step = _remove(examples, remove, evidence, alive & judged, seed, number)
        for decision in step.decisions:
            alive[decision.unit[~decision.keep]] = False
        steps.append(step)
    return tuple(steps)


def _remove(
    examples: Examples, config: Remove, evidence: dict[str, Tensor], judged: Bools, seed: int, number: int
) -> Step:
    strata = example_strata(
        config.criterion,
        evidence,
        examples,
        class_floor=config.class_floor,
        keep_fraction=config.keep_fraction,
        cutoff=config.cutoff,
        judged=judged,
        seed=seed,
    )
    keep = select(strata, keep_fraction=config.keep_fraction, cutoff=config.cutoff, allocation="global")
    ids = np.array(examples.ids, dtype=object)
    decisions = tuple(
        Decision(
            s.name,
            s.units,
            s.saliency,
            k,
            np.where(k, "kept", f"{config.criterion}: lowest").astype(object),
            label=ids[s.units],
        )
        for s, k in zip(strata, keep, strict=True)
    )
    return Step("remove", "example", config.criterion, decisions, {"order": number})
