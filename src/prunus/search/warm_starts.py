"""At which amounts does a search begin? What the sensitivity of each layer says about the contract, before anything is recovered.

Each layer alone is pruned at a few amounts, and the promised metric is looked at on the calibration examples. What a cut of all
layers would lose is taken to be what its parts lose together (docs/adr/0020-errors-add-up.md); the first of these trials takes
the least share that loses no more than the contract allows without any recovery, the next ones what loses three times as much,
nine times and so on, which a recovery may mend. It is measured once, kept in the search's folder, and trials that allocate by
sensitivity read the same losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from prunus.core.bisection import edge
from prunus.core.errors import PrunusError, RecipeError
from prunus.core.events import Event, Listener
from prunus.core.files.plain_files import write_json
from prunus.core.files.sealed import sealed_tree, short_digest
from prunus.core.recipes.execution.dispatch_section import Dispatch
from prunus.core.recipes.recipe import Recipe, Schedule, Search
from prunus.core.recipes.search_section import Range
from prunus.core.types import Step
from prunus.core.units import as_mask
from prunus.evaluate import observe
from prunus.pipeline import prune_seed
from prunus.pipeline.cut.sensitivity import losses_in, measured_alone
from prunus.pipeline.flow.open_job import open_job
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.run_folder import RECIPE, open_workspace, recipe_text
from prunus.pipeline.stages.model_stage import fit_dense
from prunus.scale.resume import read_state
from prunus.score import criteria
from prunus.search.shared_dense import keep_dense, take_dense
from prunus.search.shared_losses import keep_losses
from prunus.search.space import Space
from prunus.search.trial import thinned
from prunus.tasks import metrics, value_of

__all__ = ["amounts", "predicted_drop", "warm_starts"]

_AMOUNT, _ALLOCATION = "strategy.keep_fraction", "strategy.allocation"
_DEEPER = 3.0
"""By how much more than the one before a warm start may lose without recovery."""

Curves = Mapping[str, Sequence[tuple[float, float]]]
"""By layer: (share of its units that stay, drop of the metric), shares falling from 1."""


def warm_starts(
    recipe: Recipe, asked: Search, space: Space, shared: Path, metric: str, listener: Listener
) -> list[dict[str, Any]]:
    """Return points of the space to begin with, as Optuna names them; none where nothing is promised or the amount doesn't vary.

    Who measures is as the recipe's section ``dispatch`` says.
    """
    values = space.keys.get(_AMOUNT)
    if not asked.warm_starts or asked.contract is None or values is None:
        return []
    base = _base(space)
    if base is None:
        listener(
            Event(
                "note", "search", "no warm starts: the sensitivity of layers isn't measured for this criterion or unit"
            )
        )
        return []
    try:
        curves = _curves(base, asked, shared, metric, recipe.dispatch, listener)
    except RecipeError as error:  # the recipe's own values may not go together, and others of the space do
        listener(Event("warning", "search", f"no warm starts: {error}"))
        return []
    own = space.own_point()
    allocations = space.keys.get(_ALLOCATION)
    if isinstance(allocations, tuple) and "sensitivity" in allocations:
        own[_ALLOCATION] = "sensitivity"
    found = amounts(curves, asked.contract.max_drop, asked.warm_starts, values)
    said = ", ".join(f"{amount:.3g}" for amount in found)
    if found:
        listener(Event("note", "search", f"warm starts from the sensitivity of each layer: keep fractions {said}"))
    return [{**own, _AMOUNT: amount} for amount in found]


def predicted_drop(curves: Curves, keep_fraction: float) -> float:
    """Return what the metric would lose if every layer kept a share: what each alone loses, added up; gains count as nothing.

    >>> predicted_drop({"a": [(1.0, 0.0), (0.5, 0.1)], "b": [(1.0, 0.0), (0.5, -0.2), (0.1, 0.2)]}, 0.75)
    0.05
    """
    total = 0.0
    for rows in curves.values():
        shares, drops = zip(*sorted(rows), strict=True)
        # A deeper cut loses no less: what looks otherwise is noise.
        least = np.maximum.accumulate(np.maximum(drops, 0.0)[::-1])[::-1]
        total += float(np.interp(keep_fraction, shares, least))
    return total


def amounts(curves: Curves, max_drop: float, n: int, values: Range | tuple[Any, ...]) -> list[float]:
    """Return up to ``n`` keep fractions of the space, falling: the least that would lose ``max_drop``, three times that and so on.

    >>> curves = {"a": [(1.0, 0.0), (0.5, 0.1), (0.1, 0.9)]}
    >>> amounts(curves, 0.05, 3, Range(low=0.2, high=0.9))
    [0.75, 0.475, 0.325]
    >>> amounts(curves, 0.05, 3, (0.3, 0.5, 0.8))
    [0.8, 0.5]
    """
    found: list[float] = []
    for place in range(n):
        allowed = max_drop * _DEEPER**place
        gone, _ = edge(lambda gone: predicted_drop(curves, 1 - gone) <= allowed, 0.0, 1.0, within=1e-7)  # noqa: B023
        amount = _inside(ceil(round(1e4 * (1 - gone), 2)) / 1e4, values)
        if amount is not None and amount not in found:
            found.append(amount)
    return found


def _inside(least: float, values: Range | tuple[Any, ...]) -> float | None:
    """Return the nearest amount of the space that keeps no less; None where all keep less."""
    if isinstance(values, Range):
        if least > values.high:
            return None
        low, step = float(values.low), values.step
        raised = max(least, low)
        if step is not None:
            raised = low + float(np.ceil(round((raised - low) / step, 9))) * step
        return float(raised) if raised <= values.high else None
    above = [value for value in values if isinstance(value, int | float) and value >= least]
    return min(above) if above else None


def _base(space: Space) -> Recipe | None:
    """Return the recipe whose first cut measures the sensitivity; None where it isn't measured."""
    recipe = space.recipe({})
    strategy = recipe.strategy
    if strategy is None or recipe.target is not None or criteria[strategy.criterion].compensation == "column_by_column":
        return None
    mask = as_mask(strategy.granularity[0])
    if mask is not None and mask.kind == "n_m":
        return None
    if criteria[strategy.criterion].regularizer is not None or strategy.schedule.during == "train":
        return None
    update = {
        "allocation": "sensitivity",
        "granularity": strategy.granularity[:1],
        "keep_fraction": 0.5,
        "cutoff": None,
        "compare_allocations": False,
        "schedule": Schedule(),
        "layers": (),
    }
    return recipe.model_copy(update={"strategy": strategy.model_copy(update=update)})


class _SeenError(Exception):
    """The first cut is decided, and nothing more is wanted; ``curves`` are what was measured for it."""

    def __init__(self, curves: Curves) -> None:
        super().__init__()
        self.curves = curves


def _curves(
    recipe: Recipe, asked: Search, shared: Path, metric: str, dispatch: Dispatch | None, listener: Listener
) -> Curves:
    """Return what each layer alone costs the metric, measured now unless it was before."""
    tree = recipe.model_copy(update={"search": None}).model_dump(mode="json", exclude={"output", "evaluation"})
    folder = shared / f"sensitivity {short_digest({'recipe': tree, 'share': asked.share, 'metric': metric})}"
    path = folder / "drops.json"
    if path.exists():
        try:
            held, done = read_state(path, "metric")
            if held == metric:
                return {name: [(share, drop) for share, drop in rows] for name, rows in done.items()}
        except PrunusError:
            pass  # damaged: measured again
    recipe = recipe.model_copy(update={"output": str(folder), "dispatch": dispatch})
    begun = folder / RECIPE
    same = begun.is_file() and begun.read_text(encoding="utf-8") == recipe_text(recipe)
    with (
        open_workspace(recipe, folder, resume=same, overwrite=not same, listener=listener) as workspace,
        open_job(recipe, workspace) as job,
    ):
        curves = _measured(job, asked.share, shared, metric)
        keep_losses(shared, job, recipe.seeds[0], asked.share)
        workspace.forget()
    write_json(path, sealed_tree({"metric": metric, "done": curves}))
    return curves


def _measured(job: Job, share: float, shared: Path, metric: str) -> Curves:
    """Return what each layer alone costs the metric; workers measure some layers each."""
    job = thinned(job.by(partial(_measured, share=share, shared=shared, metric=metric)), share)
    seed, sign = job.recipe.seeds[0], 1 if metrics[metric].higher_is_better else -1
    take_dense(shared, job, seed, share)
    dense, _ = fit_dense(job, seed)
    keep_dense(shared, job, seed, share)

    def value(model: nn.Module) -> float:
        examples = job.data.calibration
        return value_of(examples.task, metric, observe(model, examples, examples.task))

    def decide(asked_for: str, stage: str, compute: Callable[[], tuple[Step, ...]]) -> tuple[Step, ...]:
        if asked_for != "prune":
            return job.workspace.decided(asked_for, stage, compute)
        (step,), whole = compute(), value(dense)
        raise _SeenError(
            {
                name: [
                    (1.0, 0.0),
                    *((kept, sign * (whole - other)) for kept, other in measured_alone(job.workspace, stage, name)),
                ]
                for name in losses_in(step)
            }
        )

    try:
        prune_seed(replace(job, alone=value), seed, dense, decide)
    except _SeenError as seen:
        return seen.curves
    raise AssertionError("a cut was made without a decision")
