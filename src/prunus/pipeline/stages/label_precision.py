"""How many of the labels that a run calls wrong are wrong, as far as models that didn't learn from them tell?

Where ``data.label_noise`` flipped some, the truth is known and is counted instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from torch import Tensor

from prunus.core.types import Step
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.stages.label_cleaning import CLEANED
from prunus.pipeline.stages.plan_table import TABLE_CRITERION
from prunus.score import wrong_labels

__all__ = ["action_of", "asks_precision", "precision_facts", "suspects", "with_precision"]


def suspects(step: Step) -> bool:
    """Tell whether a step calls labels wrong."""
    return step.operation == "relabel" or (step.operation == "remove" and step.criterion in ("aum", CLEANED))


def asks_precision(job: Job, seed: int, steps: Sequence[Step]) -> bool:
    """Tell whether labels are called wrong of which nobody knows the truth; the first seed tells how many are."""
    config, train = job.recipe.examples, job.data.train
    asked = config is not None and config.estimate and seed == job.recipe.seeds[0] and train.task.exclusive
    return asked and train.n_outputs > 1 and job.data.noise is None and any(map(_untold, steps))


def _untold(step: Step) -> bool:
    """Tell whether a step calls labels wrong and doesn't say how many of them are; a table's are somebody's own word."""
    return suspects(step) and step.criterion not in (CLEANED, TABLE_CRITERION)


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
        told = wrong.precision(listed, confidence=confidence, seed=seed) if _untold(step) else None
        settings = (
            step.settings if told is None else step.settings | {"precision": asdict(told) | {"noise": wrong.noise}}
        )
        found.append(replace(step, settings=settings))
    return tuple(found)


def precision_facts(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Return how many of each list of suspected labels are estimated to be wrong, as a record has it."""
    found = []
    for step in steps:
        if suspects(step) and (told := step.settings.get("precision")) is not None:
            number = {"name": "precision", "unit": "share", "higher_is_better": True}
            number |= {key: told[key] for key in ("value", "low", "high")}
            action = action_of(step, flagged=step.n_kept == step.n_units)
            found.append({"action": action, "n": told["n"], "precision": number, "noise": told["noise"]})
    return found


def action_of(step: Step, *, flagged: bool) -> str:
    """Return in one word what a step does with examples whose label it calls wrong."""
    return "relabelled" if step.operation == "relabel" else "flagged" if flagged else "removed"
