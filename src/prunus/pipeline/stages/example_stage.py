"""Which training examples and which input features may go, and what takes their place?

The evidence about the examples comes from one short training of a fresh model (and, with folds, from models that never
saw the example that they judge); it is gathered once and kept, so that a resumed run decides on the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prunus.apply import relabel_examples, remove_examples
from prunus.core.errors import DataError, RecipeError
from prunus.core.files.example_table import read_example_table
from prunus.core.recipes.recipe import Examples as ExamplesConfig
from prunus.core.recipes.recipe import Remove
from prunus.core.types import Bools, Decision, Step
from prunus.data import Examples
from prunus.pipeline.jobs.job import Decide, Job
from prunus.pipeline.stages.duplicate_examples import alike_notes, check_likeness, drop_duplicates, likeness_rows
from prunus.pipeline.stages.example_cover import check_class_left, check_cover, cover_examples, error_of, with_cleaning
from prunus.pipeline.stages.label_answers import Folds, check_labels, reads
from prunus.pipeline.stages.label_cleaning import clean_labels, label_facts
from prunus.pipeline.stages.label_precision import asks_precision, precision_facts, with_precision
from prunus.pipeline.stages.plan_table import steps_of_table
from prunus.pipeline.stages.recorded_training import check_recorded
from prunus.pipeline.stages.scoring.example_evidence import (
    by_embedding,
    evidence_read,
    example_evidence,
    judging_stage,
    named_criteria,
)
from prunus.pipeline.stages.scoring.pruned_scorer import check_scorer, reads_a_model, scoring_job, with_scorer
from prunus.pipeline.stages.unseen_answers import FOLDS, by_fold, probabilities_again, unseen_probabilities
from prunus.report import LabelFacts, PrecisionFacts, suspected_labels
from prunus.score import (
    GRADIENT_NEEDS,
    INFLUENCE_NEEDS,
    example_criteria,
    example_strata,
    recorded_names,
    suggest_labels,
)
from prunus.select import select
from prunus.tasks import Regression

__all__ = [
    "as_asked",
    "check_examples",
    "clean",
    "example_evidence",
    "judge_examples",
    "named_criteria",
    "thinned_classes",
]

FEW = 5
"""A class that loses examples and has fewer than this left is named."""


def judge_examples(job: Job, seed: int, decide: Decide) -> tuple[Step, ...]:
    """Return what to do with the training examples: relabel, drop duplicates, each removal in the recipe's order, then cover."""
    if job.recipe.examples is None:
        return ()
    config = as_asked(job.recipe.examples, job)
    stage = judging_stage(seed)

    def compute() -> tuple[Step, ...]:
        scorer = scoring_job(job, seed) if reads_a_model(config) else job
        evidence = example_evidence(scorer, seed, config)
        if config.plan is not None:
            found = _covered(job, seed, config, _of_table(job, config, config.plan), evidence)
            return with_scorer(job, scorer, seed, config, found)
        cleaned: tuple[Step, ...] = ()
        if config.clean is not None:

            def probability() -> Tensor:
                seen = config.clean is not None and config.clean.evidence == "recorded"
                return evidence["probability"] if seen else _unseen(scorer, seed, config, evidence, stage)

            def folds() -> Folds:
                settings = job.recipe.train.model_copy(update={"epochs": config.epochs})
                return by_fold(scorer, seed, max(config.folds, FOLDS), settings, stage, reads(job.data.train.task))

            cleaned = clean_labels(job, seed, config.clean, probability, folds)
        rows = likeness_rows(config.duplicates, job.data.train)
        if rows is not None:
            evidence["rows"] = rows
        found = (*cleaned, *_decide(job.data.train, config, evidence, seed, cleaned))
        found = with_scorer(job, scorer, seed, config, _covered(job, seed, config, found, evidence))
        if not asks_precision(job, seed, found):
            return found
        return with_precision(job, seed, found, _unseen(scorer, seed, config, evidence, stage))

    with job.workspace.stage(stage):
        steps = decide("example", stage, compute)
    first = seed == job.recipe.seeds[0]
    if first and config.scorer.model == "pruned" and not reads_a_model(config):
        job.workspace.note(stage, "examples.scorer: pruned isn't asked, since nothing here reads a model")
    if first and job.recipe.examples.plan is not None:
        for text in _beside_table(job.recipe.examples):
            job.workspace.note(stage, text)
    if first and (facts := label_facts(steps)) is not None:
        told = [PrecisionFacts.model_validate(item) for item in precision_facts(steps)]
        job.workspace.note(stage, suspected_labels(told, LabelFacts.model_validate(facts)))
    alike = alike_notes(job.data.train, job.data.test, config.duplicates) if first else []
    for text in (*alike, *thinned_classes(job.data.train, clean(job.data.train, steps))):
        job.workspace.warn(stage, text)
    return steps


def check_examples(job: Job) -> None:
    """Refuse what only classes can have done to them, before anything is trained.

    Raises:
        RecipeError: a relabelling of a regression's targets, or an unknown criterion.
    """
    if job.recipe.examples is None:
        return
    train = job.data.train
    config = as_asked(job.recipe.examples, job)
    if config.plan is not None:
        _of_table(job, config, config.plan)
    check_scorer(job.recipe)
    if config.recording is not None:
        check_recorded(
            config,
            train,
            by_embedding(config) or bool(evidence_read(config) & {"embedding", *GRADIENT_NEEDS, *INFLUENCE_NEEDS}),
        )
    if config.clean is not None:
        check_labels(train.task, config.clean, train)
    known = {*recorded_names(train.task), "embedding", "noise", *(["label"] if train.task.exclusive else [])}
    if not train.task.told_by_model:
        known |= GRADIENT_NEEDS | INFLUENCE_NEEDS
    for key, criterion in named_criteria(config):
        missing = [need for need in example_criteria[criterion].needs if need not in known]
        if missing:
            fit = [name for name in example_criteria if set(example_criteria[name].needs) <= known]
            raise RecipeError(
                f"examples.{key}: the criterion {criterion} reads {missing[0]}, which the task {train.task.name} doesn't "
                f"give of its examples: use {', '.join(fit)}"
            )
    if evidence_read(config) & INFLUENCE_NEEDS:
        _check_target(job, config)
    if train.task.exclusive or isinstance(train.task, Regression):
        _ = train.targets  # refuses labels that nobody knows without reading all examples
    if config.cover is not None:
        check_cover(train, config.cover)
    check_likeness(config.duplicates, train, job.data.test)
    if config.relabel is not None and not job.data.train.task.exclusive:
        raise RecipeError(
            f"examples.relabel chooses another class, and the target is values (data.task: {train.task.name}): got both; use "
            "examples.remove with criterion aum, which drops the targets that the model contradicts most, or set data.task"
        )


def _check_target(job: Job, config: ExamplesConfig) -> None:
    """Refuse influence on examples that aren't there, or that prove something else."""
    key, n = f"examples.target: {config.target}", len(getattr(job.data, config.target))
    if n == 0:
        raise DataError(
            f"{key}: influence asks whom an example helps: got no {config.target} examples; set data.split.{config.target}"
        )
    recipe = job.recipe
    proves = {"examples.gate": config.gate, "contract": recipe.contract is not None, "joint": recipe.joint is not None}
    if config.target == "validation" and (named := [name for name, holds in proves.items() if holds]):
        raise RecipeError(
            f"{key}: influence would choose by the examples on which {' and '.join(named)} is judged, which would flatter: set "
            "examples.target: calibration (data.calibration names a file of your own)"
        )


def thinned_classes(before: Examples, after: Examples) -> list[str]:
    """Return a line for each class that lost its last examples, or all but a few."""
    if not before.task.exclusive or before.known_targets is None:
        return []
    given, left = (torch.bincount(part.targets.cpu(), minlength=before.n_outputs).tolist() for part in (before, after))
    lines = []
    for name, n_before, n_after in zip(before.class_names, given, left, strict=True):
        if n_after == 0 and n_before:
            lines.append(
                f"no training example of class {name!r} is left of {n_before}, so it can't be learnt: raise class_floor, or "
                "relabel.confidence"
            )
        elif n_after < min(n_before, FEW):
            lines.append(
                f"class {name!r} keeps {n_after} of {n_before} training examples: raise class_floor if that is too few"
            )
    return lines


def clean(examples: Examples, steps: Sequence[Step]) -> Examples:
    """Return ``examples`` after the relabelling and the removals of a plan."""
    for step in steps:
        if step.granularity == "example":
            examples = (relabel_examples if step.operation == "relabel" else remove_examples)(examples, step)
    return examples


def _of_table(job: Job, config: ExamplesConfig, plan: str) -> tuple[Step, ...]:
    path, data = Path(plan), job.data
    return steps_of_table(
        read_example_table(path), data.train, data.fingerprint, path, allow_empty_classes=config.allow_empty_classes
    )


def as_asked(config: ExamplesConfig, job: Job) -> ExamplesConfig:
    """Return the section with what it implies; with a table nothing else is asked but a cover of what the table leaves."""
    if config.plan is None:
        return with_cleaning(config, job.data.train, job.data.test)
    return config.model_copy(update={"clean": None, "relabel": None, "duplicates": None, "remove": ()})


def _beside_table(config: ExamplesConfig) -> list[str]:
    """Return what must be said of keys that stand beside a table."""
    unasked = [key for key in ("clean", "relabel", "duplicates", "remove") if getattr(config, key)]
    lines = [f"examples.plan decides, so examples.{' and '.join(unasked)} aren't asked"] if unasked else []
    if config.cover is not None:
        lines.append("examples.plan is carried out first, and examples.cover chooses among what it leaves")
    return lines


def _covered(
    job: Job, seed: int, config: ExamplesConfig, found: tuple[Step, ...], evidence: dict[str, Tensor]
) -> tuple[Step, ...]:
    """Return the steps that were found, and the cover of what they leave, if one is asked for."""
    if config.cover is None:
        return found
    train = job.data.train
    found = (*found, cover_examples(train, clean(train, found), config.cover, evidence, seed))
    check_class_left(train, clean(train, found), config)
    return found


def _unseen(job: Job, seed: int, config: ExamplesConfig, evidence: dict[str, Tensor], stage: str) -> Tensor:
    """Return what models say of examples that they weren't trained on, ``(n, classes)``."""
    if config.relabel is not None and config.folds > 1:
        return evidence["probability"]
    settings = job.recipe.train.model_copy(update={"epochs": config.epochs})

    def compute() -> dict[str, Tensor]:
        n_folds = max(config.folds, FOLDS)
        first = unseen_probabilities(job, seed, n_folds, settings, stage)
        if config.clean is None or config.clean.rounds == 1 or not job.data.train.task.exclusive:
            return {"probability": first}
        return {"probability": probabilities_again(job, seed, n_folds, settings, stage, first)}

    return job.workspace.kept(f"{stage} / unseen", compute)["probability"]


def _decide(
    examples: Examples, config: ExamplesConfig, evidence: dict[str, Tensor], seed: int, cleaned: Sequence[Step]
) -> tuple[Step, ...]:
    """Turn the evidence into steps; a removal judges what the steps before it left, and never a relabelled example."""
    steps = []
    alive = np.ones(len(examples), dtype=np.bool_)
    judged = np.ones(len(examples), dtype=np.bool_)
    for decision in (part for step in cleaned for part in step.decisions):
        judged[decision.unit[~decision.keep]] = False
    if config.relabel is not None:
        step = suggest_labels(evidence["probability"], evidence["embedding"], examples, config.relabel)
        judged[np.concatenate([d.unit[~np.isnan(d.after)] for d in step.decisions if d.after is not None])] = False
        steps.append(step)
    if config.duplicates is not None:
        rows = evidence["embedding" if by_embedding(config) else "rows"]
        step = drop_duplicates(examples, rows, config.duplicates, judged=judged, seed=seed)
        for decision in step.decisions:
            alive[decision.unit[~decision.keep]] = False
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
    ids, error = np.array(examples.ids, dtype=object), error_of(config.criterion, evidence)
    decisions = tuple(
        Decision(
            s.name,
            s.units,
            s.saliency,
            k,
            np.where(k, "kept", f"{config.criterion}: lowest").astype(object),
            label=ids[s.units],
            error=None if error is None else error[s.units],
        )
        for s, k in zip(strata, keep, strict=True)
    )
    return Step("remove", "example", config.criterion, decisions, {"order": number})
