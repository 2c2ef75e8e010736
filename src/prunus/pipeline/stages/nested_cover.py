"""Which training examples stay at each of several shares, so that a smaller share keeps nothing that a larger one doesn't?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from prunus.core.recipes.recipe import Cover
from prunus.core.recipes.recipe import Examples as ExamplesConfig
from prunus.core.runtime import derive_seed
from prunus.core.types import Step
from prunus.data import Examples
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.stages.example_cover import check_class_left, check_cover, cover_examples, with_cleaning
from prunus.pipeline.stages.example_stage import as_asked, clean, judge_examples
from prunus.pipeline.stages.scoring.example_evidence import example_evidence
from prunus.pipeline.stages.scoring.pruned_scorer import scoring_job

__all__ = ["check_nested", "nested_selections"]


def check_nested(job: Job, shares: Sequence[float]) -> None:
    """Refuse a share in which not every class has its floor.

    Raises:
        RecipeError: it says which share would do.
    """
    cover = _covering(job.recipe.examples).cover
    assert cover is not None
    for share in shares:
        check_cover(job.data.train, cover.model_copy(update={"keep_fraction": share}))


def nested_selections(job: Job, seed: int, shares: Sequence[float], steps: Sequence[Step]) -> list[Examples]:
    """Return what stays of the training examples at each share of them, from the largest down.

    What the recipe's section ``examples`` says is done first; without one, the cleaning that a cover begins with. Then its cover,
    or chance where it has none, chooses among what the share before left.

    Args:
        job: whose training examples they are.
        seed: of the judging, and for chance.
        shares: of all training examples; what is gone already counts.
        steps: what the run decided about the examples under this seed, if its recipe has such a section.
    """
    train, section = job.data.train, job.recipe.examples
    config = _covering(section)
    assert config.cover is not None
    if section is None:
        bare = with_cleaning(config, train, job.data.test).model_copy(update={"cover": None})
        asked = replace(job, recipe=job.recipe.model_copy(update={"examples": bare}))
        steps = judge_examples(asked, seed, job.workspace.decided)
    evidence: dict[str, Tensor] = {}
    if section is not None and section.cover is not None:
        evidence = example_evidence(scoring_job(job, seed), seed, as_asked(section, job))
    left = clean(train, [step for step in steps if "cover" not in step.settings])
    found = []
    for number, share in enumerate(shares):
        cover = config.cover.model_copy(update={"keep_fraction": share})
        chance = seed if number == 0 else derive_seed(seed, "nested cover", number)
        left = clean(left, [cover_examples(train, left, cover, evidence, chance)])
        check_class_left(train, left, config)
        found.append(left)
    return found


def _covering(section: ExamplesConfig | None) -> ExamplesConfig:
    """Return the section with a cover: its own, or one by chance, which begins with a cleaning only where nothing else is said."""
    if section is None:
        return ExamplesConfig(cover=Cover(keep_fraction=1.0))
    if section.cover is not None:
        return section
    return section.model_copy(update={"cover": Cover(keep_fraction=1.0, clean_first=False)})
