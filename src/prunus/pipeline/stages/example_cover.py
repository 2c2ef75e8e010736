"""Which training examples stand for all others, once what is wrong or double is gone?

"Clean, then cover": every class keeps the same share of what cleaning left of it, picked by an order that covers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from prunus.core.errors import DataError, RecipeError, RunError
from prunus.core.recipes.recipe import Clean, Cover
from prunus.core.recipes.recipe import Examples as ExamplesConfig
from prunus.core.types import Decision, Floats, Step
from prunus.data import Examples
from prunus.pipeline.stages.duplicate_examples import usual_duplicates
from prunus.score import check_flat, example_criteria, example_strata
from prunus.select import budget, select

__all__ = ["check_class_left", "check_cover", "cover_examples", "error_of", "with_cleaning"]


def with_cleaning(config: ExamplesConfig, train: Examples, test: Examples) -> ExamplesConfig:
    """Return the section with the cleaning that a cover begins with, where it says none itself and the examples allow it."""
    said = (config.clean, config.relabel, config.duplicates, config.plan)
    if config.cover is None or not config.cover.clean_first or any(section is not None for section in said):
        return config
    changes: dict[str, object] = {}
    if train.task.exclusive and train.n_outputs > 1:
        changes["clean"] = Clean(wrong="drop")
    try:
        for part in (train, test):
            check_flat(part)
        changes["duplicates"] = usual_duplicates(train)
    except DataError:
        pass  # what can't be compared has no duplicates
    return config.model_copy(update=changes)


def check_cover(examples: Examples, config: Cover) -> None:
    """Refuse a share in which not every class has its floor.

    Raises:
        RecipeError: the floors ask for more than the share allows; it says which share would do.
    """
    n = len(examples)
    n_kept = budget(n, config.keep_fraction)
    given = torch.bincount(examples.targets.cpu()) if examples.task.exclusive else torch.tensor([n])
    floors = int(given.clamp(max=config.min_per_class).sum())
    if floors > n_kept:
        raise RecipeError(
            f"examples.cover: keep_fraction {config.keep_fraction:g} of {n} training examples is {n_kept}, and min_per_class "
            f"{config.min_per_class} asks for {floors} of {int((given > 0).sum())} classes: raise keep_fraction to {floors / n:.3g}"
            + (", or lower min_per_class" if config.min_per_class > 1 else "")
        )


def cover_examples(
    examples: Examples, left: Examples, config: Cover, evidence: Mapping[str, Tensor], seed: int
) -> Step:
    """Return a step that keeps a share of ``examples``: of those ``left`` after cleaning, with the labels that they have now.

    Args:
        evidence: about all ``examples``.
        seed: for chance.
    """
    check_cover(examples, config)
    where = {name: row for row, name in enumerate(examples.ids)}
    rows = np.array([where[name] for name in left.ids], np.int64)
    share = min(budget(len(examples), config.keep_fraction) / len(left), 1.0)
    strata = example_strata(
        config.criterion,
        {need: values[torch.from_numpy(rows)] for need, values in evidence.items() if len(values) == len(examples)},
        left,
        keep_fraction=share,
        seed=seed,
        by_class=True,
    )
    strata = [replace(stratum, min_units=config.min_per_class) for stratum in strata]
    ids, error, decisions = np.array(left.ids, object), error_of(config.criterion, evidence), []
    for stratum, keep in zip(strata, select(strata, keep_fraction=share), strict=True):
        reason = np.where(keep, "kept", f"cover: {stratum.name} has enough without it ({config.criterion})").astype(
            object
        )
        decisions.append(
            Decision(
                stratum.name,
                rows[stratum.units],
                stratum.saliency,
                keep,
                reason,
                label=ids[stratum.units],
                error=None if error is None else error[rows[stratum.units]],
            )
        )
    return Step("remove", "example", config.criterion, tuple(decisions), {"cover": config.model_dump()})


def error_of(criterion: str, evidence: Mapping[str, Tensor]) -> Floats | None:
    """Return the standard error of each example's score, where the evidence has one."""
    needs = example_criteria[criterion].needs
    found = evidence.get(f"{needs[0]}_error") if len(needs) == 1 else None
    return None if found is None else found.double().numpy()


def check_class_left(before: Examples, after: Examples, config: ExamplesConfig) -> None:
    """Refuse a selection that leaves a class without an example, unless that is asked for.

    Raises:
        RunError: it does.
    """
    if config.allow_empty_classes or not before.task.exclusive:
        return
    given, left = (torch.bincount(part.targets.cpu(), minlength=before.n_outputs) for part in (before, after))
    empty = torch.nonzero((given > 0) & (left == 0)).flatten().tolist()
    if empty:
        raise RunError(
            f"no training example of class {before.class_names[empty[0]]!r} would be left of {int(given[empty[0]])}: raise the "
            "class_floor of examples.clean or examples.remove, or set examples.allow_empty_classes: true"
        )
