"""What does a training wait for when it reads the rows that stay from files, and how much memory does that take?

Usage: python benchmarks/kept_rows.py [--rows 1000000] [--repetitions 5] [--folder FOLDER]

Half of the rows stay. The loop trains a small network in batches of 256. The same loop over the same rows in memory, shuffled, is
the bar; all ways take turns in one process, on one thread for the loop, after an epoch that isn't counted. Seconds are of the
clock, and of the processor in the loop's own process: what workers do beside it doesn't count there, which says more on a machine
with other work. Ratios are those of neighbours in time, with their median and spread. Memory is the largest that this process and
its workers hold together while an epoch runs, without what is mapped from files, in a process of its own; with 2 workers, or none
for the map.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

import prunus

WIDTH, BATCH = 32, 256
MODELS = {"32-256-256-10": (256, 256), "32-64-10": (64,)}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files lie, or are written to")
    parser.add_argument("--memory", choices=["loader", "mapped"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        data = write(folder, arguments.rows)
        if arguments.memory:
            print(peak_mb(data, arguments.rows, arguments.memory))
            return
        print(
            "| network | what is read | seconds an epoch | over the loop in memory | the same, processor seconds of the loop |\n"
            "| --- | --- | --- | --- | --- |"
        )
        for name, widths in MODELS.items():
            compare(name, widths, data, arguments.rows, arguments.repetitions)
        print("\n| rows | what is read | MB, this process and its workers |\n| --- | --- | --- |")
        for rows in (arguments.rows, 10 * arguments.rows):
            for way in ("loader", "mapped"):
                command = [sys.executable, __file__, "--rows", str(rows), "--memory", way, "--folder", str(folder)]
                mb = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]
                print(f"| {rows:,} | {way} | {mb} |", flush=True)


def write(folder: Path, n: int) -> Path:
    """Return a folder with that many rows in files of row groups of 65,536."""
    data = folder / f"rows-{n}"
    data.mkdir(parents=True, exist_ok=True)
    each = min(n, 1_000_000)
    for number in range(max(n // each, 1)):
        path = data / f"part-{number}.parquet"
        if not path.exists():
            random = np.random.default_rng(number)
            columns = {f"x{j}": random.standard_normal(each, dtype=np.float32) for j in range(WIDTH)}
            pq.write_table(pa.table({**columns, "label": random.integers(0, 10, each)}), path, row_group_size=1 << 16)
    return data


def kept(data: Path, n: int) -> prunus.data.KeptRows:  # type: ignore[name-defined]
    """Return half of the rows."""
    return prunus.kept_rows(data, np.random.default_rng(0).random(n) < 0.5, target="label")


def in_memory(inputs: Tensor, targets: Tensor, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled batches of tensors."""
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(epoch))
    for rows in order.split(BATCH):
        yield inputs[rows], targets[rows]


def train(widths: tuple[int, ...], batches: Iterable[Any]) -> tuple[float, float]:
    """Train for an epoch, and return its seconds, of the clock and of this process."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in zip((WIDTH, *widths[:-1]), widths, strict=True):
        layers += [nn.Linear(before, after), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(widths[-1], 10))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    start = time.perf_counter(), time.process_time()
    for batch in batches:
        inputs, targets = batch[-2:]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def compare(name: str, widths: tuple[int, ...], data: Path, n: int, repetitions: int) -> None:
    """Print what each way takes, in turns with the loop in memory."""
    rows = kept(data, n)
    mapped = rows.mapped(data.with_name(f"{data.name}-mapped"))
    _, inputs, targets = mapped[:]
    streamed: Any = DataLoader(rows.stream(BATCH), batch_size=None, num_workers=2, persistent_workers=True)
    sampler = BatchSampler(RandomSampler(mapped), BATCH, drop_last=False)
    by_index: Any = DataLoader(mapped, sampler=sampler, batch_size=None)
    loaders = {workers: rows.loader(BATCH, num_workers=workers) for workers in (0, 1, 2)}
    ways: dict[str, Callable[[], Iterable[Any]]] = {
        "tensors in memory": lambda: in_memory(inputs, targets, 0),
        **{f"loader, {workers} workers": lambda loader=loader: loader for workers, loader in loaders.items()},
        "stream in a DataLoader, 2 workers": lambda: streamed,
        "index of a memory map, no workers": lambda: by_index,
    }
    for batches in ways.values():
        train(widths, batches())  # workers start once, and files are in the system's cache
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(repetitions):
        for way, batches in ways.items():
            seconds[way].append(train(widths, batches()))
    base = seconds["tensors in memory"]
    for way, found in seconds.items():
        told = []
        for which in (0, 1):
            ratios = sorted(a[which] / b[which] for a, b in zip(found, base, strict=True))
            told.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        print(f"| {name} | {way} | {statistics.median(a for a, _ in found):.2f} | {told[0]} | {told[1]} |", flush=True)


def peak_mb(data: Path, n: int, way: str) -> str:
    """Return how much memory an epoch with two workers takes at most, without what is mapped from files."""
    rows = kept(data, n)
    loader: Any
    if way == "loader":
        loader = rows.loader(BATCH, num_workers=2)
    else:
        mapped = rows.mapped(data.with_name(f"{data.name}-mapped"))
        sampler = BatchSampler(RandomSampler(mapped), BATCH, False)
        loader = DataLoader(mapped, sampler=sampler, batch_size=None)
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            peak[0] = max(peak[0], sum(held_kb(pid) for pid in ("self", *children)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in loader:
        pass
    done.set()
    watcher.join()
    return f"{peak[0] / 1e3:.0f}"


def held_kb(pid: str) -> int:
    """Return what a process holds of memory of its own, and of what it shares with others."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    facts = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return facts["Pss_Anon"] + facts["Pss_Shmem"]


if __name__ == "__main__":
    main()
