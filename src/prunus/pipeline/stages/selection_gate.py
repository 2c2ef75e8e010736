"""Does a selection of training examples pay: against as many by chance, and against all of them for as many optimiser steps?

Each seed trains a model three times from the same start: on what was selected, on as many examples by chance (of the data as they
came, every class in proportion), and on all examples in turn for exactly as many steps. They are compared on the validation
examples; the test examples aren't looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from prunus.core.batch import Batch
from prunus.core.errors import DataError, RecipeError
from prunus.core.recipes.recipe import Train
from prunus.core.runtime import derive_seed, generator
from prunus.data import Examples
from prunus.evaluate import ARMS, judge_arms, observe
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.objective import base_loss
from prunus.recover import n_training_batches, train
from prunus.score import example_strata
from prunus.select import select
from prunus.tasks import Observed, default_metrics

__all__ = ["AllInTurn", "by_chance", "check_gate", "gate_selection"]


def gate_selection(job: Job, kept: Mapping[int, Examples]) -> dict[str, Any]:
    """Return how a selection did against chance and against all examples, as plain values.

    Args:
        job: its training examples are what was selected from.
        kept: what was selected under each seed.

    Raises:
        DataError: no validation examples.
        RecipeError: nothing is trained.
    """
    check_gate(job)
    config, validation, recipe = _training(job), job.data.validation, job.recipe
    trainings = [(seed, name) for seed in kept for name in ARMS]

    def answers(place: int) -> Observed:
        seed, name = trainings[place]
        return _answers(job, seed, name, _arm(job, seed, name, kept[seed]), config)

    names = [f"seed {seed} / gate / {name}" for seed, name in trainings]
    found = job.parts.each(job.workspace, "gate", names, answers)
    observed = {name: found[start :: len(ARMS)] for start, name in enumerate(ARMS)}
    task = validation.task
    judged = judge_arms(
        observed,
        task,
        (recipe.evaluation.metrics or default_metrics(task.name))[0],
        confidence=recipe.evaluation.confidence,
        bootstrap=recipe.evaluation.bootstrap,
        seed=recipe.seeds[0],
    )
    sizes = [len(chosen) for chosen in kept.values()]
    steps = [config.epochs * n_training_batches(n, config.batch_size * config.accumulate) for n in sizes]
    return {
        **judged.to_dict(),
        "n_train": len(job.data.train),
        "n_kept": sizes,
        "n_steps": steps,
        "n_validation": len(validation),
        "seeds": list(kept),
    }


def check_gate(job: Job) -> None:
    """Refuse a gate without validation examples, or without a training, before anything is trained.

    Raises:
        DataError: no validation examples.
        RecipeError: nothing is trained.
    """
    if len(job.data.validation) == 0:
        raise DataError(
            "the gate judges a selection on validation examples: got none; set data.split.validation, or examples.gate: false"
        )
    if _training(job).epochs == 0:
        key = "train" if job.train_dense else "recovery"
        raise RecipeError(
            f"the gate trains models on what was selected: got {key}.epochs 0; set it, or examples.gate: false"
        )


def by_chance(examples: Examples, n: int, seed: int) -> Examples:
    """Return ``n`` of the examples, every class in proportion, and with one example at least where so many stay."""
    share = n / len(examples)
    strata = example_strata("random", {}, examples, keep_fraction=share, seed=seed, by_class=True)
    strata = [replace(stratum, min_units=int(n >= len(strata))) for stratum in strata]
    keep = np.zeros(len(examples), np.bool_)
    for stratum, stays in zip(strata, select(strata, keep_fraction=share), strict=True):
        keep[stratum.units[stays]] = True
    return examples.select(keep)


class AllInTurn:
    """All examples, dealt out so that an epoch is as long as one of ``n`` examples: none comes again before all others came.

    Every call of :meth:`batches` is the next epoch.
    """

    def __init__(self, examples: Examples, n: int, seed: int) -> None:
        self._examples, self._n, self._seed = examples, n, seed
        self._left, self._rounds = torch.empty(0, dtype=torch.int64), 0

    def __len__(self) -> int:
        return self._n

    def __getattr__(self, name: str) -> Any:
        return getattr(self._examples, name)

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Yield the next epoch, in the order that ``generator`` shuffles."""
        mask = torch.zeros(len(self._examples), dtype=torch.bool)
        mask[self.deal()] = True
        yield from self._examples.select(mask).batches(batch_size, generator)

    def deal(self) -> Tensor:
        """Return the positions of the next epoch's examples."""
        dealt, self._left = self._left[: self._n], self._left[self._n :]
        if len(dealt) < self._n:
            every = torch.randperm(len(self._examples), generator=generator(self._seed, "round", self._rounds))
            self._rounds += 1
            # An example that is in this epoch already waits for the next one.
            waits = torch.isin(every, dealt)
            others = every[~waits]
            missing = self._n - len(dealt)
            dealt = torch.cat([dealt, others[:missing]])
            self._left = torch.cat([every[waits], others[missing:]])
        return dealt


def _arm(job: Job, seed: int, name: str, chosen: Examples) -> Examples:
    """Return what a model is trained on, which one seed's selection is compared with or which it is."""
    if name == "random":
        return by_chance(job.data.train, len(chosen), derive_seed(seed, "gate"))
    if name == "full_short":
        return cast("Examples", AllInTurn(job.data.train, len(chosen), derive_seed(seed, "gate", "turns")))
    return chosen


def _training(job: Job) -> Train:
    """Return how a model is trained here: as the dense one, or as given weights are trained on."""
    recovery = job.recipe.recovery
    if job.train_dense:
        return job.recipe.train
    return recovery if recovery.method != "none" else recovery.model_copy(update={"epochs": 0})


def _answers(job: Job, seed: int, name: str, examples: Examples, config: Train) -> Observed:
    """Return what is observed on the validation examples of a model that was trained on some; kept for a resume."""
    stage = f"seed {seed} / gate / {name}"

    def compute() -> dict[str, Tensor]:
        model = job.build(seed).to(job.device)
        train(
            model,
            examples,
            config,
            seed=seed,
            stage=f"seed {seed} / gate",  # the same draws for all
            loss=base_loss(job, config),
            training_step=job.training_step,
            listener=job.workspace.listener,
        )
        seen = observe(model, job.data.validation, job.data.validation.task)
        return {key: torch.from_numpy(np.ascontiguousarray(column)) for key, column in seen.items()}

    with job.workspace.stage(stage):
        return {key: column.numpy() for key, column in job.workspace.kept(stage, compute).items()}
