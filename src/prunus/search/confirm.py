"""Do the best settings hold? The few that are worth it are run once more: on all data, with seeds that the search didn't use.

Of many settings the best on the validation examples is there by luck, too. So a few points of the frontier are chosen while no
test example was seen, run anew, and measured on the test examples once, at a confidence that holds for all together (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

from prunus.core.events import Event, Listener
from prunus.core.recipes.recipe import Recipe
from prunus.core.recipes.search_section import leading_cost
from prunus.pipeline import finish
from prunus.pipeline.jobs.workspace import RECORD, open_workspace
from prunus.pipeline.main_job import open_job
from prunus.report import RunRecord, load_record
from prunus.search.frontier import spread, unbeaten
from prunus.search.shared_dense import keep_dense, take_dense
from prunus.search.space import Space, search_of
from prunus.search.table import objectives_of
from prunus.search.trial import digest_of
from prunus.search.where import Where

__all__ = ["chosen", "confirm", "fresh_seeds", "frontier_of"]

_STAGE = "confirm"


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
    for place, number in enumerate(numbers, start=1):
        metrics = recipe.evaluation.metrics
        evaluation = recipe.evaluation.model_copy(
            update={
                "confidence": confidence,
                "metrics": metrics if not metrics or metric in metrics else (metric, *metrics),
            }
        )
        made = space.recipe(values[number])
        made = made.model_copy(update={"seeds": fresh_seeds(recipe), "evaluation": evaluation})
        folder = where.confirmed / digest_of(made.model_dump(mode="json"), 1.0)
        made = made.model_copy(update={"output": str(folder)})
        record = _run(made, folder, where, listener)
        row = next(row for row in record.comparison if row.metric == metric)
        sign = 1 if higher else -1
        change, low, high = row.difference.value, row.difference.low, row.difference.high
        worst = inf if low is None or high is None else -low if higher else high
        most = None if asked.contract is None else asked.contract.max_drop
        found.append(
            {
                "number": number,
                "folder": str(folder),
                "bundle": str(folder / "bundle"),
                "dense": row.dense,
                "pruned": row.pruned,
                "difference": {"value": change, "low": low, "high": high},
                "confidence": confidence,
                "seeds": list(record.seeds),
                "n_test": record.data.n["test"],
                "shares": _shares(record),
                "kept": None if most is None else worst <= most,
                # By how much the trial looked better against its dense model than the same setting is on other examples and seeds.
                "optimism": None if change is None else -results[number]["drop"] - sign * change,
            }
        )
        listener(Event("progress", _STAGE, f"setting {number} on the test examples", place, len(numbers)))
    listener(Event("end", _STAGE, facts={"seconds": round(monotonic() - start, 3)}))
    return found


def _run(recipe: Recipe, folder: Path, where: Where, listener: Listener) -> RunRecord:
    """Return the record of a whole run; the dense models that an earlier one trained are taken over."""
    with open_workspace(recipe, folder, resume=True, overwrite=False, listener=listener) as workspace:
        if (folder / RECORD).exists():
            return load_record(folder / RECORD)
        with open_job(recipe, workspace) as job:
            for seed in recipe.seeds:
                take_dense(where.shared, job, seed, 1.0)
            record, _ = finish(job)
            for seed in recipe.seeds:
                keep_dense(where.shared, job, seed, 1.0)
        workspace.forget()
    return record


def _shares(record: RunRecord) -> dict[str, float]:
    dense, pruned = record.cost["dense"], record.cost["pruned"]
    keys = {"params": "nonzero_parameters", "macs": "macs", "bytes": "size_bytes"}
    found = {name: getattr(pruned, key) / max(getattr(dense, key), 1) for name, key in keys.items()}
    if record.latency is not None and record.latency.speedup is not None and record.latency.speedup.value:
        found["latency"] = 1 / record.latency.speedup.value
    return found
