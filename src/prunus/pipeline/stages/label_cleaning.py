"""Which training labels are wrong, and what becomes of their examples?

The answers of models that didn't learn from a label (or the course of one training, if the recipe says so) go through
``score.labels``; what comes of it are steps of a plan, which say in their settings how many labels are estimated to be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from prunus.core.recipes.recipe import Clean
from prunus.core.types import Bools, Decision, Ints, Step
from prunus.data import Examples
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.stages.label_answers import Folds, judge_others
from prunus.score import FLAGGED, LabelVerdicts, judge_labels

__all__ = ["CLEANED", "clean_labels", "is_flagged", "label_facts"]

CLEANED = "confident_learning"
"""The criterion of the steps."""


def clean_labels(
    job: Job, seed: int, clean: Clean, probability: Callable[[], Tensor], folds: Callable[[], Folds]
) -> tuple[Step, ...]:
    """Return the steps that relabel and drop examples with wrong labels.

    Args:
        job: with the training examples.
        seed: of the resamples behind the intervals.
        clean: what is asked.
        probability: of examples with one class gives that of each class, ``(n, classes)``.
        folds: of others gives what models said that didn't see them.
    """
    train, confidence = job.data.train, job.recipe.evaluation.confidence
    if not train.task.exclusive:
        found = judge_others(train, folds(), clean, confidence=confidence, seed=seed)
        return _steps(train, found, clean, "drop" if clean.wrong == "drop" else "flag")
    wrong = clean.wrong or "both"
    found = judge_labels(
        probability().double().numpy(),
        train.targets.cpu().numpy(),
        train.class_names,
        wrong=wrong,
        drop_probability=clean.drop_probability,
        relabel_probability=clean.relabel_probability,
        class_floor=clean.class_floor,
        confidence=confidence,
        seed=seed,
    )
    return _steps(train, found, clean, wrong)


def is_flagged(reason: object) -> bool:
    """Tell whether an example is called wrong and stays as it is, by the reason in its decision."""
    return str(reason).startswith(FLAGGED)


def label_facts(steps: Sequence[Step]) -> dict[str, Any] | None:
    """Return how many labels the steps say to be wrong, and what became of them; None where none cleaned."""
    cleaned = [step for step in steps if step.criterion == CLEANED]
    if not cleaned:
        return None
    counts = {"n_dropped": 0, "n_relabelled": 0, "n_flagged": 0}
    for step in cleaned:
        for decision in step.decisions:
            counts["n_relabelled" if step.operation == "relabel" else "n_dropped"] += int((~decision.keep).sum())
            counts["n_flagged"] += sum(map(is_flagged, decision.reason))
    settings = cleaned[0].settings
    told = {key: settings[key] for key in ("evidence", "n_spared", "repaired")}
    noise = {"name": "noise", "unit": "share", "higher_is_better": False, **settings["noise"]}
    return {**told, **counts, "n": sum(step.n_units for step in cleaned), "noise": noise}


def _steps(train: Examples, found: LabelVerdicts, clean: Clean, wrong: str) -> tuple[Step, ...]:
    """Return a step for the examples that get another label, if any do, and one for all others."""
    told = {
        **clean.model_dump(),
        "wrong": wrong,
        "noise": {key: value for key, value in asdict(found.noise).items() if key != "n"},
        "n_spared": found.n_spared,
        "repaired": found.repaired,
    }
    ids = np.array(train.ids, object)
    saliency = 1.0 - found.probability

    def settings(precision: Any) -> dict[str, Any]:
        return told if precision is None else {**told, "precision": asdict(precision) | {"noise": found.noise.value}}

    changed = np.flatnonzero(found.new_label >= 0)
    steps = []
    if len(changed):
        decision = Decision(
            "all",
            changed,
            saliency[changed],
            np.zeros(len(changed), np.bool_),
            found.reason[changed],
            label=ids[changed],
            before=train.targets.cpu().double().numpy()[changed],
            after=found.new_label[changed].astype(np.float64),
        )
        steps.append(Step("relabel", "example", CLEANED, (decision,), settings(found.relabelled)))
    decisions = [
        Decision(name, units, saliency[units], found.decision[units] != "drop", found.reason[units], label=ids[units])
        for name, units in _by_class(train, found.new_label < 0)
    ]
    steps.append(Step("remove", "example", CLEANED, tuple(decisions), settings(found.dropped or found.flagged)))
    return tuple(steps)


def _by_class(train: Examples, rest: Bools) -> Iterator[tuple[str, Ints]]:
    if not train.task.exclusive:
        yield "all", np.flatnonzero(rest).astype(np.int64)
        return
    given = train.targets.cpu().numpy()
    for number in np.unique(given[rest]).tolist():
        yield train.class_names[number], np.flatnonzero(rest & (given == number)).astype(np.int64)
