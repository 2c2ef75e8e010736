"""How is it found out how safe a bundle is, and where does that stay?

Each suite is kept as soon as it is done, under the hashes of the models, of the data and of what was asked: the same command goes
on where it was stopped. What was found lies in ``safety.json``, in a run's folder or in one of the user's, and on the run's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.core.errors import RecipeError
from prunus.core.recipes.recipe import Data
from prunus.core.runtime import versions
from prunus.evaluate import Pairs, observe
from prunus.pipeline.safety.subjects import Subjects, open_subjects
from prunus.pipeline.stages.harm_facts import harm_facts
from prunus.report import SafetyFacts

__all__ = ["Asked", "evaluate_safety"]

Note = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What is to be found out, and how surely."""

    harm: bool = False
    confidence: float = 0.95
    bootstrap: int = 1000
    seed: int = 0

    @property
    def anything(self) -> bool:
        """Whether anything is asked for."""
        return self.harm


def evaluate_safety(
    path: Path,
    asked: Asked,
    *,
    dense: Path | None = None,
    source: str | None = None,
    target: str | None = None,
    data: Data | None = None,
    groups: str | None = None,
    trust_code: bool = False,
    note: Note | None = None,
) -> SafetyFacts:
    """Return what was asked for of a bundle, beside the dense model that it came from where that is there.

    Args:
        path: a bundle, or a run's folder, which has both.
        dense: the bundle of the dense model, where it lies elsewhere.
        source: measure on all examples of these data; default: the test examples of the bundle's own.
        data: the user's word on which data are the bundle's own.
        groups: a column of the data; what changes is told for each of its values, too.
        note: is told what can't be measured, and why.

    Raises:
        RecipeError: harm is asked for, and there is no dense model to compare with.
        BundleError: a bundle is damaged, or the two aren't of one kind.
        DataError: the data don't fit.
    """
    subjects = open_subjects(
        path, dense=dense, source=source, target=target, data=data, groups=groups, trust_code=trust_code, note=note
    )
    facts: dict[str, Any] = {
        "bundle": str(subjects.folders["bundle"]),
        "dense": str(subjects.folders["dense"]) if "dense" in subjects.folders else None,
        "hashes": {
            name: one.sha256
            for name, one in (("bundle", subjects.bundle), ("dense", subjects.dense))
            if one is not None
        },
        "data": subjects.source,
        "task": subjects.task.name,
        "versions": versions(),
        "seed": asked.seed,
    }
    if asked.harm:
        facts["harm"] = _harm(subjects, asked)
    return SafetyFacts.model_validate(facts)


def _harm(subjects: Subjects, asked: Asked) -> dict[str, Any]:
    if subjects.dense is None:
        raise RecipeError(
            f"--harm compares two models, and no dense one lies beside {subjects.folders['bundle']}: give its bundle (--dense "
            "BUNDLE), or the folder of a run, which has both"
        )
    examples, task = subjects.examples, subjects.task
    seen = {name: observe(model, examples, task) for name, model in subjects.models.items()}
    pairs = Pairs([seen["dense"]], [seen["pruned"]], task, asked.confidence, asked.bootstrap, asked.seed)
    return harm_facts(
        pairs,
        examples,
        subjects.models,
        split=subjects.measured,
        groups=subjects.groups(),
        fit_on=None if subjects.fitted is None else subjects.parts[subjects.fitted],
        fitted_on=subjects.fitted or "",
    )
