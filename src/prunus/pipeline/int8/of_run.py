"""What does a run leave in 8-bit whole numbers, and how do dense, pruned, int8 and both compare?

All four are exported files that answer through their runtime: their size is the file's, their quality what the task observes of its
answers to the test examples, their time that of the runtime that is fastest for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from prunus.core.calls import map_tensors, select_rows
from prunus.core.errors import DataError, ModelError
from prunus.core.events import silent
from prunus.core.recipes.shipping.quantize_section import Quantize
from prunus.evaluate import measure_quality, observe
from prunus.evaluate.timing.bench_runtimes import RUNTIMES, BenchRuntime, Compiled
from prunus.evaluate.timing.in_turns import bench_subjects
from prunus.graph.tracing.states import duplicate
from prunus.pipeline.int8.quantise import Int8Examples, Int8File, model_of_file, promise_of, quantise
from prunus.pipeline.jobs.job import Job, SeedResult
from prunus.ship import Bundle, load_bundle
from prunus.ship.quantize.file_model import raw_batch
from prunus.ship.quantize.int8_formats import int8_runtime
from prunus.ship.raw_model import RawModel
from prunus.tasks import Observed

__all__ = ["check_int8", "int8_of_run"]

_ORDER = ("dense", "pruned", "dense int8", "pruned int8")


def check_int8(job: Job) -> None:
    """Find out before anything is trained that the run can't leave an int8 file.

    Raises:
        MissingExtraError: a package is missing.
        DataError: there are no calibration examples.
        RecipeError: it isn't said how much a metric that is no share may drop.
    """
    recipe = job.recipe
    if recipe.quantize is None:
        return
    int8_runtime(recipe.quantize.to).check_installed("quantize")
    if not len(job.data.calibration):
        raise DataError("quantize needs calibration examples: got none; raise data.split.calibration")
    promise_of(recipe.quantize, recipe.contract, job.data.test.task.name)


def int8_of_run(job: Job, result: SeedResult, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write the pruned model's int8 file if it keeps the promise; return the facts of all four files, and their times.

    A model that can't be int8 doesn't fail the run: the facts say why.
    """
    settings, recipe, data = job.recipe.quantize, job.recipe, job.data
    assert settings is not None
    runtime = int8_runtime(settings.to)
    promise = promise_of(settings, recipe.contract, data.test.task.name)
    parts = Int8Examples(*(part.to("cpu") for part in (data.calibration, data.validation, data.test)))
    dense = duplicate(result.dense).cpu().eval()
    files: dict[str, Any] = {}
    seen: dict[str, Observed] = {}
    made: dict[str, Int8File[Any]] = {}
    problem = ""
    with job.workspace.stage("int8"):
        bundles = {
            name: load_bundle(where, trust_code=True)  # the run made them just now, by the user's own recipe
            for name, where in (("dense", folder / "dense"), ("pruned", folder / "bundle"))
            if (where / "manifest.json").is_file()
        }
        for name, bundle in bundles.items():
            try:
                files[name] = runtime.float_file(bundle)
                seen[name] = observe(
                    model_of_file(runtime, bundle, files[name], parts.test), parts.test, parts.test.task
                )
                found = quantise(
                    runtime, bundle, files[name], dense, parts, settings, promise, bootstrap=recipe.evaluation.bootstrap
                )
            except ModelError as error:
                problem = str(error) if name == "pruned" else problem
                job.workspace.note("int8", f"{name}: {error}")
                continue
            made[name], files[f"{name} int8"], seen[f"{name} int8"] = found, found.file, found.observed
        pruned = made.get("pruned")
        if pruned is not None and pruned.kept:
            runtime.write(pruned.file, folder / runtime.beside_bundle)
        elif pruned is not None:
            test = pruned.facts["test"]
            problem = (
                f"the int8 file isn't shown to keep the promise on the test examples: {test['metric']} drops by at most "
                f"{test['bound']:.3g}, {test['max_drop']:g} allowed"
            )
            job.workspace.warn("int8", f"no file is left: {problem}")
        times = _times(job, bundles, files) if "pruned" in files else []
    facts = {
        "metric": promise.metric,
        "file": runtime.beside_bundle,
        "method": None if pruned is None else pruned.facts["method"],
        "rows": [_row(job, name, files[name], seen[name], made) for name in _ORDER if name in files],
        "test": None if pruned is None else pruned.facts["test"],
        "problem": problem,
    }
    return facts, times


def _row(job: Job, name: str, file: Any, observed: Observed, made: dict[str, Int8File[Any]]) -> dict[str, Any]:
    evaluation, settings = job.recipe.evaluation, job.recipe.quantize
    assert settings is not None
    task = job.data.test.task
    metric = promise_of(settings, job.recipe.contract, task.name).metric
    found = measure_quality(
        observed, task, metrics=[metric], confidence=evaluation.confidence, bootstrap=evaluation.bootstrap
    )
    row: dict[str, Any] = {"name": name, "size_bytes": len(file), "quality": found.metrics[0].to_dict()}
    if name.endswith(" int8"):
        facts = made[name.removesuffix(" int8")].facts
        row |= {"n_layers": facts["n_layers"], "in_float": facts["in_float"]}
    return row


def _times(job: Job, bundles: dict[str, Bundle], files: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the time of each in its fastest runtime; all take turns in one run."""
    config, like = job.recipe.evaluation.latency, bundles["pruned"]
    batch = map_tensors(lambda value: value.cpu(), job.timed_inputs)
    raw = raw_batch(like, batch)
    example = select_rows(raw, torch.arange(2) % config.batch_size)
    runtime = int8_runtime((job.recipe.quantize or Quantize()).to)
    subjects = {
        name: runtime.timed(file, example, RawModel(bundles[name]) if name in bundles else None)
        for name, file in files.items()
    }
    known: list[BenchRuntime] = [r for r in RUNTIMES if not isinstance(r, Compiled) and not r.missing()]
    found = bench_subjects(
        subjects,
        {config.batch_size: raw},
        batch_sizes=(config.batch_size,),
        threads=(torch.get_num_threads(),),
        repeats=config.repeats,
        warm_up=max(1, config.warm_up),
        listener=silent,
        known=known,
    )
    called = {runtime.name: runtime.called for runtime in known}
    return [
        {
            "name": row["model"],
            "runtime": called[row["runtime"]],
            "milliseconds": row["milliseconds"],
            "speedup": row["speedup"],
        }
        for row in found["cells"][0]["best"]
    ]
