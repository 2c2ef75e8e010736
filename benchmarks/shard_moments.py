"""What do the moments of the rows of many files cost, and does memory stay as it is when there are more files?

Usage: python benchmarks/shard_moments.py [--files 8,64] [--rows 20000] [--features 256] [--repeats 3]

Beside it stands what a user would write: a loop that adds up sums and products of float64 rows with NumPy, file by file. They take
turns, each in a process of its own on one core; *MB* is the most that any process of it held. *Wrong by* is the largest error of
the covariance, beside that of all rows in memory around their mean, where the features lie 1,000 deviations from zero.
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

HOWS = ("NumPy loop", "1 worker", "2 workers")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", default="8,64")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cell", nargs=3, metavar=("HOW", "FOLDER", "OUTPUT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.cell:
        print(json.dumps(cell(*asked.cell)))
        return
    print(f"{asked.rows:,} rows of {asked.features} float32 a file; load of the machine {os.getloadavg()[0]:.1f}\n")
    print("| files | how | seconds, median (spread) | processor seconds | MB | wrong by |")
    print("| --- | --- | --- | --- | --- | --- |")
    for n in map(int, asked.files.split(",")):
        with tempfile.TemporaryDirectory() as temporary:
            compare(Path(temporary), n, asked)
    print(f"\nLoad at the end {os.getloadavg()[0]:.1f}")


def compare(folder: Path, n: int, asked: argparse.Namespace) -> None:
    """Print the rows of one number of files."""
    data = folder / "data"
    data.mkdir()
    draw = np.random.default_rng(0)
    mix = draw.standard_normal((asked.features, asked.features)) / asked.features**0.5
    for number in range(n):
        rows = draw.standard_normal((asked.rows, asked.features)) @ mix + 1000
        np.save(data / f"part-{number:03}.npy", rows.astype(np.float32))
    exact = in_memory(data)
    found: dict[str, list[dict[str, Any]]] = {how: [] for how in HOWS}
    for repeat in range(asked.repeats):
        for how in HOWS:
            output = folder / f"{how}-{repeat}"
            command = [sys.executable, __file__, "--cell", how, str(data), str(output)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[how].append(json.loads(done.stdout))
    ours = {(row["sha"]) for how in HOWS[1:] for row in found[how]}
    if len(ours) != 1:
        raise SystemExit(f"{n} files: the moments differ")
    for how, rows_of_how in found.items():
        seconds = sorted(row["seconds"] for row in rows_of_how)
        used, most = (statistics.median(row[key] for row in rows_of_how) for key in ("processor", "mb"))
        wrong = np.abs(np.load(folder / f"{how}-0" / "moments.npz")["covariance"] - exact).max()
        spread = f"{statistics.median(seconds):.1f} ({seconds[0]:.1f} to {seconds[-1]:.1f})"
        print(f"| {n} | {how} | {spread} | {used:.1f} | {most:.0f} | {wrong:.0e} |", flush=True)


def in_memory(data: Path) -> Any:
    """Return the covariance of all rows around their mean, in the longest numbers that there are."""
    files = sorted(data.iterdir())
    n = sum(len(np.load(file, mmap_mode="r")) for file in files)
    mean = sum(np.load(file).astype(np.longdouble).sum(axis=0) for file in files) / n
    return sum((part := (np.load(file) - mean).astype(np.float64)).T @ part for file in files) / n


def cell(how: str, folder: str, output: str) -> dict[str, Any]:
    """Return what one way took, in this process."""
    files, place, start = sorted(Path(folder).iterdir()), Path(output), time.perf_counter()
    if how == "NumPy loop":
        covariance = looped(files, place)
    else:
        from prunus.scale import moments_of_shards

        covariance = moments_of_shards(files, place, workers=int(how.split()[0])).covariance
    seconds = time.perf_counter() - start
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "seconds": seconds,
        "processor": sum(one.ru_utime + one.ru_stime for one in both),
        "mb": max(one.ru_maxrss for one in both) / 1024,
        "sha": covariance.tobytes().hex()[:64],
    }


def looped(files: list[Path], place: Path) -> Any:
    """Return the covariance as one would write it down at first."""
    n, total, products = 0, 0.0, 0.0
    for file in files:
        rows = np.load(file).astype(np.float64)
        n, total, products = n + len(rows), total + rows.sum(axis=0), products + rows.T @ rows
    mean = total / n
    covariance = products / n - np.outer(mean, mean)
    place.mkdir()
    np.savez(place / "moments.npz", covariance=covariance)
    return covariance


if __name__ == "__main__":
    main()
