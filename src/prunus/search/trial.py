"""What does one setting give? One function of plain values, which any process can run, and which a killed one goes on with.

Quality is measured on the validation examples; the test examples are loaded, and not looked at. A trial is done when its result
stands in its folder, whose name follows from its recipe: the same setting is never run twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from torch import nn

from prunus.core.errors import PrunusError, RecipeError
from prunus.core.events import Listener, silent
from prunus.core.files.plain_files import write_json
from prunus.core.files.sealed import sealed_tree, short_digest
from prunus.core.recipes.recipe_file import make_recipe
from prunus.core.runtime import derive_seed
from prunus.evaluate import measure_cost, observe
from prunus.pipeline import prune_seed
from prunus.pipeline.flow.open_job import open_job
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.run_folder import open_workspace
from prunus.pipeline.measure import latency_of
from prunus.pipeline.stages.model_stage import fit_dense
from prunus.pipeline.stages.selection_gate import by_chance
from prunus.scale.resume import read_state
from prunus.search.account.judged_on import JudgedOn, check_judged
from prunus.search.race import Behind, Rival, Runner
from prunus.search.shared_dense import keep_dense, take_dense
from prunus.search.shared_losses import keep_losses, take_losses
from prunus.tasks import default_metrics, metrics, value_of

__all__ = ["RESULT", "Asked", "digest_of", "read_result", "run_trial", "thinned"]

RESULT = "trial.json"


@dataclass(frozen=True)
class Asked:
    """One trial: the ``recipe`` as a tree, in which ``folder`` it lies, and what it is measured by.

    ``share`` of the training examples are used; ``rivals`` are finished trials that it is stopped early against. Its examples must
    be those of ``on``, and its whole data where ``same_data`` says so.
    """

    number: int
    recipe: Mapping[str, Any]
    folder: str
    shared: str
    metric: str
    costs: tuple[str, ...]
    share: float = 1.0
    rivals: tuple[Rival, ...] = ()
    on: JudgedOn | None = None
    same_data: bool = True


def digest_of(recipe: Mapping[str, Any], share: float) -> str:
    """Return what a trial's folder is called: the same for the same setting, wherever it is written."""
    return short_digest({"recipe": {k: v for k, v in recipe.items() if k != "output"}, "share": share})


def read_result(folder: Path, metric: str, costs: tuple[str, ...] = ()) -> dict[str, Any] | None:
    """Return what a trial gave in a metric; None where it isn't done, was damaged, or lacks the metric or one of the costs."""
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        held, found = read_state(path, "digest")
    except PrunusError:
        return None
    if found.get("state") == "failed":
        return dict(found) if held == folder.name else None
    if held != folder.name or metric not in found.get("metrics", {}) or not set(costs) <= set(found["shares"]):
        return None
    return _in_metric(found, metric)


def _in_metric(found: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Return what was found with one of the metrics as the quality."""
    return {**{key: value for key, value in found.items() if key != "metrics"}, **found["metrics"][metric]}


def run_trial(asked: Asked, listener: Listener = silent) -> dict[str, Any]:
    """Return what a setting gives, as plain values, and keep it in its folder.

    ``state`` is ``done``, ``stopped`` (it was behind) or ``failed`` (the settings don't go together, or the training diverged).
    """
    folder = Path(asked.folder)
    held = read_result(folder, asked.metric, asked.costs)
    if held is not None:
        return held
    start = perf_counter()
    recipe = make_recipe(asked.recipe, f"trial {asked.number}")
    recipe = recipe.model_copy(update={"output": str(folder)})
    found: dict[str, Any]
    with open_workspace(recipe, folder, resume=True, overwrite=False, listener=listener) as workspace:
        try:
            with open_job(recipe, workspace) as job:
                if asked.on is not None:
                    check_judged(asked.on, job, same_data=asked.same_data)
                found = _measured(asked, thinned(job, asked.share))
        except RecipeError as error:
            found = {"state": "failed", "why": str(error)}
        workspace.forget()
    found |= {"seconds": round(perf_counter() - start, 3)}
    write_json(folder / RESULT, sealed_tree({"digest": folder.name, "done": found}))
    return found if found["state"] == "failed" else _in_metric(found, asked.metric)


def thinned(job: Job, share: float) -> Job:
    """Return the job with a share of its training examples, the same ones in every trial."""
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
        quality=lambda model: value_of(task, asked.metric, observe(model, job.data.validation, task)),
        cost=lambda model: float(measure_cost(model, job.trace_inputs).macs),
    )
    seeds: list[dict[str, Any]] = []
    found: dict[str, Any] = {"state": "done"}
    for place, seed in enumerate(job.recipe.seeds):
        shared = Path(asked.shared)
        take_dense(shared, job, seed, asked.share)
        dense, _ = fit_dense(job, seed)
        keep_dense(shared, job, seed, asked.share)
        take_losses(shared, job, seed, asked.share)
        watched = replace(job, watch=runner.look if place == 0 else None)
        try:
            result = prune_seed(watched, seed, dense, job.workspace.decided)
            pruned = result.pruned.model
            if place == 0:
                found["gap_trend"] = [
                    {key: row[key] for key in ("kept", "gap", "taken_back")} for row in result.pruned.gaps
                ]
        except Behind as behind:
            found = {"state": "stopped", "why": str(behind)}
            pruned = behind.model
        keep_losses(shared, job, seed, asked.share)
        seeds.append({"seed": seed, "metrics": _quality(asked, job, dense, pruned)})
        if place == 0:
            found |= _costs(asked, job, dense, pruned)
        if found["state"] == "stopped":
            break
    names = [name for name in seeds[0]["metrics"] if all(name in row["metrics"] for row in seeds)]
    return {
        **found,
        "metrics": {name: _means([row["metrics"][name] for row in seeds]) for name in names},
        "seeds": [{"seed": row["seed"], **row["metrics"][asked.metric]} for row in seeds],
        "rungs": runner.rungs,
        "macs": found["counts"]["pruned"]["macs"],
    }


def _means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def _quality(asked: Asked, job: Job, dense: nn.Module, pruned: nn.Module) -> dict[str, dict[str, float]]:
    """Return for each metric that is evaluated, and the one asked for, what both models have and what they are apart."""
    task = job.data.validation.task
    names = dict.fromkeys((asked.metric, *(job.recipe.evaluation.metrics or default_metrics(task.name))))
    models = {"dense": dense, "pruned": pruned}
    seen = {name: observe(model, job.data.validation, task) for name, model in models.items()}
    known = {name: observe(model, job.data.train, task) for name, model in models.items()}
    found = {}
    for metric in names:
        sign = 1 if _higher(metric) else -1
        value = {name: value_of(task, metric, one) for name, one in seen.items()}
        gap = {name: sign * (value_of(task, metric, one) - value[name]) for name, one in known.items()}
        row = {
            "quality": value["pruned"],
            "dense_quality": value["dense"],
            "drop": sign * (value["dense"] - value["pruned"]),
            "gap": gap["pruned"],
            "dense_gap": gap["dense"],
        }
        if all(map(isfinite, row.values())):
            found[metric] = row
        elif metric == asked.metric:
            odd = next(key for key, one in row.items() if not isfinite(one))
            raise RecipeError(
                f"{metric} is no number of these settings ({odd}: {row[odd]}), so nothing can be said of them"
            )
    return found


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
