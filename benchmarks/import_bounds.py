"""What does `prunus import` take at most of a machine when a checkpoint is crafted, and what for an honest one?

``PYTHONPATH=src:tests python benchmarks/import_bounds.py`` runs the whole command's work (a process of its own for each file,
PyTorch and all) on each crafted checkpoint of ``tests/hostile_imports.py`` and on honest ones of 4 kB, 100 MB and 500 MB, and
prints seconds on the clock, processor seconds and the most memory of that process, the smallest of which is what it takes for
itself.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from hostile_imports import CASES, FILE
from prunus.core.errors import WeightsError
from prunus.models.foreign_checkpoint import import_checkpoint


def measured(path: Path) -> tuple[str, float, float, float]:
    """Return what came of an import, seconds, processor seconds and MB of the process that did it, as a fork of this one saw it."""
    reader, writer = os.pipe()
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        try:
            import_checkpoint(path, path.with_name("out.safetensors"))
            said = "imported"
        except WeightsError as error:
            said = f"refused: {str(error).partition(': ')[2]}"
        import resource

        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        os.write(writer, f"{used.ru_utime + used.ru_stime} {used.ru_maxrss / 1024} {said}"[:4000].encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    seconds = time.perf_counter() - began
    with os.fdopen(reader) as pipe:
        processor, megabytes, said = pipe.read().split(" ", 2)
    return said, seconds, float(processor), float(megabytes)


def honest(n_bytes: int) -> Callable[[Path], None]:
    """Return what writes a checkpoint of so many bytes."""
    return lambda folder: torch.save({f"w{k}": torch.randn(n_bytes // 16) for k in range(4)}, folder / FILE)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--every", type=int, default=1, help="take each such case only")
    given = arguments.parse_args()
    crafted = dict(list(CASES["import"].items())[:: given.every])
    good = {f"honest, {n / 1e6:g} MB": honest(n) for n in (4_000, 100_000_000, 500_000_000)}
    rows = []
    for name, prepare in {**good, **crafted}.items():
        folder = Path(tempfile.mkdtemp())
        try:
            if name not in good:
                torch.save({"w": torch.zeros(4)}, folder / FILE)
            prepare(folder)
            rows.append((name, *measured(folder / FILE)))
        finally:
            shutil.rmtree(folder)
    print("| checkpoint | what came of it | seconds | processor seconds | MB |")
    print("| --- | --- | --- | --- | --- |")
    slowest = sorted((row for row in rows if row[0] not in good), key=lambda row: -row[3])
    largest = sorted((row for row in rows if row[0] not in good), key=lambda row: -row[4])
    shown = (
        [row for row in rows if row[0] in good] + slowest[:3] + [row for row in largest[:3] if row not in slowest[:3]]
    )
    for name, said, seconds, processor, megabytes in shown:
        print(f"| {name} | {said[:90]} | {seconds:.1f} | {processor:.1f} | {megabytes:.0f} |")
    for name, said, *_ in rows:
        if name not in good and not said.startswith("refused"):
            print(f"NOT REFUSED: {name}: {said}")
    print(f"{len(rows) - len(good)} crafted checkpoints; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
