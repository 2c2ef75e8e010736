"""How long do several models take in several runtimes, at each batch size and number of threads, beside the best dense one?

Whoever prunes for speed could have picked the fastest runtime for the dense model instead: that is the baseline of each cell.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import torch

from prunus.core.errors import MissingExtraError, ModelError, RecipeError, UnknownNameError, near
from prunus.core.events import Event, Listener, silent
from prunus.core.runtime import versions
from prunus.core.types import Floats, Measurement
from prunus.evaluate.timing.bench_runtimes import RUNTIMES, BenchRuntime, Compiled, Subject
from prunus.evaluate.timing.contest import Contestant, clock_for, milliseconds, paired_speedup, take_turns
from prunus.evaluate.timing.latency_table import machine_facts

__all__ = ["DENSE", "bench_subjects", "n_cores"]

DENSE = "dense"
"""The name of the model that the others are compared with."""
Key = tuple[str, str]
"""(model, runtime)."""


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
    known: Sequence[BenchRuntime] = RUNTIMES,
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
        raise MissingExtraError(f"no runtime to time in: {missing[0]['called']} is {missing[0]['reason']}")
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
    begun = [(r, name) for r in runtimes for name, subject in subjects.items() if r.reads(subject)]
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
