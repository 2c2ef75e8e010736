"""What does it cost to score a data set that is many files: in one process, in two, on two nodes of a Ray cluster, with Ray Data?

Usage: python benchmarks/dispatch.py [--rows 1,10,50] [--repetitions 3,3,1] [--folder FOLDER] [--only NAME] [--keep FILE]

Millions of rows of 32 numbers and a label in Parquet; each row gets its cross-entropy under a small network, in a file for each
shard. Every cell is a process of its own, with all that it starts (a cluster's daemons, too), and those of one size take turns. The
bare loop writes the same column with pyarrow and torch, one thread, with no thought of resuming. Ray Data reads, maps and writes on
the same two nodes, with a gigabyte of object store each. The time between two sizes is free of what it takes to start. More rows
than ten million are links to the same files, so that they need no disk. What was measured goes to ``--keep``, a line for each run,
and the tables are of all that stands there; ``--rows ""`` measures nothing new.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from dispatch_load import (
    COLUMNS,
    Losses,
    Opens,
    hash_of,
    loopback_cluster,
    losses,
    mapped,
    network,
    watched,
    write_shards,
)

from prunus.scale import score_shards
from prunus.scale.dispatch import Dispatch

MILLION = 1_000_000
SHARD_ROWS = 250_000
BATCH_ROWS = 65_536


def main() -> None:
    """Run the cells in turns and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", default="1,10", help="millions of rows")
    parser.add_argument("--repetitions", default="3", help="of each size")
    parser.add_argument("--keep", type=Path, help="a file for the rows that were measured, which are added to it")
    parser.add_argument("--folder", type=Path, help="where the files lie, or are written to")
    parser.add_argument("--only", default="", help="part of a cell's name")
    parser.add_argument("--small", action="store_true", help="measure instead what the driver spends on a shard")
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        name, shards, output = arguments.cell
        torch.set_num_threads(1)
        CELLS[name](Path(shards), Path(output))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if arguments.small:
            _small(folder, arguments.only)
            return
        sizes = [int(size) for size in arguments.rows.split(",") if size]
        repetitions = [int(n) for n in arguments.repetitions.split(",")]
        repetitions += repetitions[-1:] * (len(sizes) - len(repetitions))
        kept = arguments.keep or folder / "rows.jsonl"
        chosen = [name for name in CELLS if arguments.only in name]
        for size, n in zip(sizes, repetitions, strict=False):
            _size(folder, size, chosen, n, kept)
        _print([json.loads(line) for line in kept.read_text().splitlines()])


def _size(folder: Path, size: int, chosen: list[str], repetitions: int, kept: Path) -> None:
    shards = _shards(folder, size)
    for _ in range(repetitions):
        for name in chosen:
            output = folder / "output"
            shutil.rmtree(output, ignore_errors=True)
            row = watched([sys.executable, __file__, "--cell", name, str(shards), str(output)])
            row |= {"hash": hash_of(output), "rows": _n_rows(output), "size": size, "name": name}
            with kept.open("a") as file:
                print(json.dumps(row), file=file)
    shutil.rmtree(folder / "output", ignore_errors=True)


def _small(folder: Path, only: str) -> None:
    print("| shards of 1,000 rows | how | milliseconds of the driver's processor for each |")
    print("| --- | --- | --- |")
    for n in (1000, 4000):
        write_shards(folder / "small" / str(n), n, 1000)
        for name in ("local, 2 workers", "ray, 2 nodes"):
            if only not in name:
                continue
            output = folder / "output"
            shutil.rmtree(output, ignore_errors=True)
            command = [sys.executable, __file__, "--cell", name, str(folder / "small" / str(n)), str(output)]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            print(f"| {n} | {name} | {1000 * float(told.split()[-1]) / n:.1f} |", flush=True)
            shutil.rmtree(output, ignore_errors=True)


def _shards(folder: Path, size: int) -> Path:
    n = size * MILLION // SHARD_ROWS
    base = write_shards(folder / "base", min(n, 40), SHARD_ROWS)
    own = folder / f"{size}m"
    own.mkdir(exist_ok=True)
    for number in range(n):
        path = own / f"part-{number:04d}.parquet"
        if not path.exists():
            os.link(base[number % len(base)], path)
    return own


def _n_rows(output: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in output.glob("*.parquet"))


def _bare(shards: Path, output: Path) -> None:
    model = network()
    output.mkdir()
    for path in sorted(shards.glob("*.parquet")):
        made = [
            pa.table({"loss": losses(model, batch)})
            for batch in pq.ParquetFile(path).iter_batches(BATCH_ROWS, columns=[*COLUMNS, "y"])
        ]
        pq.write_table(pa.concat_tables(made), output / path.name, compression="zstd", compression_level=1)


def _prunus(shards: Path, output: Path, dispatch: Dispatch) -> None:
    used = time.process_time()
    done = score_shards(
        [shards], output, Opens(Losses), settings={}, backend=dispatch, batch_rows=BATCH_ROWS, listener=_told
    )
    if done.failed:
        raise RuntimeError(str(done.failed))
    print(done.seconds, time.process_time() - used)


def _told(event: Any) -> None:
    if event.kind == "note":
        print(event.message, file=sys.stderr)


def _local(workers: int) -> Callable[[Path, Path], None]:
    return lambda shards, output: _prunus(shards, output, Dispatch(workers=workers))


def _ray(shards: Path, output: Path) -> None:
    with loopback_cluster(2) as cluster:
        _prunus(shards, output, Dispatch(backend="ray", workers=2, address=cluster.address))


def _ray_data(shards: Path, output: Path) -> None:
    with loopback_cluster(2, store_bytes=1 << 30) as cluster:
        import ray

        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = ray.data.read_parquet(str(shards)).select_columns([*COLUMNS, "y"])
        scored = rows.map_batches(
            mapped, batch_size=BATCH_ROWS, batch_format="pyarrow"
        )  # tasks: its reads fuse with them
        scored.write_parquet(str(output))


CELLS: dict[str, Callable[[Path, Path], None]] = {
    "bare loop": _bare,
    "local, 1 worker": _local(1),
    "local, 2 workers": _local(2),
    "ray, 2 nodes": _ray,
    "Ray Data, 2 nodes": _ray_data,
}


def _print(kept: list[dict[str, Any]]) -> None:
    found: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for size in sorted({row["size"] for row in kept}):
        cells = {name: [row for row in kept if (row["size"], row["name"]) == (size, name)] for name in CELLS}
        found[size] = {name: rows for name, rows in cells.items() if rows}
    print(
        "| rows | how | seconds, median (spread) | processor seconds | rows per processor second | most MB | scores |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for size, cells in found.items():
        for name, rows in cells.items():
            seconds, processor = _spread(rows, "seconds"), statistics.median(row["processor"] for row in rows)
            most, hashes = max(row["mb"] for row in rows), {row["hash"] for row in rows}
            whole = "" if all(row["rows"] == size * MILLION for row in rows) else ", ROWS ARE MISSING"
            shown = next(iter(hashes)) if len(hashes) == 1 else f"{len(hashes)} different"
            print(
                f"| {size} M | {name} | {seconds} | {processor:.1f} | {size * MILLION / processor:,.0f} | {most:.0f} | "
                f"`{shown}`{whole} |"
            )
    sizes = sorted(found)
    for small, large in [*pairwise(sizes), *([(sizes[0], sizes[-1])] if len(sizes) > 2 else [])]:
        print(f"\nFrom {small} M to {large} M rows, so without what it takes to start:\n")
        print("| how | rows per second | rows per processor second | MB more |")
        print("| --- | --- | --- | --- |")
        for name in found[large]:
            if name not in found[small]:
                continue
            few, many = found[small][name], found[large][name]
            n = (large - small) * MILLION
            wall, processor = (_median(many, key) - _median(few, key) for key in ("seconds", "processor"))
            more = max(row["mb"] for row in many) - max(row["mb"] for row in few)
            print(f"| {name} | {n / wall:,.0f} | {n / processor:,.0f} | {more:+.0f} |")


def _median(rows: list[dict[str, Any]], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def _spread(rows: list[dict[str, Any]], key: str) -> str:
    values = sorted(row[key] for row in rows)
    return f"{statistics.median(values):.1f} ({values[0]:.1f} to {values[-1]:.1f})"


if __name__ == "__main__":
    began = time.perf_counter()
    main()
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
