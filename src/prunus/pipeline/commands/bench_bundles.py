"""How fast are bundles and their dense model, in every runtime that is installed?

Whoever prunes for speed could have picked the fastest runtime for the dense model instead: that is what a pruned model is compared
with, for each batch size and number of threads. One that isn't measurably faster than it is called that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunus import models
from prunus.core.code.imports import one_line
from prunus.core.errors import BundleError, ModelError, RecipeError, UnknownNameError, near, raise_if_out_of_memory
from prunus.core.events import Event, Listener, silent
from prunus.core.files.plain_files import open_plain
from prunus.core.recipes.recipe import Model
from prunus.core.runtime import versions
from prunus.core.types import Floats, Measurement
from prunus.evaluate.timing.bench_runtimes import RUNTIMES, BenchRuntime, Compiled, Subject
from prunus.evaluate.timing.contest import Contestant, clock_for, milliseconds, paired_speedup, take_turns
from prunus.evaluate.timing.latency_table import machine_facts
from prunus.evaluate.timing.onnx_session import OnnxModel
from prunus.pipeline.shipping import bundle_folder, dense_folder
from prunus.ship import Bundle, load_bundle
from prunus.ship.mnn.mnn_timing import Mnn
from prunus.ship.raw_model import RawModel, raw_inputs

__all__ = ["BENCH_RUNTIMES", "bench_bundles", "bench_subjects", "n_cores"]

BENCH_RUNTIMES: tuple[BenchRuntime, ...] = (*RUNTIMES, Mnn())
DENSE = "dense"
_INT8_APART = 0.3
"""How far runtimes may be apart on a file of whole numbers, of the largest output: they round at other places."""
Key = tuple[str, str]
"""(model, runtime)."""


@dataclass
class _Entry:
    """A model that takes part: by what name, where from, and what is told of it."""

    name: str
    subject: Subject
    facts: dict[str, Any] = field(default_factory=dict)


def bench_bundles(
    paths: Sequence[Path],
    *,
    dense: Path | None = None,
    batch_sizes: Sequence[int] = (1, 32),
    threads: Sequence[int] | None = None,
    runtimes: Sequence[str] | None = None,
    repeats: int = 30,
    warm_up: int = 5,
    seed: int = 0,
    trust_code: bool = False,
    listener: Listener = silent,
) -> dict[str, Any]:
    """Return how long each bundle and the dense model take, in each runtime, at each batch size and number of threads.

    Args:
        paths: bundles, or runs that have one; and ONNX files of their models, in int8, say.
        dense: the dense model's bundle; default: that of the run which the first bundle comes from, or the structure that its
            builder makes, or the first bundle itself where others follow.
        threads: default: one, and as many as there are processors.
        runtimes: names of ``BENCH_RUNTIMES``; default: all that are installed.
        repeats: rounds that count; in each, every model in every runtime takes a turn.

    Raises:
        BundleError: there is no bundle, a damaged one, or none that could be the dense one.
        RecipeError: a runtime is unknown, a number isn't at least one, or the bundles take different inputs.
        MissingExtraError: a runtime that was asked for isn't installed.
    """
    files = [path for path in paths if path.suffix == ".onnx"]
    folders = [bundle_folder(path) for path in paths if path not in files]
    if not folders:
        raise RecipeError(
            f"a file is timed beside a bundle, which says what it takes: got {', '.join(map(str, paths))}"
        )
    if len({*folders, *files}) < len(paths):
        raise RecipeError(f"every bundle may be given once: got {', '.join(map(str, paths))}")
    bundles = [load_bundle(folder, trust_code=trust_code) for folder in folders]
    given = None if dense is None else bundle_folder(dense)
    entries = _entries(folders, bundles, given, trust_code)
    entries += [_of_file(path, bundles[0]) for path in files]
    takes = bundles[0].manifest.takes
    example = {size: raw_inputs(bundles[0], takes, size) for size in {2, *batch_sizes}}
    return bench_subjects(
        {entry.name: entry.subject for entry in entries},
        example,
        facts={entry.name: entry.facts for entry in entries},
        threads=threads,
        batch_sizes=batch_sizes,
        runtimes=runtimes,
        repeats=repeats,
        warm_up=warm_up,
        seed=seed,
        listener=listener,
    )


def bench_subjects(
    subjects: dict[str, Subject],
    inputs: dict[int, Any],
    *,
    facts: dict[str, dict[str, Any]] | None = None,
    batch_sizes: Sequence[int] = (1, 32),
    threads: Sequence[int] | None = None,
    runtimes: Sequence[str] | None = None,
    repeats: int = 30,
    warm_up: int = 5,
    seed: int = 0,
    listener: Listener = silent,
    known: Sequence[BenchRuntime] = BENCH_RUNTIMES,
) -> dict[str, Any]:
    """Return how long models take; the one called ``dense`` is what the others are compared with.

    Args:
        inputs: a batch of each size.
        known: the runtimes that there are.
    """
    counts = tuple(threads) if threads is not None else tuple(sorted({1, n_cores()}))
    for what, values in (("batch sizes", batch_sizes), ("threads", counts)):
        if not values or min(values) < 1 or len(set(values)) < len(values):
            raise RecipeError(f"{what} must be different numbers of at least 1: got {list(values)}")
    if repeats < 5 or warm_up < 1:
        raise RecipeError(f"repeats must be at least 5 and warm-up at least 1: got {repeats} and {warm_up}")
    chosen, missing = _chosen(runtimes, known)
    cells, failed = [], []
    before, load = torch.get_num_threads(), _load()
    try:
        for n_threads in sorted(counts):  # one thread first, before pools of several are there
            torch.set_num_threads(n_threads)
            for size in batch_sizes:
                cell = _cell(subjects, inputs[size], size, n_threads, chosen, repeats, warm_up, seed, listener)
                failed += cell.pop("failed")
                cells.append(cell)
    finally:
        torch.set_num_threads(before)
    about = machine_facts("torch")
    return {
        "machine": {key: about[key] for key in ("processor", "cores")} | {"load": load, "versions": versions()},
        "seed": seed,
        "repeats": repeats,
        "warm_up": warm_up,
        "models": [{"name": name, **(facts or {}).get(name, {})} for name in subjects],
        "runtimes": [{"name": runtime.name, "called": runtime.called} for runtime in chosen],
        "missing": missing,
        "failed": failed,
        "cells": cells,
        "verdict": _verdict(cells, [name for name in subjects if name != DENSE]),
    }


def n_cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load() -> float | None:
    """Return how many processes wanted a processor in the last minute, before anything was timed; None where nobody counts."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _chosen(
    names: Sequence[str] | None, known: Sequence[BenchRuntime]
) -> tuple[list[BenchRuntime], list[dict[str, str]]]:
    """Return the runtimes to time in, and which aren't there, with what would install them."""
    by_name = {runtime.name: runtime for runtime in known}
    for name in names or ():
        if name not in by_name:
            raise UnknownNameError(f"unknown runtime {name!r}: {near(name, by_name)}")
    asked = [by_name[name] for name in dict.fromkeys(names)] if names else list(known)
    missing = [{"name": r.name, "called": r.called, "reason": why} for r in asked if (why := r.missing())]
    there = [runtime for runtime in asked if not runtime.missing()]
    if not there:
        raise RecipeError(f"no runtime to time in: {missing[0]['called']} is {missing[0]['reason']}")
    return there, missing


def _cell(
    subjects: dict[str, Subject],
    inputs: Any,
    size: int,
    threads: int,
    runtimes: Sequence[BenchRuntime],
    repeats: int,
    warm_up: int,
    seed: int,
    listener: Listener,
) -> dict[str, Any]:
    """Time all models in all runtimes on one batch with one number of threads."""
    stage = f"batch of {size}, {threads} thread{'s' * (threads > 1)}"
    ready: dict[Key, Contestant] = {}
    failed: list[dict[str, Any]] = []
    if any(isinstance(runtime, Compiled) for runtime in runtimes):
        torch._dynamo.reset()  # what was compiled for other sizes
    listener(Event("start", stage))
    began = time.perf_counter()
    begun = [
        (r, name) for r in runtimes for name, subject in subjects.items() if r.reads_files or not subject.file_only
    ]
    try:
        for number, (runtime, name) in enumerate(begun):
            listener(Event("progress", f"{stage}: make ready", done=number, total=len(begun)))
            try:
                ready[name, runtime.name] = runtime.start(subjects[name], inputs, threads)
            except ModelError as error:
                told = {"model": name, "runtime": runtime.name, "batch_size": size, "threads": threads}
                failed.append(told | {"reason": str(error)})
                listener(Event("note", stage, f"{name} isn't timed in {runtime.called}: {error}"))
        listener(Event("end", f"{stage}: make ready", facts={"seconds": time.perf_counter() - began}))

        def tick(done: int, total: int) -> None:
            listener(Event("progress", stage, done=done, total=total))

        taken = take_turns(ready, repeats=repeats, warm_up=warm_up, seed=seed, tick=tick)
    finally:
        for contestant in ready.values():
            contestant.close()
    return {
        "batch_size": size,
        "threads": threads,
        "clock": clock_for(threads),
        "failed": failed,
        **_judged(taken, runtimes, seed),
    }


def _judged(taken: dict[Key, Floats], runtimes: Sequence[BenchRuntime], seed: int) -> dict[str, Any]:
    """Return times, the best dense one as the baseline, and how many times as fast as that each other is."""
    called = {runtime.name: runtime.called for runtime in runtimes}
    times = {key: milliseconds(seconds) for key, seconds in taken.items()}
    dense = [key for key in taken if key[0] == DENSE]
    baseline = min(dense, key=lambda key: times[key].value, default=None)

    def speedup(key: Key) -> Measurement | None:
        return None if baseline is None or key[0] == DENSE else paired_speedup(taken[baseline], taken[key], seed=seed)

    rows = []
    for key, spent in times.items():
        found = speedup(key)
        rows.append(
            {
                "model": key[0],
                "runtime": key[1],
                "milliseconds": spent.to_dict(),
                "speedup": found and found.to_dict(),
            }
        )
    best = []
    for model in dict.fromkeys(key[0] for key in taken):
        fastest = min((key for key in taken if key[0] == model), key=lambda key: times[key].value)
        best.append(next(row for row in rows if (row["model"], row["runtime"]) == fastest))
    told = baseline and {
        "runtime": baseline[1],
        "called": called[baseline[1]],
        "milliseconds": times[baseline].to_dict(),
    }
    return {"baseline": told, "times": rows, "best": best}


def _verdict(cells: Sequence[dict[str, Any]], models: Sequence[str]) -> list[dict[str, Any]]:
    """Return of each model where it is measurably faster than the best dense one, and where it isn't."""
    found = []
    for model in models:
        faster: list[dict[str, Any]] = []
        slower: list[dict[str, Any]] = []
        for cell in cells:
            row = next((row for row in cell["best"] if row["model"] == model), None)
            if row is None or row["speedup"] is None:
                continue
            place = {"batch_size": cell["batch_size"], "threads": cell["threads"], "runtime": row["runtime"]}
            place |= {"baseline": cell["baseline"]["runtime"], "speedup": row["speedup"]}
            (faster if row["speedup"]["low"] > 1 else slower).append(place)
        found.append({"model": model, "faster": faster, "not_faster": slower})
    return found


def _entries(folders: Sequence[Path], bundles: Sequence[Bundle], given: Path | None, trust_code: bool) -> list[_Entry]:
    """Return the dense model and the others, by name."""
    names = _names(folders)
    first = bundles[0]
    if given is not None:
        dense = _of_bundle(DENSE, given, load_bundle(given, trust_code=trust_code))
    elif (beside := dense_folder(folders[0])) is not None:
        dense = _of_bundle(DENSE, beside, load_bundle(beside, trust_code=trust_code))
    elif len(bundles) > 1:
        dense, bundles, names, folders = _of_bundle(DENSE, folders[0], first), bundles[1:], names[1:], folders[1:]
    else:
        dense = _rebuilt(folders[0], first, trust_code)
    entries = [dense, *(_of_bundle(name, f, b) for name, f, b in zip(names, folders, bundles, strict=True))]
    for entry in entries[1:]:
        if entry.facts["takes"] != first.manifest.takes:
            raise RecipeError(
                f"{entry.facts['bundle']}: it takes other inputs than {folders[0]}: bundles that are timed together take the same"
            )
    for entry in entries:
        del entry.facts["takes"]
    return entries


def _names(folders: Sequence[Path]) -> list[str]:
    """Return what bundles are called: ``pruned`` if there is one, else what tells their paths apart."""
    if len(folders) == 1:
        return ["pruned"]
    named = [str(folder.parent if folder.name == "bundle" else folder) for folder in folders]
    return [f"{name} (bundle)" if name == DENSE else name for name in named]


def _of_bundle(name: str, folder: Path, bundle: Bundle) -> _Entry:
    facts = {"bundle": str(folder), "sha256": bundle.sha256, "kind": bundle.kind, "takes": bundle.manifest.takes}
    return _entry(name, RawModel(bundle), bundle, facts)


def _entry(name: str, model: nn.Module, bundle: Bundle, facts: dict[str, Any]) -> _Entry:
    counted = {"parameters": sum(p.numel() for p in model.parameters())}
    return _Entry(name, Subject(model, raw_inputs(bundle, bundle.manifest.takes, 2)), facts | counted)


def _of_file(path: Path, like: Bundle) -> _Entry:
    """Return an exported file that takes what a bundle takes; its size in bytes is told."""
    try:
        with open_plain(path) as opened:
            file = opened.read()
    except OSError as error:
        raise BundleError(f"{path}: it can't be read: {error.strerror or error}") from error
    try:
        model = _File(file)
    except Exception as error:
        raise_if_out_of_memory(error)
        raise ModelError(f"{path}: ONNX Runtime can't open it: {one_line(error)[:200]}") from error
    example = raw_inputs(like, like.manifest.takes, 2)
    subject = Subject(model, example, file, file_only=True, most_apart=_INT8_APART)
    return _Entry(str(path), subject, {"file": str(path), "size_bytes": len(file)})


class _File(nn.Module):
    """What ONNX Runtime answers for a file: other runtimes are to answer likewise."""

    def __init__(self, file: bytes) -> None:
        super().__init__()
        self._session = OnnxModel(file, threads=1)

    def forward(self, *inputs: Any, **named: Any) -> list[Tensor]:
        """Return all outputs."""
        return self._session.outputs(named or inputs)


def _rebuilt(folder: Path, bundle: Bundle, trust_code: bool) -> _Entry:
    """Return the dense structure that the bundle's builder makes; its weights are drawn, which time doesn't depend on."""
    manifest = bundle.manifest
    builder: Callable[[], nn.Module] | None = _dense_builder(bundle, trust_code)
    if builder is None:
        raise BundleError(
            f"{folder}: there is no dense model to compare with: it isn't beside the bundle, and the bundle doesn't know how to "
            f"build it{'' if trust_code or manifest.model.builder is None else ' without --trust-code'}; name it (--dense BUNDLE)"
        )
    try:
        model = builder()
    except Exception as error:
        raise_if_out_of_memory(error)
        raise BundleError(f"{folder}: its builder doesn't make the dense model: {one_line(error)}") from error
    whole = Bundle(model.eval(), manifest, bundle.scaler, bundle.target_scaler, "", "eager")
    facts = {"bundle": None, "weights": "drawn", "takes": manifest.takes}
    return _entry(DENSE, RawModel(whole), whole, facts)


def _dense_builder(bundle: Bundle, trust_code: bool) -> Callable[[], nn.Module] | None:
    """Return what makes the dense structure of a bundle; None where it can't be had."""
    source, manifest = bundle.manifest.model, bundle.manifest
    if source.builder is None or (source.needs_code and not trust_code):
        return None
    config = Model(builder=source.builder, args=source.args)
    return lambda: models.build(config, input_shape=manifest.input_shape, n_outputs=manifest.n_outputs, seed=0)
