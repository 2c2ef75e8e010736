"""Do the best settings hold? The few that are worth it are run once more: on all data, with seeds that the search didn't use.

Of many settings the best on the validation examples is there by luck, too. So a few points of the frontier are chosen while no
test example was seen, run anew, and measured on the test examples once, at a confidence that holds for all together (Bonferroni).
What is promised is promised of the model that is delivered, that of the first seed; the other seeds show what the setting is worth.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from prunus.core.events import Event, Listener
from prunus.core.files.plain_files import atomic_path
from prunus.core.recipes.recipe import Recipe, Search
from prunus.core.recipes.search_section import leading_cost
from prunus.evaluate import Pairs, compare, observe
from prunus.evaluate.harm import Groups, contract_test
from prunus.pipeline import finish
from prunus.pipeline.flow.open_job import open_job
from prunus.pipeline.jobs.job import example_groups
from prunus.pipeline.jobs.run_folder import RECORD, open_workspace
from prunus.report import RunRecord, load_record
from prunus.search.account.where import Where
from prunus.search.confirmed_ahead import Training, train_ahead
from prunus.search.frontier import spread, unbeaten
from prunus.search.shared_dense import keep_dense, take_dense
from prunus.search.space import Space, search_of
from prunus.search.table import objectives_of
from prunus.search.trial import digest_of
from prunus.tasks import Observed, Task, options_of, task_of_options, tasks

__all__ = ["chosen", "confirm", "fresh_seeds", "frontier_of"]

_STAGE = "confirm"
_OBSERVED = "observed.npz"
_GROUPS = "groups"
"""What was seen of the delivered model on the test examples: another contract reads it again."""


def fresh_seeds(recipe: Recipe) -> tuple[int, ...]:
    """Return the seeds of the confirmation: none of the recipe's.

    >>> from prunus.core.recipes.recipe import Data
    >>> fresh_seeds(Recipe(data=Data(source="sklearn:digits"), seeds=(0, 7), search={"space": {"a": [1]}}))
    (8, 9, 10)
    """
    first = max(recipe.seeds) + 1
    return tuple(range(first, first + search_of(recipe).confirm.seeds))


def frontier_of(recipe: Recipe, results: Mapping[int, Mapping[str, Any]], higher: bool) -> list[int]:
    """Return the trials that no other beats, the cheapest first; of those that keep the contract, if any does."""
    asked = search_of(recipe)
    done = [number for number, found in results.items() if found["state"] == "done"]
    if asked.contract is not None:
        kept = [number for number in done if results[number]["drop"] <= asked.contract.max_drop]
        done = kept or done
    rows = objectives_of([results[number] for number in done], asked.objectives, higher)
    numbers = [done[place] for place in unbeaten(rows).tolist()]
    cost = leading_cost(asked.objectives)
    return sorted(numbers, key=lambda number: (results[number]["shares"][cost], number))


def chosen(recipe: Recipe, results: Mapping[int, Mapping[str, Any]], frontier: list[int]) -> list[int]:
    """Return which points of the frontier are confirmed: so many, evenly by cost, the cheapest and the dearest among them."""
    asked = search_of(recipe)
    cost = leading_cost(asked.objectives)
    places = spread([results[number]["shares"][cost] for number in frontier], asked.confirm.points)
    return [frontier[place] for place in places]


def confirm(
    recipe: Recipe,
    space: Space,
    values: Mapping[int, Mapping[str, Any]],
    results: Mapping[int, Mapping[str, Any]],
    where: Where,
    listener: Listener,
    *,
    metric: str,
    higher: bool,
) -> list[dict[str, Any]]:
    """Return what each confirmed setting has on the test examples, as plain values; what was confirmed before is read."""
    asked = search_of(recipe)
    numbers = chosen(recipe, results, frontier_of(recipe, results, higher))
    confidence = 1 - (1 - recipe.evaluation.confidence) / max(len(numbers), 1)
    start = monotonic()
    listener(Event("start", _STAGE, total=len(numbers)))
    found = []
    runs = {number: _recipe(recipe, space.recipe(values[number]), where, metric, confidence) for number in numbers}
    left = {number: made for number, made in runs.items() if not (Path(made.output) / RECORD).exists()}
    trainings = [Training(number, made, seed) for number, made in left.items() for seed in made.seeds]
    several = recipe.dispatch is not None and recipe.dispatch.shares and len(trainings) > 1
    if recipe.dispatch is not None and several:
        train_ahead(trainings, where.shared, recipe.dispatch, listener)
    for place, (number, made) in enumerate(runs.items(), start=1):
        folder = Path(made.output)
        if not several or _trains_more(made):
            made = made.model_copy(update={"dispatch": recipe.dispatch})
        record, seen = _run(made, folder, where, listener)
        told = _told(asked, made, seen, metric, len(numbers))
        apart = _over_seeds(record, metric)
        sign = 1 if higher else -1
        found.append(
            {
                "number": number,
                "folder": str(folder),
                "bundle": str(folder / "bundle"),
                **told,
                "confidence": confidence,
                "seeds": list(record.seeds),
                "over_seeds": apart,
                "n_test": record.data.n["test"],
                "shares": _shares(record),
                # By how much the trial looked better against its dense model than the same setting is on other examples and seeds.
                "optimism": -results[number]["drop"] - sign * float(np.mean(apart)) if apart else None,
            }
        )
        listener(Event("progress", _STAGE, f"setting {number} on the test examples", place, len(numbers)))
    listener(Event("end", _STAGE, facts={"seconds": round(monotonic() - start, 3)}))
    return found


def _recipe(recipe: Recipe, made: Recipe, where: Where, metric: str, confidence: float) -> Recipe:
    """Return the recipe of the run that confirms a setting: with seeds of its own, in a folder that follows from what is asked."""
    metrics = recipe.evaluation.metrics
    evaluation = recipe.evaluation.model_copy(
        update={
            "confidence": confidence,
            "metrics": metrics if not metrics or metric in metrics else (metric, *metrics),
        }
    )
    made = made.model_copy(update={"seeds": fresh_seeds(recipe), "evaluation": evaluation})
    folder = where.confirmed / digest_of(made.model_dump(mode="json"), 1.0)
    return made.model_copy(update={"output": str(folder)})


def _trains_more(recipe: Recipe) -> bool:
    """Return whether a run trains more than the models that it leaves."""
    return recipe.joint is not None or (recipe.examples is not None and recipe.examples.gate)


def _told(asked: Search, recipe: Recipe, seen: _Seen, metric: str, n: int) -> dict[str, Any]:
    """Return what the model of the first seed has on the test examples, and whether it is shown to keep the contract."""
    evaluation, seed = recipe.evaluation, recipe.seeds[0]
    task, dense, pruned = seen.task, seen.dense, seen.pruned
    pairs = Pairs([dense], [pruned], task, evaluation.confidence, evaluation.bootstrap, seed)
    (row,) = compare(pairs, (metric,))
    found: dict[str, Any] = {
        "dense": row.dense,
        "pruned": row.pruned,
        "difference": {"value": row.difference.value, "low": row.difference.low, "high": row.difference.high},
        "kept": None,
        "bound": None,
    }
    if asked.contract is not None:
        sure = 1 - (1 - asked.contract.confidence) / max(n, 1)
        test = contract_test(
            dense,
            pruned,
            task,
            asked.contract,
            groups=seen.groups,
            confidence=sure,
            bootstrap=evaluation.bootstrap,
            seed=seed,
        )
        found |= {"kept": test.kept, "bound": float(test.bound) if isfinite(test.bound) else None}
    return found


def _over_seeds(record: RunRecord, metric: str) -> list[float]:
    """Return pruned minus dense on the test examples for each seed."""
    values = {
        (row.seed, row.model): next(number.value for number in row.metrics if number.name == metric)
        for row in record.quality
        if row.split == "test"
    }
    apart = [(values[seed, "dense"], values[seed, "pruned"]) for seed in record.seeds]
    return [pruned - dense for dense, pruned in apart if dense is not None and pruned is not None]


@dataclass(frozen=True)
class _Seen:
    """What was observed of the delivered model and its dense one on the test examples."""

    task: Task
    dense: Observed
    pruned: Observed
    groups: Groups | None = None


def _run(recipe: Recipe, folder: Path, where: Where, listener: Listener) -> tuple[RunRecord, _Seen]:
    """Return the record of a whole run, and what was seen of its models; dense ones that are trained already are taken over."""
    with open_workspace(recipe, folder, resume=True, overwrite=False, listener=listener) as workspace:
        held, path = folder / RECORD, folder / _OBSERVED
        done = held.exists() and path.exists()
        if done and (seen := _read(path, recipe.data.groups)) is not None:
            return load_record(held), seen
        with open_job(recipe, workspace) as job:
            task = job.data.test.task
            if done and (seen := _read(path, recipe.data.groups, task)) is not None:
                return load_record(held), seen
            for seed in recipe.seeds:
                take_dense(where.shared, job, seed, 1.0)
            record, results = finish(job)
            groups = example_groups(recipe, job.data.test)
            models = {"dense": results[0].dense, "pruned": results[0].pruned.model}
            observed = {name: observe(model, job.data.test, task) for name, model in models.items()}
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                arrays = {f"{name}/{key}": value for name, one in observed.items() for key, value in one.items()}
                if groups is not None:
                    arrays[_GROUPS] = np.asarray(groups.names, dtype=str)
                np.savez_compressed(file, task=np.array(_told_of(task)), **arrays)  # type: ignore[arg-type]
            for seed in recipe.seeds:
                keep_dense(where.shared, job, seed, 1.0)
        workspace.forget()
    return record, _Seen(task, observed["dense"], observed["pruned"], groups)


def _told_of(task: Task) -> str:
    """Return what a file says of a task; nothing of one that is Python code, for which the data must be asked."""
    if task.name not in tasks or type(task) is not tasks[task.name]:
        return ""
    return json.dumps({"name": task.name, "options": options_of(task)})


def _read(path: Path, column: str | None, task: Task | None = None) -> _Seen | None:
    """Return what was seen; None where the file doesn't say of which task it is, and it isn't given."""
    with np.load(path, allow_pickle=False) as held:
        said = str(held["task"]) if "task" in held.files else ""
        if task is None and not said:
            return None
        groups = Groups(column, held[_GROUPS].tolist()) if column is not None and _GROUPS in held.files else None
        parts: dict[str, dict[str, Any]] = {"dense": {}, "pruned": {}}
        for key in held.files:
            model, _, name = key.partition("/")
            if name:
                parts[model][name] = held[key]
    if task is None:
        about = json.loads(said)
        task = task_of_options(about["name"], about["options"])
    return _Seen(task, parts["dense"], parts["pruned"], groups)


def _shares(record: RunRecord) -> dict[str, float]:
    dense, pruned = record.cost["dense"], record.cost["pruned"]
    keys = {"params": "nonzero_parameters", "macs": "macs", "bytes": "memory_bytes"}  # as in trials
    counts = {name: (getattr(pruned, key), getattr(dense, key)) for name, key in keys.items()}
    found = {name: small / max(large, 1) for name, (small, large) in counts.items() if None not in (small, large)}
    if record.latency is not None and record.latency.speedup is not None and record.latency.speedup.value:
        found["latency"] = 1 / record.latency.speedup.value
    return found
