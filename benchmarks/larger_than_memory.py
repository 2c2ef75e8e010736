"""What does a whole run take on rows from disk, beside the same run on rows in memory?

Usage: python benchmarks/larger_than_memory.py [--rows 1000000 10000000] [--folder FOLDER] [--most-in-memory 1000000]

``prunus run`` trains a small network for one epoch on a Parquet file of 32 columns, prunes half of its channels, recovers for one
epoch and measures both. Every run is a process of its own. Memory is the largest private to it (``RssAnon``): what is mapped
from files isn't counted, since the system takes it back where memory is short. Processor seconds say more than the clock on a
machine with other work. The second table is one epoch of the same training, batches as they are asked for, by how many windows are
read ahead; all ways take turns, and ratios are those of neighbours in time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
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

from prunus.core.recipes.recipe import Data
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
        print("| rows | from | private memory, MB | seconds | processor seconds | of them, loading | on disk, MB |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for rows in arguments.rows:
            path = write(folder, rows)
            for in_memory in (True, False) if rows <= arguments.most_in_memory else (False,):
                print(line(rows, in_memory, whole_run(path, folder, in_memory=in_memory)), flush=True)
        print(
            f"\n| windows ahead | seconds an epoch over memory's, median of {arguments.repetitions} | least and most |"
        )
        print("| --- | --- | --- |")
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


def whole_run(path: Path, folder: Path, *, in_memory: bool) -> dict[str, float]:
    """Return what a run took, in a process of its own; nothing was converted before."""
    subprocess.run(["rm", "-rf", str(folder / "cache"), str(folder / "run")], check=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps(recipe_of(path, folder, in_memory=in_memory)))
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "prunus", "run", str(recipe), "--quiet"], stdout=subprocess.DEVNULL
    )
    most = 0.0
    while process.poll() is None:
        most = max(most, private_mb(process.pid))
        time.sleep(0.02)
    assert process.returncode == 0, process.returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    record = json.loads((folder / "run" / "record.json").read_text())
    held = sum(file.stat().st_size for file in (folder / "cache").rglob("*") if file.is_file()) / 1e6
    seconds = time.perf_counter() - start
    return {"mb": most, "seconds": seconds, "cpu": cpu, "load": record["timing"]["seconds"]["load data"], "disk": held}


def private_mb(pid: int) -> float:
    """Return the memory of a process that no file backs."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def line(rows: int, in_memory: bool, took: dict[str, float]) -> str:
    """Return a row of the first table."""
    where = "memory" if in_memory else "disk"
    return (
        f"| {rows:,} | {where} | {took['mb']:.0f} | {took['seconds']:.0f} | {took['cpu']:.0f} | {took['load']:.0f} s | "
        f"{took['disk']:.0f} |"
    )


def epochs(path: Path, folder: Path, repetitions: int) -> None:
    """Print how long an epoch takes from disk over what it takes from memory."""
    parts = {
        name: prepare(Data(source=str(path), in_memory=name == "memory", cache=str(folder / "cache"))).train
        for name in ("memory", "disk")
    }
    ratios: dict[int, list[float]] = {0: [], 1: [], 2: []}
    epoch(parts["memory"], 0)
    for turn in range(repetitions):
        for n_ahead, found in ratios.items():
            read_ahead.READ_AHEAD = n_ahead
            memory, disk = epoch(parts["memory"], turn), epoch(parts["disk"], turn)
            found.append(disk / memory)
    for n_ahead, found in ratios.items():
        print(f"| {n_ahead} | {statistics.median(found):.2f} | {min(found):.2f} to {max(found):.2f} |", flush=True)


def epoch(examples: Examples, seed: int) -> float:
    """Return the seconds of one epoch."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    steps = torch.optim.Adam(model.parameters(), lr=2e-3)
    draw, start = torch.Generator().manual_seed(seed), time.perf_counter()
    for batch in examples.batches(BATCH, draw):
        steps.zero_grad()
        nn.functional.cross_entropy(model(batch.inputs), batch.targets).backward()
        steps.step()
    return time.perf_counter() - start


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
