"""How many of the labels that a run calls wrong are wrong, as far as models that didn't learn from them tell?

Where ``data.label_noise`` flipped some, the truth is known and is counted instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from torch import Tensor

from prunus.core.types import Step
from prunus.pipeline.jobs.job import Job
from prunus.score import wrong_labels

__all__ = ["asks_precision", "suspects", "with_precision"]


def suspects(step: Step) -> bool:
    """Tell whether a step calls labels wrong."""
    return step.operation == "relabel" or (step.operation == "remove" and step.criterion == "aum")


def asks_precision(job: Job, seed: int, steps: Sequence[Step]) -> bool:
    """Tell whether labels are called wrong of which nobody knows the truth; the first seed tells how many are."""
    config, train = job.recipe.examples, job.data.train
    asked = config is not None and config.estimate and seed == job.recipe.seeds[0] and train.task.exclusive
    return asked and train.n_outputs > 1 and job.data.noise is None and any(map(suspects, steps))


def with_precision(job: Job, seed: int, steps: Sequence[Step], probability: Tensor) -> tuple[Step, ...]:
    """Return the steps; those that call labels wrong say in their settings how many of them are.

    Args:
        probability: of each class, by models that weren't trained on the example, ``(n, classes)``.
    """
    train, confidence = job.data.train, job.recipe.evaluation.confidence
    wrong = wrong_labels(probability.double().numpy(), train.targets.cpu().numpy(), seed=seed)
    found = []
    for step in steps:
        listed = np.zeros(len(train), np.bool_)
        for decision in step.decisions:
            listed[decision.unit[~decision.keep]] = True
        told = wrong.precision(listed, confidence=confidence, seed=seed) if suspects(step) else None
        settings = (
            step.settings if told is None else step.settings | {"precision": asdict(told) | {"noise": wrong.noise}}
        )
        found.append(replace(step, settings=settings))
    return tuple(found)
