"""How long would a billion rows take on 64 nodes, by the terms that were measured on one?

Usage: python benchmarks/dispatch_plan.py ROWS.jsonl --shard-ms 5.0 [--rows 1e9] [--nodes 64] [--cores 16] [--gb-per-second 1]

``ROWS.jsonl`` is what ``benchmarks/dispatch.py --keep`` wrote of two sizes; ``--shard-ms`` is what ``--small`` says that the driver
spends on a shard. The speed of the files that all nodes share is an assumption. Nothing of this was run on a cluster: it is
arithmetic, and each term stands beside where it comes from.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

MILLION = 1_000_000
SHARD_ROWS = 250_000
ROW_BYTES_READ = 32 * 4 + 8
ROW_BYTES_WRITTEN = 4
HOW = "ray, 2 nodes"


def main() -> None:
    """Print the terms, and what they add up to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kept", type=Path)
    parser.add_argument("--shard-ms", type=float, required=True)
    parser.add_argument("--rows", type=float, default=1e9)
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--cores", type=int, default=16)
    parser.add_argument("--gb-per-second", type=float, default=1.0)
    asked = parser.parse_args()
    rate, start_s = terms([json.loads(line) for line in asked.kept.read_text().splitlines()])
    workers = asked.nodes * asked.cores
    n_shards = asked.rows / SHARD_ROWS
    turns = -(-n_shards // workers)
    scoring_s = turns * SHARD_ROWS / rate
    reading_s = asked.rows * (ROW_BYTES_READ + ROW_BYTES_WRITTEN) / (asked.gb_per_second * 1e9)
    driver_s = n_shards * asked.shard_ms / 1000
    print(f"| term | measured | for {asked.rows:.0e} rows on {asked.nodes} nodes of {asked.cores} cores |")
    print("| --- | --- | --- |")
    print(
        f"| scoring | {rate / MILLION:.2f} M rows per processor second | {turns:.0f} files of each worker, {scoring_s:.1f} s |"
    )
    print(f"| start of each worker | {start_s:.1f} processor seconds | {start_s:.1f} s, all at once |")
    print(f"| the driver, one process | {asked.shard_ms:.1f} ms a file | {n_shards:,.0f} files, {driver_s:.0f} s |")
    print(
        f"| reading and writing | {ROW_BYTES_READ} + {ROW_BYTES_WRITTEN} bytes a row | at {asked.gb_per_second:g} GB/s of all "
        f"nodes together (assumed) {reading_s:.0f} s |"
    )
    print(f"\nThey overlap, but for the start: about {start_s + max(scoring_s, driver_s, reading_s):.0f} s.")
    for n_nodes in (1, 2, 4, 8, 16, 32, asked.nodes):
        scoring = -(-n_shards // (n_nodes * asked.cores)) * SHARD_ROWS / rate
        print(f"{n_nodes} nodes: scoring {scoring:.1f} s, in all {start_s + max(scoring, driver_s, reading_s):.0f} s")
    slow = asked.rows * 1e-3 / workers
    print(f"A model that takes a millisecond a row: {slow / 60:.0f} minutes on {workers:,} cores")


def terms(kept: list[dict[str, Any]]) -> tuple[float, float]:
    """Return rows per processor second without the start, and the processor seconds of a worker's start, by two sizes."""
    sizes = sorted({row["size"] for row in kept if row["name"] == HOW})
    used = [
        statistics.median(row["processor"] for row in kept if (row["name"], row["size"]) == (HOW, size))
        for size in sizes
    ]
    rate = (sizes[-1] - sizes[0]) * MILLION / (used[-1] - used[0])
    alone = statistics.median(
        row["processor"] for row in kept if row["name"] == "local, 1 worker" and row["size"] == sizes[0]
    )
    return rate, alone - sizes[0] * MILLION / rate


if __name__ == "__main__":
    main()
