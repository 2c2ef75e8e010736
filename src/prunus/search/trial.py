"""What does one setting give? One function of plain values, which any process can run, and which a killed one goes on with.

Quality is measured on the validation examples; the test examples are loaded, and not looked at. A trial is done when its result
stands in its folder, whose name follows from its recipe: the same setting is never run twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from torch import nn

from prunus.core.errors import PrunusError, RecipeError
from prunus.core.events import Listener, silent
from prunus.core.files.plain_files import write_json
from prunus.core.files.sealed import sealed_tree
from prunus.core.recipes.recipe_file import make_recipe
from prunus.core.runtime import derive_seed
from prunus.evaluate import measure_cost, noninferiority, observe
from prunus.pipeline import prune_seed
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.workspace import open_workspace
from prunus.pipeline.main_job import open_job
from prunus.pipeline.measure import latency_of
from prunus.pipeline.stages.model_stage import fit_dense
from prunus.pipeline.stages.selection_gate import by_chance
from prunus.scale.resume import read_state
from prunus.search.race import Behind, Rival, Runner
from prunus.search.shared_dense import keep_dense, take_dense
from prunus.tasks import Observed, Task, measured, metrics

__all__ = ["RESULT", "Asked", "digest_of", "read_result", "run_trial"]

RESULT = "trial.json"


@dataclass(frozen=True)
class Asked:
    """One trial: the ``recipe`` as a tree, in which ``folder`` it lies, and what it is measured by.

    ``share`` of the training examples are used; ``rivals`` are finished trials that it is stopped early against.
    """

    number: int
    recipe: Mapping[str, Any]
    folder: str
    shared: str
    metric: str
    costs: tuple[str, ...]
    share: float = 1.0
    max_drop: float | None = None
    confidence: float = 0.95
    rivals: tuple[Rival, ...] = ()


def digest_of(recipe: Mapping[str, Any], share: float) -> str:
    """Return what a trial's folder is called: the same for the same setting, wherever it is written."""
    text = json.dumps({"recipe": {k: v for k, v in recipe.items() if k != "output"}, "share": share}, sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def read_result(folder: Path, costs: tuple[str, ...] = ()) -> dict[str, Any] | None:
    """Return what a trial gave; None where it isn't done, was damaged, or lacks one of the costs."""
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        held, found = read_state(path, "digest")
    except PrunusError:
        return None
    if held != folder.name or not set(costs) <= set(found.get("shares", ())):
        return None
    return dict(found)


def run_trial(asked: Asked, listener: Listener = silent) -> dict[str, Any]:
    """Return what a setting gives, as plain values, and keep it in its folder.

    ``state`` is ``done``, ``stopped`` (it was behind) or ``failed`` (the settings don't go together, or the training diverged).
    """
    folder = Path(asked.folder)
    held = read_result(folder, asked.costs)
    if held is not None:
        return held
    start = perf_counter()
    recipe = make_recipe(asked.recipe, f"trial {asked.number}")
    recipe = recipe.model_copy(update={"output": str(folder)})
    found: dict[str, Any]
    with open_workspace(recipe, folder, resume=True, overwrite=False, listener=listener) as workspace:
        try:
            with open_job(recipe, workspace) as job:
                found = _measured(asked, _thinned(job, asked.share))
        except RecipeError as error:
            found = {"state": "failed", "why": str(error)}
        workspace.forget()
    found |= {"seconds": round(perf_counter() - start, 3)}
    write_json(folder / RESULT, sealed_tree({"digest": folder.name, "done": found}))
    return found


def _thinned(job: Job, share: float) -> Job:
    if share >= 1:
        return job
    train = job.data.train
    part = by_chance(train, max(round(share * len(train)), 1), derive_seed(0, "search share"))
    return replace(job, data=replace(job.data, train=part))


def _measured(asked: Asked, job: Job) -> dict[str, Any]:
    task = job.data.validation.task
    runner = Runner(
        asked.rivals,
        higher_is_better=_higher(asked.metric),
        quality=lambda model: _value(asked.metric, task, observe(model, job.data.validation, task)),
        cost=lambda model: float(measure_cost(model, job.trace_inputs).macs),
    )
    seeds: list[dict[str, Any]] = []
    found: dict[str, Any] = {"state": "done"}
    for place, seed in enumerate(job.recipe.seeds):
        take_dense(Path(asked.shared), job, seed, asked.share)
        dense, _ = fit_dense(job, seed)
        keep_dense(Path(asked.shared), job, seed, asked.share)
        watched = replace(job, watch=runner.look if place == 0 else None)
        try:
            pruned = prune_seed(watched, seed, dense, job.workspace.decided).pruned.model
        except Behind as behind:
            found = {"state": "stopped", "why": str(behind)}
            pruned = behind.model
        seeds.append({"seed": seed, **_quality(asked, job, dense, pruned)})
        if place == 0:
            found |= _costs(asked, job, dense, pruned)
        if found["state"] == "stopped":
            break
    bounds = [row["bound"] for row in seeds if row["bound"] is not None]
    return {
        **found,
        **{name: float(np.mean([row[key] for row in seeds])) for name, key in _MEANS.items()},
        "bound": max(bounds) if bounds else None,
        "seeds": seeds,
        "rungs": runner.rungs,
        "macs": found["counts"]["pruned"]["macs"],
    }


_MEANS = {"quality": "pruned", "dense_quality": "dense", "drop": "drop", "gap": "gap", "dense_gap": "dense_gap"}


def _quality(asked: Asked, job: Job, dense: nn.Module, pruned: nn.Module) -> dict[str, Any]:
    task, metric, sign = job.data.validation.task, asked.metric, 1 if _higher(asked.metric) else -1
    seen = {name: observe(model, job.data.validation, task) for name, model in (("dense", dense), ("pruned", pruned))}
    value = {name: _value(metric, task, one) for name, one in seen.items()}
    known = {
        n: _value(metric, task, observe(m, job.data.train, task)) for n, m in (("dense", dense), ("pruned", pruned))
    }
    bound: float | None = None
    if asked.max_drop is not None:
        found = noninferiority(
            seen["dense"], seen["pruned"], task, metric=metric, max_drop=asked.max_drop, confidence=asked.confidence
        )
        bound = float(found.bound) if isfinite(found.bound) else None
    return {
        **value,
        "drop": sign * (value["dense"] - value["pruned"]),
        "bound": bound,
        "gap": sign * (known["pruned"] - value["pruned"]),
        "dense_gap": sign * (known["dense"] - value["dense"]),
    }


def _costs(asked: Asked, job: Job, dense: nn.Module, pruned: nn.Module) -> dict[str, Any]:
    """Return each cost of the pruned model as a share of the dense one's, and what was counted."""
    counts = {
        name: asdict(measure_cost(model, job.trace_inputs)) for name, model in (("dense", dense), ("pruned", pruned))
    }
    keys = {"params": "nonzero_parameters", "macs": "macs", "bytes": "memory_bytes"}
    shares = {name: counts["pruned"][key] / max(counts["dense"][key], 1) for name, key in keys.items()}
    facts: dict[str, Any] = {"counts": counts}
    if "latency" in asked.costs:
        latency = latency_of(job, {"dense": dense, "pruned": pruned})
        facts["latency"] = latency.to_dict()
        assert latency.speedup is not None
        shares["latency"] = 1 / latency.speedup.value
    return {"shares": shares, **facts}


def _higher(metric: str) -> bool:
    return metrics[metric].higher_is_better


def _value(metric: str, task: Task, seen: Observed) -> float:
    n = len(next(iter(seen.values())))
    return float(measured(task, (metric,), seen, np.ones((1, n)))[0, 0])
