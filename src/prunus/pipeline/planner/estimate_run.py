"""What will a run take on so many rows: time, memory and disk of each stage, from runs on a small sample?

The recipe itself is run on two sizes of a sample, each several times and in a process of its own, as it would run on all rows: from
disk or in memory. What a stage takes in any case and what it takes for each row are read off that.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prunus.core.errors import DataError, RunError
from prunus.core.events import Event, Listener, silent
from prunus.core.files.plain_files import size_of
from prunus.core.files.urls.url_path import path_at
from prunus.core.recipes.recipe import Recipe
from prunus.data import RowSet, disk_bytes, goes_to_disk, open_row_set, read_group, rows_in
from prunus.pipeline.jobs.workspace import LOAD_DATA
from prunus.pipeline.planner.linear_terms import Line, Predicted, fitted, flat, flat_unless_shown
from prunus.pipeline.planner.measured_run import REST, START

__all__ = ["SAMPLE_ROWS", "Estimate", "StageEstimate", "estimate"]

SAMPLE_ROWS = 200_000
REPEATS = 2
FULL_ROWS = 100_000
"""On so many rows buffers, and the examples that calibration is measured on, have reached their full size."""
FAR = 50
"""Beyond so many times the sample no estimate was held against a run."""
_SHARED = ("train", "recover", "control", "sparsify")
"""Stages whose rows several processes share out, by what their names hold."""
_GROUPS = {
    LOAD_DATA: "reading",
    "examples": "scoring",
    "judge": "scoring",
    "train": "training",
    "sparsify": "training",
    "prune": "pruning",
    "recover": "training",
    "control": "training",
    "evaluate": "evaluation",
    "ship": "writing",
}


@dataclass(frozen=True)
class StageEstimate:
    """One stage: what it is called, what it is for, and what it takes."""

    name: str
    group: str
    seconds: Predicted
    cpu_seconds: Predicted
    peak_bytes: Predicted
    seconds_fixed: float
    seconds_per_million: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        amounts = ("seconds", "cpu_seconds", "peak_bytes")
        return {**vars(self), **{name: getattr(self, name).to_dict() for name in amounts}}


@dataclass(frozen=True)
class Estimate:
    """A whole run on ``rows`` rows; ``peak_bytes`` is of one process, ``node_bytes`` of all on one machine."""

    rows: int
    workers: int
    nodes: int
    in_memory: bool
    sample_rows: tuple[int, ...]
    stages: tuple[StageEstimate, ...]
    seconds: Predicted
    cpu_seconds: Predicted
    peak_bytes: Predicted
    node_bytes: Predicted
    cache_bytes: int
    cache_peak_bytes: int
    scratch_bytes: Predicted
    output_bytes: Predicted
    memory_here: int
    disk_here: int
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            name: [stage.to_dict() for stage in value]
            if name == "stages"
            else value.to_dict()
            if isinstance(value, Predicted)
            else value
            for name, value in vars(self).items()
        }


def estimate(
    recipe: Recipe,
    rows: int,
    *,
    sample_rows: int = SAMPLE_ROWS,
    repeats: int = REPEATS,
    workers: int = 1,
    nodes: int = 1,
    folder: Path | None = None,
    listener: Listener = silent,
) -> Estimate:
    """Return what ``recipe`` takes on ``rows`` rows like those of its source.

    Args:
        sample_rows: so many rows are tried, and half as many.
        repeats: how often each.
        workers: processes that share out the rows of a training on one machine.
        nodes: so many machines.
        folder: where the trial runs work; default: a temporary one.

    Raises:
        DataError: the source has no rows that can be sampled, or too few.
        RunError: a trial run failed; it says why.
    """
    source = path_at(recipe.data.source)
    if recipe.data.is_bundled or not rows_in(source, recipe.data):
        raise DataError(
            f"{recipe.data.source}: a sample is taken of files of rows (.parquet, .arrow, .feather, .npy, or a folder of them): "
            "name such a file as data.source"
        )
    every = open_row_set([source])
    most = min(sample_rows, every.n_rows)
    sizes = sorted({most // 2, most})
    if most < 1000:
        raise DataError(f"{source}: expected at least 1000 rows to measure on, got {most}")
    warnings = _warnings(rows, most)
    for text in warnings:
        listener(Event("warning", "estimate", text))
    to_disk = goes_to_disk(recipe.data, every, rows)
    measured: list[tuple[int, dict[str, Any]]] = []
    with ExitStack() as stack:
        work = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prunus-estimate-")))
        samples = {n: _sample(every, n, work / f"sample-{n}.parquet") for n in sizes}
        short = _without_latency(recipe)
        for repeat in range(repeats):
            for n, path in samples.items():
                listener(Event("note", "estimate", f"{n} rows, run {repeat + 1} of {repeats}"))
                measured.append((n, _measure(short, path, work, to_disk=to_disk)))
        listener(Event("note", "estimate", f"{most} rows, with the recipe's own measurement of latency"))
        whole = _measure(recipe, samples[most], work, to_disk=to_disk)
    found = _put_together(every, rows, measured, (most, whole), to_disk=to_disk, workers=workers, nodes=nodes)
    if 2 * found.cache_bytes > found.memory_here:
        cold = (
            f"the converted rows, {found.cache_bytes} bytes, don't fit into half of this machine's memory: a shuffled epoch "
            "reads from the disk, and takes the time that the disk needs"
        )
        listener(Event("warning", "estimate", cold))
        warnings = (*warnings, cold)
    return replace(found, warnings=warnings)


def _without_latency(recipe: Recipe) -> Recipe:
    """Return a recipe that measures latency in the least time: it doesn't hang on rows, and would hide what does."""
    latency = recipe.evaluation.latency.model_copy(update={"runtime": "torch", "repeats": 5, "warm_up": 1})
    return recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"latency": latency})})


def _sample(every: RowSet, n: int, path: Path) -> Path:
    """Write some rows, the same share of groups that are spread evenly over all files; return where."""
    n_groups = len(every.ends)
    chosen = sorted({round(k * (n_groups - 1) / max(15, 1)) for k in range(16)}) if n_groups > 16 else range(n_groups)
    sizes = {group: int(every.ends[group] - every.starts[group]) for group in chosen}
    share = n / max(sum(sizes.values()), 1)
    if share > 1:  # the chosen groups hold too few: take more of them
        sizes = {group: int(every.ends[group] - every.starts[group]) for group in range(n_groups)}
        share = n / every.n_rows
    passed = taken = 0
    names = list(every.schema.names)
    with pq.ParquetWriter(path, every.schema) as file:
        for group, size in sizes.items():
            passed += size
            wanted = min(round(share * passed) - taken, size)
            for batch in _first(every, group, names, wanted):
                file.write_batch(batch.cast(every.schema) if batch.schema != every.schema else batch)
            taken += wanted
    return path


def _first(every: RowSet, group: int, names: Sequence[str], n: int) -> Iterator[pa.RecordBatch]:
    for _, batch in read_group(every, group, names):
        if n <= 0:
            return
        yield batch.slice(0, n)
        n -= min(n, batch.num_rows)


def _measure(recipe: Recipe, path: Path, work: Path, *, to_disk: bool) -> dict[str, Any]:
    """Return what a run on a sample took, in a process of its own."""
    cache, output = work / "cache", work / "run"
    for old in (cache, output):
        shutil.rmtree(old, ignore_errors=True)
    data = recipe.data.model_copy(update={"source": str(path), "in_memory": not to_disk, "cache": str(cache)})
    config = recipe.model_copy(update={"data": data, "output": str(output), "tracking": ()})
    told, facts = work / "recipe.json", work / "facts.json"
    told.write_text(config.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "prunus.pipeline.planner.measured_run", str(told), str(facts)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"the trial run on {path.name} failed: {last}")
    found: dict[str, Any] = json.loads(facts.read_text(encoding="utf-8"))
    return {**found, "cache_bytes": size_of(cache), "output_bytes": size_of(output)}


def _put_together(
    every: RowSet,
    rows: int,
    measured: Sequence[tuple[int, dict[str, Any]]],
    whole: tuple[int, dict[str, Any]],
    *,
    to_disk: bool,
    workers: int,
    nodes: int,
) -> Estimate:
    sizes = [n for n, _ in measured]

    def line(values: Sequence[float]) -> Line:
        return fitted(sizes, values)

    nothing = {"seconds": 0.0, "cpu_seconds": 0.0, "peak_bytes": 0.0}
    stages = []
    for name in whole[1]["stages"]:
        took = [one["stages"].get(name, nothing) for _, one in measured]
        share = 1.0 / (workers * nodes) if any(word in name for word in _SHARED) else 1.0
        # What comes before the data takes as long for any rows: a slope would be chance, fifty times as large on all of them.
        start = flat_unless_shown if len(sizes) > 2 else flat  # two runs can't show that it does hang on them
        made = {"cpu_seconds": start if name == START else fitted, "peak_bytes": flat_unless_shown}
        lines = {
            key: fit(sizes, [one[key] for one in took]).through(whole[0], whole[1]["stages"][name][key])
            for key, fit in made.items()
        }
        # The clock also counts what else the machine does, so how rows tell is read off the processor's seconds.
        waits = sum(one["seconds"] for one in took) / max(sum(one["cpu_seconds"] for one in took), 1e-9)
        cpu = lines["cpu_seconds"]
        stages.append(
            StageEstimate(
                name,
                "starting" if name == START else "the rest" if name == REST else _group(name),
                cpu.at(rows, share).times(waits),
                cpu.at(rows),
                lines["peak_bytes"].at(rows),
                cpu.fixed * waits,
                cpu.per_row * waits * 1e6,
            )
        )
    peak = max((stage.peak_bytes for stage in stages), key=lambda one: one.value)
    spent = [sum(stage["cpu_seconds"] for stage in one["stages"].values()) for _, one in (*measured, whole)]
    together = line(spent[:-1]).through(whole[0], spent[-1]).at(rows)
    off = max(together.high / together.value, 1.0) if together.value else 1.0
    seconds, cpu_seconds = (
        Predicted(value, max(value * (2 - off), 0.0), value * off)
        for value in (sum(stage.seconds.value for stage in stages), sum(stage.cpu_seconds.value for stage in stages))
    )
    disk = line([one["cache_bytes"] for _, one in measured]).at(rows)
    return Estimate(
        rows,
        workers,
        nodes,
        not to_disk,
        tuple(sorted(set(sizes))),
        tuple(stages),
        seconds,
        cpu_seconds,
        peak,
        peak.times(workers),
        round(disk.value) if to_disk else 0,
        round(disk_bytes(every) * rows / every.n_rows) if to_disk else 0,
        line([one["scratch_bytes"] for _, one in measured]).at(rows),
        line([one["output_bytes"] for _, one in measured]).at(rows),
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        shutil.disk_usage(tempfile.gettempdir()).free,
    )


def _warnings(rows: int, most: int) -> tuple[str, ...]:
    """Return what speaks against an estimate from a sample of at most so many rows, before it is made."""
    said = []
    if most < FULL_ROWS < rows:
        said.append(
            f"{most} rows are few to measure on: buffers reach their full size at about {FULL_ROWS}, so memory will be "
            "overestimated, and times are less sure; take a larger sample (--sample)"
        )
    if rows > FAR * most:
        said.append(
            f"{rows} rows are {rows / most:.0f} times the sample, and estimates were held against runs of up to {FAR} times: what "
            f"doesn't show in {most} rows is no part of it; take a larger sample (--sample)"
        )
    return tuple(said)


def _group(name: str) -> str:
    """Return what a stage is for: a run's stages have names such as ``seed 0 / recover 1 of 2``."""
    return next((group for word, group in _GROUPS.items() if word in name), "the rest")
