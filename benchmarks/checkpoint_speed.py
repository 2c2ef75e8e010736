"""How fast is a checkpoint of a billion parameters pruned, against copying its bytes, and in how much memory?

Usage: python benchmarks/checkpoint_speed.py [--parameters 1e9] [--folder /tmp] [--repeats 3]

Writes a synthetic bf16 checkpoint in shards, then copies and prunes it by turns, in another order each round, since what ran before
leaves the disk busy. Both read from the disk (before each turn the checkpoint is dropped from the system's cache, where one that is
larger than memory never is) and write to it (fsync) before the clock stops. ``--warm`` leaves it in the cache. The measure is the
fastest copy of all rounds.
Every pruning runs in a process of its own, whose peak memory is printed; everything that was written is deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WIDTH = 2048
PER_LAYER = 12 * WIDTH * WIDTH
PER_SHARD = 5


def main() -> None:
    """Parse, measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parameters", type=float, default=1e9)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--child", nargs=3, metavar=("IN", "OUT", "HOW"))
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        n_parameters = write(folder / "in", max(1, round(arguments.parameters / PER_LAYER)))
        size = sum(path.stat().st_size for path in (folder / "in").iterdir())
        print(f"{n_parameters / 1e9:.2f} B parameters, {size / 1e9:.2f} GB in bf16")
        seconds: dict[str, list[float]] = {"copy": [], "keep_fraction 0.5": [], "2:4": []}
        worked: dict[str, list[float]] = {how: [] for how in seconds}
        peak = dict.fromkeys(seconds, 0.0)
        ways = list(seconds)
        for turn in range(arguments.repeats):
            for how in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
                times = seconds[how]
                shutil.rmtree(folder / "out", ignore_errors=True)
                if not arguments.warm:
                    forget(folder / "in")
                if how == "copy":
                    before = cpu_seconds()
                    times.append(copy(folder / "in", folder / "out"))
                    worked[how].append(cpu_seconds() - before)
                    continue
                command = [sys.executable, __file__, "--child", str(folder / "in"), str(folder / "out"), how]
                answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                times.append(answer["seconds"])
                worked[how].append(answer["cpu_seconds"])
                print(f"  {how}: {times[-1]:.2f} s", flush=True)
                peak[how] = max(peak[how], answer["peak_bytes"])
        print("| what | seconds (median, range) | GB/s | times the fastest copy | processor seconds | peak memory |")
        print("| --- | --- | --- | --- | --- | --- |")
        for how, times in seconds.items():
            middle = statistics.median(times)
            memory = f"{peak[how] / 1e6:.0f} MB" if peak[how] else ""
            spread = f"{middle:.2f} ({min(times):.2f} to {max(times):.2f})"
            ratios = [mine / min(seconds["copy"]) for mine in times]
            against = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            cpu = f"{statistics.median(worked[how]):.1f}"
            print(f"| {how} | {spread} | {size / 1e9 / middle:.2f} | {against} | {cpu} | {memory} |")


def write(folder: Path, n_layers: int) -> int:
    """Write the checkpoint; return its number of parameters."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    where = {}
    n_shards = -(-n_layers // PER_SHARD)
    for shard in range(n_shards):
        name = f"model-{shard + 1:05d}-of-{n_shards:05d}.safetensors"
        tensors, place = {}, 0
        for layer in range(shard * PER_SHARD, min((shard + 1) * PER_SHARD, n_layers)):
            for part, rows in (("attention", 4 * WIDTH), ("up", 4 * WIDTH), ("down", 4 * WIDTH)):
                key, size = f"model.layers.{layer}.{part}.weight", 2 * rows * WIDTH
                tensors[key] = {"dtype": "BF16", "shape": [rows, WIDTH], "data_offsets": [place, place + size]}
                place += size
                where[key] = name
        header = json.dumps(tensors).encode()
        with (folder / name).open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for _ in tensors:
                for _ in range(4):
                    values = draw.standard_normal(WIDTH * WIDTH, dtype=np.float32) * np.float32(0.02)
                    file.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
            os.fsync(file.fileno())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return n_layers * PER_LAYER


def copy(source: Path, target: Path) -> float:
    """Copy all files to disk; return the seconds."""
    started = time.perf_counter()
    target.mkdir()
    for path in sorted(source.iterdir()):
        shutil.copyfile(path, target / path.name)
        with (target / path.name).open("rb") as file:
            os.fsync(file.fileno())
    return time.perf_counter() - started


def forget(folder: Path) -> None:
    """Drop files from the system's cache."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cpu_seconds() -> float:
    """Return what this process has worked, for itself and in the system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def child(source: str, target: str, how: str) -> None:
    """Prune, and print the seconds and the peak memory of this process."""
    from prunus.scale import prune_shards

    amount = {"n_m": (2, 4)} if how == "2:4" else {"keep_fraction": 0.5}
    started, before = time.perf_counter(), cpu_seconds()
    prune_shards(Path(source), Path(target), **amount)
    answer = {"seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds() - before}
    print(json.dumps({**answer, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    main()
