"""What does a run minimise: a default, the recipe's loss, or what the facade was given?

Training, recovery and the criteria that read gradients all ask here, so that what is kept is what the user's loss needs.
"""

from __future__ import annotations

from contextlib import ExitStack

from torch import nn

from prunus.core.calls import call
from prunus.core.recipes.recipe import Recovery, Train
from prunus.data import Batch, Examples
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.workspace import LOAD_DATA
from prunus.recover import (
    Loss,
    bound,
    check_lora,
    check_loss,
    check_modules,
    check_precision,
    default_loss,
    distillation_loss,
    match_features,
    named_loss,
    unlearnt,
)
from prunus.score import probe_loss

__all__ = ["base_loss", "check_objective", "distilling", "evidence_loss"]


def base_loss(job: Job, config: Train | None = None) -> Loss:
    """Return the loss of a training with ``config`` (a recovery without a loss of its own takes that of ``train``).

    Raises:
        RecipeError: the recipe names a loss that isn't there.
    """
    if job.loss is not None:
        return job.loss
    if config is not None and config.loss is not None:
        return named_loss(config.loss, key="recovery.loss" if isinstance(config, Recovery) else "train.loss")
    if job.recipe.train.loss is not None:
        return named_loss(job.recipe.train.loss, key="train.loss")
    return default_loss(job.data.train.task, 0.0 if config is None else config.label_smoothing)


def evidence_loss(job: Job, model: nn.Module) -> Loss:
    """Return what the gradients of ``model`` are taken of: the loss without smoothing, or the user's training step."""
    if job.training_step is not None:
        return bound(job.training_step, model)
    if job.data.train.task.of_dense and job.loss is None and job.recipe.train.loss is None:
        # The model agrees with itself: what matters is how its answers would move.
        return probe_loss(job.measure, seed=job.recipe.seeds[0])
    return base_loss(job)


def check_objective(job: Job, model: nn.Module, batch: Batch) -> None:
    """Find out before any training that a loss gives no number or no gradient, or a format or a package isn't there.

    Raises:
        RecipeError: a loss or a module that isn't there, or a precision that the device doesn't train in.
        MissingExtraError: LoRA without peft.
        ModelError: the loss fails, or can't be minimised.
    """
    train, recovery = job.recipe.train, job.recipe.recovery
    if recovery.method == "lora":
        check_lora(model, recovery.lora)
    if recovery.method == "distil":
        check_modules(model, recovery.distil.modules)
    check_precision(train.precision, job.device)
    check_precision(recovery.precision, job.device, key="recovery.precision")
    losses = {"train.loss": train.loss, "recovery.loss": recovery.loss}
    if job.loss is not None or job.training_step is not None:
        losses = {"ModelOptimizer": "given"}
    for config in (train, recovery):
        if any(losses.values()):
            loss = base_loss(job, config) if job.training_step is None else bound(job.training_step, model)
            key = "recovery" if config is recovery else "train"
            check_loss(loss(call(model.eval(), batch.inputs), batch), f"{key}.loss")
            if config is train and (own := unlearnt(loss)):
                job.workspace.warn(
                    LOAD_DATA,
                    f"the loss has parameters of its own that no training moves ({', '.join(own)}): only the model's are trained; "
                    "put what is to be learnt into the model",
                )


def distilling(
    job: Job, config: Recovery, dense: nn.Module, model: nn.Module, examples: Examples, stage: str, stack: ExitStack
) -> Loss:
    """Return the loss of a recovery that distils; what it attaches to the models goes when ``stack`` closes."""
    base = base_loss(job, config) if job.training_step is None else bound(job.training_step, model)
    features = None
    if config.distil.features > 0:
        features = match_features(model, dense, job.trace_inputs, config.distil.modules)
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
