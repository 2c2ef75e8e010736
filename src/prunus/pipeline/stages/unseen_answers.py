"""What do models say of examples that they weren't trained on?

The training examples are dealt into folds, and each fold is answered by a model that was trained on the others. What a fold's model
said is kept as soon as it is known, so that a killed run trains it once, and workers train several at once (``jobs.parts``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prunus.core.errors import ModelError
from prunus.core.recipes.recipe import Train
from prunus.core.runtime import generator
from prunus.data import Examples
from prunus.evaluate import predict_outputs
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.objective import base_loss
from prunus.recover import train
from prunus.score import embed, principal_plane, wrong_labels
from prunus.score.examples.recording.judged import class_scores

__all__ = ["FOLDS", "Read", "by_fold", "class_probabilities", "plane", "probabilities_again", "unseen_probabilities"]

FOLDS = 3
"""Into so many parts examples are dealt, where the recipe doesn't ask for more."""

Read = Callable[[nn.Module, Examples], dict[str, Tensor]]
"""What is kept of a model's answers to examples: tensors, each with one row per example or per part of one."""


def by_fold(
    job: Job, seed: int, n_folds: int, settings: Train, stage: str, read: Read, trusted: Tensor | None = None
) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Return for each fold the numbers of its examples, and what ``read`` keeps of the model's answers to them.

    The first fold's model also says where all examples lie: :func:`plane` has it. Where it is told which examples are
    ``trusted``, ``(n,)``, models learn from no others.
    """
    names = [f"{stage} / fold {number + 1} of {n_folds} / answers" for number in range(n_folds)]
    workspace = job.workspace

    def answers(number: int) -> dict[str, Tensor]:
        return workspace.kept(
            names[number], lambda: _answer(job, seed, n_folds, number, settings, stage, read, trusted)
        )

    told = job.parts.each(
        workspace, f"{stage} / folds", names, answers, kept=lambda number: workspace.is_kept(names[number])
    )
    fold = _dealt(len(job.data.train), seed, n_folds, stage)
    return [(torch.nonzero(fold == number).flatten(), found) for number, found in enumerate(told)]


def _dealt(n: int, seed: int, n_folds: int, stage: str) -> Tensor:
    return torch.randperm(n, generator=generator(seed, stage, "folds")) % n_folds


def _answer(
    job: Job, seed: int, n_folds: int, number: int, settings: Train, stage: str, read: Read, trusted: Tensor | None
) -> dict[str, Tensor]:
    """Return what is kept of a fold's answers, by a model that learns from the others."""
    examples = job.data.train
    fold = _dealt(len(examples), seed, n_folds, stage)
    model = job.build(seed).to(job.device)
    train(
        model,
        examples.select(fold != number if trusted is None else (fold != number) & trusted),
        settings,
        seed=seed,
        stage=f"{stage} / fold {number + 1} of {n_folds}",
        loss=base_loss(job, settings),
        listener=job.workspace.listener,
    )
    place = {} if number else _placed(model, examples)
    return {**read(model, examples.select(fold == number)), **place}


def plane(job: Job, n_folds: int, stage: str) -> tuple[Tensor, float] | None:
    """Return where the training examples lie for the first fold's model, as :func:`by_fold` kept it; None where it didn't."""
    told = job.workspace.kept(f"{stage} / fold 1 of {n_folds} / answers", dict)
    return (told["plane"], float(told["explained"])) if "plane" in told else None


def _placed(model: nn.Module, examples: Examples) -> dict[str, Tensor]:
    try:
        place, explained = principal_plane(embed(model, examples))
    except ModelError:  # no layer with a weight matrix: nowhere to lie
        return {}
    return {"plane": place, "explained": torch.tensor(explained)}


def class_probabilities(model: nn.Module, examples: Examples) -> dict[str, Tensor]:
    """Return the probability of each class, ``(n, classes)``."""
    logits = class_scores(examples.task, predict_outputs(model, examples), len(examples))
    return {"probability": logits.softmax(dim=1).cpu()}


def unseen_probabilities(
    job: Job, seed: int, n_folds: int, settings: Train, stage: str, trusted: Tensor | None = None
) -> Tensor:
    """Return, for every example, the probabilities of a model that was not trained on it: ``(n, classes)``."""
    examples = job.data.train
    probability = torch.zeros(len(examples), examples.n_outputs)
    for rows, told in by_fold(job, seed, n_folds, settings, stage, class_probabilities, trusted):
        probability[rows] = told["probability"]
    return probability


def probabilities_again(job: Job, seed: int, n_folds: int, settings: Train, stage: str, first: Tensor) -> Tensor:
    """Return the probabilities of models that didn't learn from what ``first`` calls wrong either, ``(n, classes)``.

    Models that learn from wrong labels believe a little in all of them. ``first`` stands where it calls hardly any wrong or
    can't tell (``WrongLabels.doubted``), and where a class would have no example left to learn from.

    References:
        Chen et al., ICML 2019, arXiv:1905.05040 (INCV) train again on what agrees; they don't judge what they left out again.
    """
    given = job.data.train.targets.cpu()
    trusted = torch.from_numpy(~wrong_labels(first.double().numpy(), given.numpy(), seed=seed).doubted())
    if trusted.all() or set(given[trusted].tolist()) != set(given.tolist()):
        return first
    return unseen_probabilities(job, seed, n_folds, settings, f"{stage} / again", trusted)
