"""What does a whole run take on rows from disk, beside the same run on rows in memory?

Usage: python benchmarks/larger_than_memory.py [--rows 1000000 10000000] [--folder FOLDER] [--most-in-memory 1000000]

A run trains a small network for one epoch on a Parquet file of 32 columns, prunes half of its channels, recovers for one
epoch and measures both. Every run is a process of its own. *Held* is the largest memory that no file on a disk backs, which is
what a limit on memory can't take back; *mapped* is what lies in memory of mapped files besides, which the system drops where it is
short. Processor seconds say more than the clock on a machine with other work. The second table is one epoch of the same training
from disk, by how many threads read ahead: the time of the epoch over that of one from memory, and which share of it the training
waits for its next batch; all ways take turns, and ratios are those of neighbours in time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from prunus.core.recipes.recipe import Data, Recipe
from prunus.data import Examples, prepare
from prunus.data.large import read_ahead

WIDTH, CLASSES, BATCH = 32, 4, 256


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--most-in-memory", type=int, default=1_000_000, help="more rows aren't tried in memory")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files lie, or are written to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        print(
            "| rows | from | held while loading, MB | training | evaluation | at most | mapped, MB | seconds | processor seconds | "
            "on disk, MB |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        for rows in arguments.rows:
            path = write(folder, rows)
            for in_memory in (True, False) if rows <= arguments.most_in_memory else (False,):
                print(line(rows, in_memory, whole_run(path, folder, in_memory=in_memory), folder), flush=True)
        if not arguments.repetitions:
            return
        print(
            f"\n| rows from | threads that read ahead | epoch over memory's, median of {arguments.repetitions} | least to most | "
            "waits for batches, share of the epoch |"
        )
        print("| --- | --- | --- | --- | --- |")
        epochs(write(folder, min(arguments.rows)), folder, arguments.repetitions)


def write(folder: Path, n: int) -> Path:
    """Return a file of that many rows, in row groups of 65,536."""
    path = folder / f"rows-{n}.parquet"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    weights = random.standard_normal((WIDTH, CLASSES)).astype(np.float32)
    schema = pa.schema([*((f"x{j}", pa.float32()) for j in range(WIDTH)), ("label", pa.int64())])
    with pq.ParquetWriter(path, schema) as file:
        for start in range(0, n, 1 << 16):
            x = random.standard_normal((min(1 << 16, n - start), WIDTH), dtype=np.float32)
            label = (x @ weights + random.gumbel(size=(len(x), CLASSES))).argmax(axis=1)
            file.write_table(pa.table([*x.T, label], schema=schema))
    return path


def recipe_of(path: Path, folder: Path, *, in_memory: bool) -> dict[str, Any]:
    """Return the recipe of a run, as JSON, which YAML holds."""
    return {
        "name": "larger-than-memory",
        "data": {"source": str(path), "target": "label", "in_memory": in_memory, "cache": str(folder / "cache")},
        "model": {"builder": "mlp", "args": {"width": 64, "depth": 2}},
        "train": {"epochs": 1, "batch_size": BATCH, "learning_rate": 2e-3},
        "strategy": {"criterion": "taylor", "granularity": "channel", "keep_fraction": 0.5},
        "recovery": {"method": "fine_tune", "epochs": 1, "batch_size": BATCH, "learning_rate": 1e-3},
        "seeds": [0],
        "output": str(folder / "run"),
    }


def whole_run(path: Path, folder: Path, *, in_memory: bool) -> dict[str, dict[str, float]]:
    """Return what the stages of a run took, in a process of its own; nothing was converted before."""
    subprocess.run(["rm", "-rf", str(folder / "cache"), str(folder / "run")], check=True)
    recipe, facts = folder / "recipe.json", folder / "facts.json"
    recipe.write_text(Recipe.model_validate(recipe_of(path, folder, in_memory=in_memory)).model_dump_json())
    command = [sys.executable, "-m", "prunus.pipeline.planner.measured_run", str(recipe), str(facts)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, dict[str, float]] = json.loads(facts.read_text())["stages"]
    return found


def line(rows: int, in_memory: bool, took: dict[str, dict[str, float]], folder: Path) -> str:
    """Return a row of the first table."""

    def held_mb(*words: str) -> float:
        return max(one["peak_bytes"] for name, one in took.items() if any(word in name for word in words)) / 1e6

    mapped = max(one["mapped_bytes"] for one in took.values()) / 1e6
    seconds, cpu = (sum(one[key] for one in took.values()) for key in ("seconds", "cpu_seconds"))
    disk = sum(file.stat().st_size for file in (folder / "cache").rglob("*") if file.is_file()) / 1e6
    held = " | ".join(
        f"{held_mb(*words):.0f}" for words in (("load data",), ("train", "recover"), ("evaluate",), ("",))
    )
    where = "memory" if in_memory else "disk"
    return f"| {rows:,} | {where} | {held} | {mapped:.0f} | {seconds:.0f} | {cpu:.0f} | {disk:.0f} |"


def epochs(path: Path, folder: Path, repetitions: int) -> None:
    """Print how long an epoch takes from disk over what it takes from memory, and how much of it is waiting."""
    parts = {
        name: prepare(Data(source=str(path), in_memory=name == "memory", cache=str(folder / "cache"))).train
        for name in ("memory", "disk")
    }
    ratios: dict[int, list[float]] = {0: [], 1: [], 2: []}
    waits: dict[int, list[float]] = {0: [], 1: [], 2: []}
    waits_in_memory = []
    epoch(parts["memory"], 0)
    for turn in range(repetitions):
        for n_ahead, found in ratios.items():
            read_ahead.READ_AHEAD = n_ahead
            memory, waited_in_memory = epoch(parts["memory"], turn)
            disk, waited = epoch(parts["disk"], turn)
            found.append(disk / memory)
            waits[n_ahead].append(waited / disk)
            waits_in_memory.append(waited_in_memory / memory)
    print(f"| memory | - | 1 | - | {statistics.median(waits_in_memory):.1%} |")
    for n_ahead, found in ratios.items():
        value, waited = statistics.median(found), statistics.median(waits[n_ahead])
        print(f"| disk | {n_ahead} | {value:.2f} | {min(found):.2f} to {max(found):.2f} | {waited:.1%} |", flush=True)


def epoch(examples: Examples, seed: int) -> tuple[float, float]:
    """Return the seconds of one epoch, and those of them that the training waited for its next batch."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    steps = torch.optim.Adam(model.parameters(), lr=2e-3)
    draw, start = torch.Generator().manual_seed(seed), time.perf_counter()
    batches, waited = examples.batches(BATCH, draw), 0.0
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - asked
        if batch is None:
            return time.perf_counter() - start, waited
        steps.zero_grad()
        nn.functional.cross_entropy(model(batch.inputs), batch.targets).backward()
        steps.step()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
