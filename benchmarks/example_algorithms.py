"""What does it cost to judge a million examples: wrong labels, near-duplicates, coverage?

Usage: python benchmarks/example_algorithms.py [--only duplicates] [--repetitions 3] [--scale 1]

One thread. Every cell is a process of its own; prunus and its peer (where one is installed) take turns. The table has the
median of processor seconds, their spread, and the peak of memory above what stands before the call, in which the input is.
``--scale 0.1`` runs a tenth of the rows. Peers: cleanlab (``pip install cleanlab``) for confident learning, and a plain loop
for k-centre, on a twentieth of the picks (its cost is proportional to them). For near-duplicates every pair would have to be
compared: 10^14 multiplications. Memory is read from Linux's /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MILLION = 1_000_000


def main() -> None:
    """Run the cells in turns and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="part of an operation's name")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(CELLS[arguments.cell](arguments.scale)))
        return
    chosen = [name for name in CELLS if arguments.only in name]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    for _ in range(arguments.repetitions):
        for name in chosen:
            rows[name].append(_in_a_process(name, arguments.scale))
    print("| operation | input | processor seconds, median (spread) | MB above | what came out |")
    print("| --- | --- | --- | --- | --- |")
    for name, found in rows.items():
        done = [row for row in found if "seconds" in row]
        if not done:
            print(f"| {name} | | not run: {found[0]['missing']} | | |")
            continue
        seconds = sorted(row["seconds"] for row in done)
        spread = f"{statistics.median(seconds):.2f} ({seconds[0]:.2f} to {seconds[-1]:.2f})"
        print(f"| {name} | {done[0]['input']} | {spread} | {max(row['mb'] for row in done):.0f} | {done[0]['found']} |")


def _in_a_process(name: str, scale: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--cell", name, "--scale", str(scale)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return {"missing": (done.stderr.strip().splitlines() or ["no word"])[-1]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _measured(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what ``work`` gives, its processor seconds and the peak of memory above what stood before."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before, start = _megabytes("VmRSS"), time.process_time()
    found = work()
    seconds = time.process_time() - start
    return found, seconds, _megabytes("VmHWM") - before


def _megabytes(name: str) -> float:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1024


def _labels(n: int, classes: int) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    truth = random.integers(0, classes, n)
    logits = random.standard_normal((n, classes), dtype=np.float32)
    logits[np.arange(n), truth] += 4
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    flipped = random.random(n) < 0.1
    return logits, np.where(flipped, (truth + random.integers(1, classes, n)) % classes, truth)


def confident(scale: float) -> dict[str, Any]:
    """Confident learning by prunus."""
    from prunus.score import confident_labels

    n = int(MILLION * scale)
    probability, labels = _labels(n, 10)
    found, seconds, mb = _measured(lambda: confident_labels([(probability, labels)]))
    result = f"{found.contradicted.mean():.2%} contradicted"
    return {"input": f"{n:,} x 10", "seconds": seconds, "mb": mb, "found": result}


def confident_cleanlab(scale: float) -> dict[str, Any]:
    """Confident learning by cleanlab, in one process as prunus."""
    from cleanlab.filter import find_label_issues

    n = int(MILLION * scale)
    probability, labels = _labels(n, 10)
    found, seconds, mb = _measured(
        lambda: find_label_issues(labels, probability, filter_by="confident_learning", n_jobs=1)
    )
    return {"input": f"{n:,} x 10", "seconds": seconds, "mb": mb, "found": f"{found.mean():.2%} contradicted"}


def confident_many(scale: float) -> dict[str, Any]:
    """Confident learning over a thousand classes, in shards that are made when they are asked for."""
    from prunus.score import confident_labels

    n = int(MILLION * scale)

    class Shards:
        def __len__(self) -> int:
            return 100

        def __getitem__(self, number: int) -> tuple[Any, Any]:
            random = np.random.default_rng(number)
            probability = random.random((n // 100, 1000), dtype=np.float32)
            labels = random.integers(0, 1000, n // 100)
            probability[np.arange(n // 100), labels] += 50
            probability /= probability.sum(axis=1, keepdims=True)
            return probability, np.where(random.random(n // 100) < 0.1, (labels + 1) % 1000, labels)

    found, seconds, mb = _measured(lambda: confident_labels(Shards()))  # type: ignore[arg-type]
    result = f"{found.contradicted.mean():.2%} contradicted (seconds hold the making of the shards, twice)"
    return {"input": f"{n:,} x 1,000 in 100 shards", "seconds": seconds, "mb": mb, "found": result}


def duplicates(scale: float) -> dict[str, Any]:
    """Near-duplicates by prunus, a tenth of the rows planted with a cosine between 0.99 and 1."""
    from prunus.score import near_duplicates

    n = int(MILLION * scale)
    random = np.random.default_rng(0)
    rows = random.standard_normal((n, 64), dtype=np.float32)
    first, copies = random.choice(n - n // 10, n // 10, replace=False), np.arange(n - n // 10, n)
    unit = rows[first] / np.linalg.norm(rows[first], axis=1, keepdims=True)
    aside = random.standard_normal((n // 10, 64), dtype=np.float32)
    aside -= (aside * unit).sum(axis=1, keepdims=True) * unit
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    cosine = random.uniform(0.990001, 1, (n // 10, 1)).astype(np.float32)
    rows[copies] = cosine * unit + np.sqrt(1 - cosine**2) * aside
    del unit, aside
    found, seconds, mb = _measured(lambda: near_duplicates(rows, cosine=0.99))
    caught = (found.keeper[copies] == found.keeper[first]).mean()
    wrong = (~found.kept).sum() - (found.keeper[copies] == found.keeper[first]).sum()
    result = f"recall {caught:.4f}, {max(wrong, 0)} others"
    return {"input": f"{n:,} x 64, 10 % planted, cosine > 0.99", "seconds": seconds, "mb": mb, "found": result}


def _rows(n: int, kind: str) -> Any:
    random = np.random.default_rng(0)
    rows = random.standard_normal((n, 64), dtype=np.float32)
    if kind == "clusters":
        rows += 2 * random.standard_normal((100, 64), dtype=np.float32)[random.integers(0, 100, n)]
    return rows


def k_centre(scale: float, kind: str = "normal") -> dict[str, Any]:
    """Greedy k-centre by prunus."""
    from prunus.score import farthest_first

    n = int(MILLION * scale)
    rows = _rows(n, kind)
    found, seconds, mb = _measured(lambda: farthest_first(rows, n // 100))
    return {"input": f"{n:,} x 64 ({kind}), 1 %", "seconds": seconds, "mb": mb, "found": f"radius {found.radius:.4f}"}


def k_centre_plain(scale: float) -> dict[str, Any]:
    """Greedy k-centre as a loop over all rows for each pick, for a twentieth of the picks."""
    import torch

    n = int(MILLION * scale)
    rows = torch.from_numpy(_rows(n, "normal"))
    norms = rows.square().sum(dim=1)

    def loop() -> float:
        nearest = torch.full((n,), torch.inf)
        pick = int((rows - rows.mean(dim=0)).square().sum(dim=1).argmin())
        for _ in range(n // 2000):
            nearest = torch.minimum(nearest, torch.addmv(norms + norms[pick], rows, rows[pick], alpha=-2))
            pick = int(nearest.argmax())
        return float(nearest.max()) ** 0.5

    _, seconds, mb = _measured(loop)
    result = f"{20 * seconds:.0f} s for all picks, if each costs the same"
    return {"input": f"{n:,} x 64 (normal), 0.05 %", "seconds": seconds, "mb": mb, "found": result}


CELLS: dict[str, Callable[[float], dict[str, Any]]] = {
    "confident learning, prunus": confident,
    "confident learning, cleanlab": confident_cleanlab,
    "confident learning of many classes, prunus": confident_many,
    "near-duplicates, prunus": duplicates,
    "k-centre, prunus": k_centre,
    "k-centre in clusters, prunus": lambda scale: k_centre(scale, "clusters"),
    "k-centre, a plain loop": k_centre_plain,
}

if __name__ == "__main__":
    main()
