"""How do several sizes of one model come from one plan: cut, recovered together, measured, and stored once?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from torch import nn

from prunus.core.errors import OutputError, RecipeError
from prunus.core.events import Listener, silent
from prunus.core.files.json_text import JsonError, read_json_file
from prunus.core.files.plain_files import write_json
from prunus.core.files.plan_file import save_plan
from prunus.core.recipes.recipe import Contract, Recipe, Schedule
from prunus.core.runtime import versions
from prunus.core.types import Plan
from prunus.evaluate import Pairs, compare, measure_cost, observe
from prunus.evaluate.harm import contract_test
from prunus.pipeline.flow.open_job import open_job
from prunus.pipeline.jobs.job import Candidate, Job, example_groups
from prunus.pipeline.jobs.run_folder import open_workspace
from prunus.pipeline.shipping import DENSE, model_fingerprint, ship_candidate
from prunus.pipeline.sizes.nested_cuts import nested_cuts
from prunus.pipeline.sizes.recover_sizes import recovered_apart, recovered_together
from prunus.pipeline.stages.model_stage import fit_dense
from prunus.pipeline.stages.overfitting.generalisation import Overfits, seen_gap, watched
from prunus.ship.sizes import SIZES, save_sizes
from prunus.tasks import default_metrics

__all__ = ["FACTS", "Chosen", "Made", "make_sizes", "read_sizes"]

FACTS = "sizes.json"


@dataclass(frozen=True)
class Chosen:
    """How the settings of sizes were chosen.

    ``about`` stands in the record; ``n_settings`` were judged on the same test examples; what was promised (``contract``) is looked
    at for every size. ``begin`` is told the seed before its dense model is trained.
    """

    about: Mapping[str, Any]
    n_settings: int
    contract: Contract | None
    begin: Callable[[Job, int], None]


@dataclass(frozen=True)
class Made:
    """Where the sizes lie, and what was found: ``facts`` are plain values, as they stand in ``record``."""

    folder: Path
    record: Path
    facts: Mapping[str, Any]


def make_sizes(
    recipe: Recipe,
    *,
    chosen: Chosen | None = None,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener = silent,
) -> Made:
    """Make the sizes that the recipe's section ``sizes`` asks for, of the model of its first seed.

    Args:
        chosen: how the settings were chosen, where test examples took part in it.

    Raises:
        RecipeError: no section ``sizes``, or a recovery that sizes can't share.
    """
    if recipe.sizes is None:
        raise RecipeError(
            "prunus sizes needs to know which: got no section sizes; add sizes: {keep_fractions: [0.75, 0.5, 0.25]}"
        )
    if recipe.sizes.weights == "shared" and recipe.recovery.method == "lora":
        raise RecipeError("sizes.weights: shared goes with recovery.method none, fine_tune and distil: got lora")
    folder = Path(recipe.output)
    with open_workspace(recipe, folder, resume=resume, overwrite=overwrite, listener=listener) as workspace:
        if (folder / FACTS).exists():
            return Made(folder / SIZES, folder / FACTS, read_sizes(folder / FACTS))
        with open_job(recipe, workspace) as job:
            made = _made(job, folder, chosen)
        workspace.forget()
        return made


def read_sizes(path: Path) -> dict[str, Any]:
    """Return what was found of the sizes in a folder.

    Raises:
        OutputError: it is damaged.
    """
    try:
        facts = read_json_file(path)
    except (JsonError, OSError) as error:
        raise OutputError(f"{path} is damaged ({error}): add --overwrite, or choose another folder") from error
    if not isinstance(facts, dict):
        raise OutputError(f"{path} is damaged (it holds no mapping): add --overwrite, or choose another folder")
    return facts


def _made(job: Job, folder: Path, chosen: Chosen | None) -> Made:
    seed, recipe = job.recipe.seeds[0], job.recipe
    sizes = recipe.sizes
    assert sizes is not None
    if chosen is not None:
        chosen.begin(job, seed)
    dense, _ = fit_dense(job, seed)
    cuts = nested_cuts(job, seed, dense, job.data.train, job.workspace.decided)
    overfits = Overfits(job, seed, dense, job.data.train) if watched(job, rounds=len(cuts)) else None
    recovered = recovered_together if sizes.weights == "shared" else recovered_apart
    models, places, ended = recovered(job, seed, dense, cuts, overfits)
    steps = tuple(cut.step for cut in cuts)
    schedule = Schedule(kind="linear", rounds=len(cuts))
    told = recipe.model_copy(
        update={"strategy": recipe.strategy and recipe.strategy.model_copy(update={"schedule": schedule})}
    )
    fingerprints = {"data": job.data.fingerprint, "model": model_fingerprint(job.build(seed))}
    save_plan(Plan(steps, seed, told.model_dump(mode="json", exclude={"sizes"}), fingerprints), folder / "plan")
    candidates = [cut.candidate.replaced(model=model) for cut, model in zip(cuts, models, strict=True)]

    def ship(place: int, target: Path) -> str:
        return ship_candidate(job, seed, candidates[place], target)

    with job.workspace.stage("ship"):
        ship_candidate(job, seed, Candidate(dense), folder / DENSE)
        stored = save_sizes(folder / SIZES, sizes.keep_fractions, ship, places)
    with job.workspace.stage("evaluate"):
        rows = _measured(job, seed, dense, candidates, sizes.keep_fractions, chosen)
        if overfits is not None:
            for row, model in zip(rows, models, strict=True):
                row["gap"] = seen_gap(overfits, overfits.gap(model))
    facts = {
        "name": recipe.name,
        "weights": sizes.weights,
        "sizes": [{**row, **b, **vars(e)} for row, b, e in zip(rows, stored, ended, strict=True)],
        "epochs": recipe.recovery.epochs,
        "gap_margin": recipe.recovery.gap_margin,
        "n_test": len(job.data.test),
        **({} if chosen is None else {"of": dict(chosen.about)}),
        "versions": versions(),
    }
    write_json(folder / FACTS, facts)
    return Made(folder / SIZES, folder / FACTS, facts)


def _measured(
    job: Job,
    seed: int,
    dense: nn.Module,
    candidates: Sequence[Candidate],
    shares: Sequence[float],
    chosen: Chosen | None,
) -> list[dict[str, Any]]:
    """Return what each size has on the test examples, with intervals that hold for all together (Bonferroni), and what it costs."""
    contract, n_settings = (None, 1) if chosen is None else (chosen.contract, chosen.n_settings)
    evaluation, task = job.recipe.evaluation, job.data.test.task
    names = evaluation.metrics or default_metrics(task.name)
    n = len(candidates) * n_settings
    confidence = 1 - (1 - evaluation.confidence) / n
    groups = None if contract is None or not contract.of_groups else example_groups(job.recipe, job.data.test)
    seen = observe(dense, job.data.test, task)
    whole = measure_cost(dense, job.trace_inputs)
    rows = []
    for share, candidate in zip(shares, candidates, strict=True):
        answers = observe(candidate.model, job.data.test, task)
        pairs = Pairs([seen], [answers], task, confidence, evaluation.bootstrap, seed)
        (found,) = compare(pairs, names[:1])
        cost = measure_cost(candidate.model, job.trace_inputs)
        rows.append(
            {
                "keep_fraction": share,
                "metric": names[0],
                "dense": found.dense,
                "pruned": found.pruned,
                "difference": {key: getattr(found.difference, key) for key in ("value", "low", "high")},
                "confidence": confidence,
                "macs_share": cost.macs / max(whole.macs, 1),
                "params_share": cost.parameters / max(whole.parameters, 1),
            }
        )
        if contract is not None:
            sure = 1 - (1 - contract.confidence) / n
            test = contract_test(
                seen,
                answers,
                task,
                contract,
                groups=groups,
                confidence=sure,
                bootstrap=evaluation.bootstrap,
                seed=seed,
            )
            rows[-1] |= {"kept": test.kept, "bound": float(test.bound) if isfinite(test.bound) else None}
    return rows
