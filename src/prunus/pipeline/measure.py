"""What did a run achieve? Everything that the record says, measured on the models that it leaves.

The test set is read here and nowhere before: no decision depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunus.core.calls import described
from prunus.core.errors import ModelError
from prunus.core.recipes.recipe import Recipe
from prunus.core.runtime import versions
from prunus.core.types import Plan
from prunus.data import Examples, Prepared
from prunus.evaluate import (
    Latency,
    Pairs,
    Quality,
    at_once,
    class_changes,
    compare,
    fastest_runtime,
    gap,
    group_changes,
    in_runtime,
    measure_cost,
    measure_latency,
    measure_quality,
    observe,
)
from prunus.evaluate.timing.latency import Timeable
from prunus.evaluate.timing.runtimes import called, put_away
from prunus.pipeline.jobs.given_weights import worse_than_guessing
from prunus.pipeline.jobs.job import Job, SeedResult, example_groups
from prunus.pipeline.jobs.workspace import Workspace
from prunus.pipeline.shipping import sizes_on_disk
from prunus.pipeline.stages.duplicate_examples import alike_apart, alike_notes
from prunus.pipeline.stages.example_facts import class_facts, map_facts, pair_facts, suspect_facts
from prunus.pipeline.stages.example_stage import as_asked, clean, thinned_classes
from prunus.pipeline.stages.harm_facts import harm_facts
from prunus.pipeline.stages.label_cleaning import label_facts
from prunus.pipeline.stages.label_precision import precision_facts
from prunus.pipeline.stages.scoring.pruned_scorer import scorer_facts
from prunus.report import GraphFacts, RunRecord
from prunus.score import embed, principal_plane
from prunus.ship.timed.all_runtimes import ALL_RUNTIMES
from prunus.tasks import Observed, Task, default_metrics

__all__ = ["CONTROL", "epochs_of", "measure_run", "observe_ahead", "quality_of", "timed"]

CONTROL = "control"
"""The history of the dense model that was trained on for as long as the pruned one."""
_SPLITS = ("train", "test")


def measure_run(
    job: Job,
    results: Sequence[SeedResult],
    plan: Plan,
    gate: dict[str, Any] | None = None,
    joint: dict[str, Any] | None = None,
) -> RunRecord:
    """Return the record of a run whose models are ``results`` and whose first seed decided ``plan``.

    ``gate`` judged what stays of the examples, ``joint`` shares of the data and the model together.
    """
    data, recipe, task = job.data, job.recipe, job.data.test.task
    observed = {
        (result.seed, name, split): _seen(job, result.seed, name, model, split)
        for result in results
        for name, model in _models(result).items()
        for split in _SPLITS
    }
    settings = _settings(recipe, task)
    quality = {key: measure_quality(value, task, **settings) for key, value in observed.items()}
    rows = [{"seed": s, "model": m, "split": part, **q.to_dict()} for (s, m, part), q in quality.items()]
    first = results[0]
    batch = next(iter(data.test.batches(recipe.evaluation.latency.batch_size)))
    models = _models(first)
    sizes = sizes_on_disk(first)
    cost = {
        name: {**measure_cost(model, batch.inputs).to_dict(), "size_bytes": sizes[name]}
        for name, model in models.items()
    }
    latency = latency_of(job, models, (first.search or {}).get("runtime"))
    pairs = _pairs(observed, results, "test", task, settings)
    compared = compare(pairs, settings["metrics"])
    alike = None if recipe.examples is None else as_asked(recipe.examples, job).duplicates
    apart = alike_apart(data.train, data.test, alike)
    notes = [*data.notes, *alike_notes(data.train, data.test, alike, apart), *thinned_classes(data.train, first.train)]
    if doubt := worse_than_guessing(task, observed[first.seed, "dense", "test"], data.test.known_targets):
        job.workspace.warn("evaluate", doubt)
        notes.append(doubt)
    changes = class_changes(pairs)
    changes = tuple(at_once(item, len(changes), pairs.confidence) for item in changes)
    return RunRecord.model_validate(
        {
            "name": recipe.name,
            "recipe": recipe.model_dump(mode="json"),
            "versions": versions(),
            "seeds": [result.seed for result in results],
            "fingerprints": {**plan.fingerprints, "bundle": ""},
            "data": _data_facts(job, first),
            "quality": rows,
            "gaps": _gaps(quality),
            "comparison": [item.to_dict() for item in compared],
            "class_changes": [item.to_dict() for item in changes],
            "group_changes": _group_changes(job, pairs, settings["metrics"][0]),
            "harm": _harm(job, first, observed, settings),
            "cost": cost,
            "searches": [result.search for result in results if result.search is not None],
            "allocations": [facts for result in results for facts in _allocations(result)],
            "gap_trend": [facts for result in results for facts in result.pruned.gaps],
            "adjustments": [facts for result in results for facts in result.pruned.adjustments],
            "layers": _layers(plan),
            "sensitivity": _sensitivity(plan),
            "classes": class_facts(plan.steps, data.train),
            "features": _features(plan),
            "suspects": suspect_facts(plan.steps, data),
            "precision": precision_facts(plan.steps),
            "labels": label_facts(plan.steps),
            "pairs": pair_facts(data, plan.steps, apart),
            "map": _map(job, first, plan),
            "gate": gate,
            "joint": joint,
            "scorer": scorer_facts(plan.steps),
            "frozen": [dict(item) for item in first.pruned.frozen],
            "graph": first.pruned.graph and GraphFacts.of(first.pruned.graph).model_dump(),
            "kind": first.pruned.kind,
            "notes": [*notes, *job.split_notes],
            "epochs": epochs_of(first.histories),
            "curves": {name: history for name, history in first.histories.items() if history},
            "timing": {"latency": latency.to_dict()},
        }
    )


def observe_ahead(job: Job, result: SeedResult) -> None:
    """Keep what is observed of a seed's models for :func:`measure_run`, where others come to it.

    Not of data that lie on disk: what is observed of those lies in files of the process that asks.
    """
    for name, model in _models(result).items():
        for split in _SPLITS:
            if getattr(job.data, split).on_disk:
                continue
            seen = _seen(job, result.seed, name, model, split)
            if all(column.dtype.kind in "biuf" for column in seen.values()):
                job.workspace.kept(_held(job, result.seed, name, split), partial(_columns, seen))


def _seen(job: Job, seed: int, name: str, model: nn.Module, split: str) -> Observed:
    """Return what is observed of a model on a split, or was by whoever trained it."""
    kept = job.workspace.kept_state(_held(job, seed, name, split))
    if kept is not None:
        return {key: column.numpy() for key, column in kept.items()}
    return observe(model, getattr(job.data, split), job.data.test.task)


def _columns(observed: Observed) -> dict[str, Tensor]:
    return {key: torch.from_numpy(np.ascontiguousarray(column)) for key, column in observed.items()}


def _held(job: Job, seed: int, name: str, split: str) -> str:
    """Return under which name is kept what was observed of these very data."""
    return f"seed {seed} / evaluate / {name} on {split} of {job.data.fingerprint[:16]}"


def _models(result: SeedResult) -> dict[str, nn.Module]:
    return {"dense": result.dense, "pruned": result.pruned.model}


def _harm(job: Job, first: SeedResult, observed: Mapping[Any, Observed], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return whom the model that is shipped serves worse; calibration, which takes a pass of its own, where that is short."""
    data = job.data
    task = data.test.task
    pairs = _pairs(observed, [first], "test", task, settings)
    groups = example_groups(job.recipe, data.test)
    fit_on = data.validation if len(data.validation) else None
    return harm_facts(
        replace(pairs, seed=first.seed),
        data.test,
        _models(first),
        split="test",
        groups={} if groups is None else {groups.column: groups.names},
        fit_on=fit_on,
        fitted_on="validation" if fit_on is not None else "",
        calibrated=task.exclusive,
    )


def _map(job: Job, first: SeedResult, plan: Plan) -> dict[str, Any] | None:
    """Return where the training examples lie for the dense model; None where nothing was decided about them."""
    if not any(step.granularity == "example" for step in plan.steps):
        return None
    try:
        place = principal_plane(embed(first.dense, job.data.train))
    except ModelError:  # no layer with a weight matrix: nowhere to lie
        return None
    return map_facts(job.data.train, plan.steps, *place, "what the dense model's last layer reads")


def _group_changes(job: Job, pairs: Pairs, metric: str) -> dict[str, Any] | None:
    groups = example_groups(job.recipe, job.data.test)
    if groups is None:
        return None
    found = group_changes(pairs, groups.names, metric)
    return {
        "column": groups.column,
        "metric": metric,
        "confidence": pairs.confidence,
        "changes": [item.to_dict() for item in found],
    }


def epochs_of(histories: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return for how many epochs the run trained each model: the dense one, and the pruned one with what it was cut from."""
    spent = {name: len(history.get("loss", ())) for name, history in histories.items()}
    dense, control = spent.pop("train", 0), spent.pop(CONTROL, 0)
    return {"dense": dense + control, "pruned": dense + sum(spent.values())}


def timed(record: RunRecord, workspace: Workspace) -> RunRecord:
    """Return ``record`` with the time of every stage, the evaluation too, and the date."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    spent = {"seconds": workspace.seconds, "total_seconds": workspace.elapsed_s, "finished": now}
    return record.model_copy(update={"timing": {**record.timing, **spent}})


def latency_of(job: Job, models: Mapping[str, nn.Module], runtime: str | None = None) -> Latency:
    """Return how long the models take in turns, all in one runtime: the given one, or that in which the dense one is fastest."""
    inputs, config = job.timed_inputs, job.recipe.evaluation.latency

    def note(text: str) -> None:
        job.workspace.note("evaluate", text)

    wanted = config if runtime is None else config.model_copy(update={"runtime": runtime})
    name, dense = fastest_runtime(models["dense"], inputs, wanted, note=note, known=ALL_RUNTIMES)
    try:
        pruned = in_runtime(name, models["pruned"], inputs, known=ALL_RUNTIMES, clock=config.clock)
        ready: dict[str, Timeable] = {"dense": dense, "pruned": pruned}
    except ModelError as error:
        if config.runtime not in ("best", "best_of_all"):
            raise
        put_away(dense)
        note(f"latency is measured in torch: {error}")
        name, ready = "torch", dict(models)
    try:
        return measure_latency(ready, inputs, config, runtime=called(name, ALL_RUNTIMES))
    finally:
        for model in ready.values():
            put_away(model)


def quality_of(model: nn.Module, examples: Examples, recipe: Recipe) -> Quality:
    """Return every metric of the recipe with its interval."""
    task = examples.task
    return measure_quality(observe(model, examples, task), task, **_settings(recipe, task))


def _settings(recipe: Recipe, task: Task) -> dict[str, Any]:
    evaluation = recipe.evaluation
    return {
        "metrics": evaluation.metrics or default_metrics(task.name),
        "confidence": evaluation.confidence,
        "bootstrap": evaluation.bootstrap,
    }


def _pairs(
    observed: Mapping[tuple[int, str, str], Observed],
    results: Sequence[SeedResult],
    split: str,
    task: Task,
    settings: Mapping[str, Any],
) -> Pairs:
    dense, pruned = ([observed[result.seed, name, split] for result in results] for name in ("dense", "pruned"))
    return Pairs(dense, pruned, task, settings["confidence"], settings["bootstrap"])


def _gaps(quality: dict[tuple[int, str, str], Any]) -> list[dict[str, Any]]:
    found = []
    for (seed, model, split), train in quality.items():
        if split == "train":
            for item in gap(train, quality[seed, model, "test"]):
                facts = item.to_dict()
                found.append(
                    {"seed": seed, "model": model, "metric": facts["name"]}
                    | {k: facts[k] for k in ("value", "low", "high")}
                )
    return found


def _data_facts(job: Job, first: SeedResult) -> dict[str, Any]:
    data, recipe = job.data, job.recipe
    return {
        "source": recipe.data.source,
        "task": data.train.task.name,
        "class_names": list(data.train.class_names),
        "input_shape": list(data.source.input_shape),
        "inputs": "" if data.source.input_shape else described(job.trace_inputs),
        "n": {part: len(getattr(data, part)) for part in ("train", "validation", "calibration", "test")},
        "test_seen": "unknown" if job.weights_from_elsewhere else "no",
        "test_set": data.test_set,
        "n_duplicates": len(data.splits.duplicates),
        "duplicates": [str(duplicate) for duplicate in data.splits.duplicates[:5]],
        "noise": _noise_facts(data, first),
    }


def _noise_facts(data: Prepared, first: SeedResult) -> dict[str, int] | None:
    """Say how many of the labels that were flipped on purpose were found and repaired, and how many others were touched too."""
    if data.noise is None:
        return None
    true = dict(zip(data.noise.ids, data.noise.true_targets.tolist(), strict=True))
    cleaned = clean(data.train, first.steps)
    left = dict(zip(cleaned.ids, cleaned.targets.tolist(), strict=True))
    given = dict(zip(data.train.ids, data.train.targets.tolist(), strict=True))
    touched = {name for name in given if left.get(name) != given[name]}
    return {
        "n_flipped": len(true),
        "n_found": len(touched & true.keys()),
        "n_repaired": sum(left.get(name) == label for name, label in true.items()),
        "n_clean": len(touched - true.keys()),
    }


def _layers(plan: Plan) -> list[dict[str, Any]]:
    """Count units per layer before the first round and after the last."""
    layers: dict[str, dict[str, Any]] = {}
    for step in plan.of("prune"):
        for decision in step.decisions:
            entry = layers.setdefault(
                decision.stratum,
                {"name": decision.stratum, "granularity": step.granularity, "before": len(decision.unit)},
            )
            entry["after"] = decision.n_kept
    return list(layers.values())


def _allocations(result: SeedResult) -> list[dict[str, Any]]:
    cuts = [step for step in result.steps if step.operation == "prune"]
    return [
        {"seed": result.seed, "cut": number, **step.settings["allocations"]}
        for number, step in enumerate(cuts, start=1)
        if "allocations" in step.settings
    ]


def _sensitivity(plan: Plan) -> list[dict[str, Any]]:
    return [
        {"name": name, "granularity": step.granularity, "points": points}
        for step in plan.of("prune")
        for name, points in step.settings.get("losses", {}).items()
    ]


def _features(plan: Plan) -> list[dict[str, Any]]:
    return [
        {"name": str(name), "importance": float(value), "kept": bool(kept)}
        for step in plan.of("replace")
        for d in step.decisions
        for name, value, kept in zip(d.label if d.label is not None else d.unit, d.saliency, d.keep, strict=True)
    ]
