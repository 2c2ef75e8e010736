"""How much does the result depend on the seed, and how much less when weights are averaged?

Each seed trains the same model twice from the same start with the same draws: once taking the last weights, once the
average over the last epochs (or an exponential one) with batch-norm statistics measured anew. Only the averaging
differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from torch import nn

from prunus.apply import Masks
from prunus.core.errors import RecipeError
from prunus.core.recipes.recipe import Average, Train
from prunus.evaluate import measure_quality, observe
from prunus.graph.tracing.states import duplicate
from prunus.pipeline.jobs.job import Candidate, Job
from prunus.pipeline.stages.model_stage import fit

__all__ = ["Variance", "reduce_variance"]


@dataclass(frozen=True)
class Variance:
    """One metric on the test examples for each seed, without and with averaging."""

    metric: str
    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def deviation_before(self) -> float:
        """Standard deviation over seeds of the last weights."""
        return stdev(self.before)

    @property
    def deviation_after(self) -> float:
        """Standard deviation over seeds of the averaged weights."""
        return stdev(self.after)

    def __str__(self) -> str:
        return (
            f"{self.metric}: {mean(self.before):.4f} ± {self.deviation_before:.4f} before, "
            f"{mean(self.after):.4f} ± {self.deviation_after:.4f} after ({len(self.before)} seeds)"
        )


def reduce_variance(
    job: Job, candidate: Candidate, average: Average, seeds: Sequence[int], metric: str
) -> tuple[nn.Module, Variance]:
    """Return ``candidate`` trained on with averaging (first seed), and the spread over ``seeds`` without and with it.

    Raises:
        RecipeError: fewer than two seeds, or no averaging asked for.
    """
    if len(seeds) < 2 or average.kind == "none":
        raise RecipeError(
            f"reduce_variance needs at least two seeds and kind swa or ema: got {len(seeds)} seeds, {average.kind!r}"
        )
    plain: Train = job.recipe.recovery.model_copy(update={"average": Average()})
    scores: dict[str, list[float]] = {"before": [], "after": []}
    first: nn.Module | None = None
    for seed in seeds:
        for name, config in (("before", plain), ("after", plain.model_copy(update={"average": average}))):
            model = duplicate(candidate.model)
            masks = Masks(model, dict(candidate.masks))
            # The same stage name means the same draws: the two differ in the averaging alone.
            fit(job, model, job.data.train, config, seed=seed, stage=f"seed {seed} / average", on_optimizer=masks.guard)
            masks.enforce()
            scores[name].append(_score(job, model, metric))
            if name == "after" and first is None:
                first = model
    assert first is not None
    return first, Variance(metric, tuple(scores["before"]), tuple(scores["after"]))


def _score(job: Job, model: nn.Module, metric: str) -> float:
    test = job.data.test
    quality = measure_quality(observe(model, test, test.task), test.task, metrics=(metric,), bootstrap=100)
    return float(quality.value(metric))
