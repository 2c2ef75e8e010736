"""What do workers save, and cost, when they share the calibration set of a round?

Usage: python benchmarks/shared_evidence.py [--examples 3072,8192] [--criterion taylor] [--repeats 3] [--workers 2]

A small convolutional network plans a cut by a criterion that reads the calibration set. One process and several take turns, and
the workers are asked whatever the set takes, so that it is seen from when on they pay. *Seconds* are the stage's, from the first
example until it is decided; *processor seconds* those of all processes, from opening the data to their end.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from prunus.core.events import Event
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline import make_plan
from prunus.pipeline.cut import shared_evidence

SIZE = 24


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", default="3072,8192", help="calibration examples")
    parser.add_argument("--criterion", default="taylor")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    shared_evidence.WORTH_S = 0.0
    print(f"{asked.criterion}, images of {SIZE} x {SIZE}; load of the machine {os.getloadavg()[0]:.1f}\n")
    print("| calibration examples | who | seconds, median (spread) | processor seconds | times as fast, in pairs |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        for n in map(int, asked.examples.split(",")):
            compare(Path(temporary), n, asked)
    print(f"\nLoad at the end {os.getloadavg()[0]:.1f}; every plan of one size was the same to the bit.")


def compare(folder: Path, n: int, asked: argparse.Namespace) -> None:
    """Print the rows of one size."""
    data = folder / f"{n}.npz"
    draw = np.random.default_rng(0)
    labels = np.arange(2 * n) % 10
    np.savez(
        data, x=draw.normal(size=(2 * n, 1, SIZE, SIZE)).astype(np.float32) + labels[:, None, None, None] / 10, y=labels
    )
    found: dict[int, list[tuple[float, float]]] = {1: [], asked.workers: []}
    saliency = set()
    for repeat in range(asked.repeats):
        for workers in found:
            took, used, told = planned(data, folder / f"{n}-{repeat}-{workers}", workers, asked.criterion)
            found[workers].append((took, used))
            saliency.add(told)
    if len(saliency) != 1:
        raise SystemExit(f"{n} examples: the plans differ")
    ratios = sorted(one[0] / more[0] for one, more in zip(found[1], found[asked.workers], strict=True))
    for workers, rows in found.items():
        seconds, used = sorted(row[0] for row in rows), statistics.median(row[1] for row in rows)
        who = "one process" if workers == 1 else f"{workers} workers"
        gain = "" if workers == 1 else f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        spread = f"{statistics.median(seconds):.1f} ({seconds[0]:.1f} to {seconds[-1]:.1f})"
        print(f"| {n:,} | {who} | {spread} | {used:.1f} | {gain} |", flush=True)


def planned(data: Path, output: Path, workers: int, criterion: str) -> tuple[float, float, bytes]:
    """Return the seconds of the stage, the processor seconds of all, and the plan's decisions."""
    tree: dict[str, Any] = {
        "data": {"source": str(data), "split": {"calibration": 0.5, "validation": 0.2, "test": 0.2}},
        "model": {"builder": "cnn", "args": {"width": 32}},
        "train": {"epochs": 1},
        "strategy": {"criterion": criterion, "keep_fraction": 0.5},
        "output": str(output),
        "seeds": [0],
    }
    if workers > 1:
        tree["dispatch"] = {"workers": workers}
    ends: dict[str, float] = {}

    def hear(event: Event) -> None:
        if event.kind == "end" and "/ prune" in event.stage:
            ends[event.stage] = float(event.facts["seconds"])

    start = processor_s()
    make_plan(make_recipe(tree, "r"), listener=hear)
    used = processor_s() - start
    decided = b"".join(path.read_bytes() for path in sorted((output / "plan").iterdir()) if path.name != "plan.json")
    return ends["seed 0 / prune 1 of 1"], used, decided


def processor_s() -> float:
    """Return what this process and its children that ended have used."""
    time.sleep(0.2)
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


if __name__ == "__main__":
    main()
