"""What does it cost to judge a million examples: wrong labels, near-duplicates, coverage, clusters?

Usage: python benchmarks/example_algorithms.py [--only duplicates] [--repetitions 3] [--scale 1]

One thread. Every cell is a process of its own; prunus and its peer (where one is installed) take turns. The table has the
median of processor seconds, their spread, and the peak of memory above what stands before the call, in which the input is.
``--scale 0.1`` runs a tenth of the rows. Peers: cleanlab (``pip install cleanlab``) for confident learning, scikit-learn for
k-means, and a plain loop for k-centre, on a twentieth of the picks (its cost is proportional to them). For near-duplicates every
pair would have to be compared: 10^14 multiplications. Memory is read from Linux's /proc.
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


def facilities(scale: float) -> dict[str, Any]:
    """Greedy facility location by prunus, the neighbours' search included."""
    from prunus.score import facility_location

    n = int(MILLION * scale) // 10
    rows = _rows(n, "clusters")
    found, seconds, mb = _measured(lambda: facility_location(rows, n // 10))
    return {
        "input": f"{n:,} x 64 (clusters), 10 %",
        "seconds": seconds,
        "mb": mb,
        "found": f"{_mean_distance(rows, found.order):.4f} to the nearest pick on average",
    }


def facilities_by_chance(scale: float) -> dict[str, Any]:
    """As many rows by chance: what facility location is to beat in distance."""
    n = int(MILLION * scale) // 10
    rows = _rows(n, "clusters")
    order, seconds, mb = _measured(lambda: np.random.default_rng(1).permutation(n)[: n // 10])
    result = f"{_mean_distance(rows, order):.4f} to the nearest pick on average"
    return {"input": f"{n:,} x 64 (clusters), 10 %", "seconds": seconds, "mb": mb, "found": result}


def _mean_distance(rows: Any, picks: Any) -> float:
    import torch

    some, kept = torch.from_numpy(rows[::20].copy()), torch.from_numpy(rows[picks])
    return float(torch.cdist(some, kept).amin(dim=1).double().mean())


def herd(scale: float) -> dict[str, Any]:
    """Herding by prunus."""
    from prunus.score import herding

    n = int(MILLION * scale) // 10
    rows = _rows(n, "clusters")
    order, seconds, mb = _measured(lambda: herding(rows, n // 10))
    gap = float(np.linalg.norm(rows[order].mean(axis=0) - rows.mean(axis=0)))
    chance = float(np.linalg.norm(rows[: n // 10].mean(axis=0) - rows.mean(axis=0)))
    result = f"{gap:.1e} between the means (by chance {chance:.1e})"
    return {"input": f"{n:,} x 64 (clusters), 10 %", "seconds": seconds, "mb": mb, "found": result}


def nearest(scale: float, clusters: int) -> dict[str, Any]:
    """One pass that gives every row to its nearest centre, by prunus."""
    import torch

    from prunus.score import nearest_centre

    n = int(MILLION * scale)
    rows = _rows(n, "clusters")
    (_, distance), seconds, mb = _measured(
        lambda: nearest_centre(torch.from_numpy(rows), torch.from_numpy(rows[:clusters].copy()))
    )
    result = f"{distance.mean():.4f} to the centre on average"
    return {"input": f"{n:,} x 64, {clusters} centres", "seconds": seconds, "mb": mb, "found": result}


def nearest_scikit_learn(scale: float, clusters: int) -> dict[str, Any]:
    """The same pass by scikit-learn."""
    from sklearn.metrics import pairwise_distances_argmin_min

    n = int(MILLION * scale)
    rows = _rows(n, "clusters")
    (_, distance), seconds, mb = _measured(lambda: pairwise_distances_argmin_min(rows, rows[:clusters].copy()))
    result = f"{distance.mean():.4f} to the centre on average"
    return {"input": f"{n:,} x 64, {clusters} centres", "seconds": seconds, "mb": mb, "found": result}


def clusters(scale: float) -> dict[str, Any]:
    """k-means by prunus, from the beginning to the end."""
    from prunus.score import k_means

    n = int(MILLION * scale) // 10
    rows = _rows(n, "clusters")
    found, seconds, mb = _measured(lambda: k_means(rows, 100))
    result = f"mean square {(found.distance.astype(np.float64) ** 2).mean():.3f} after {found.n_passes} passes"
    return {"input": f"{n:,} x 64, 100 clusters", "seconds": seconds, "mb": mb, "found": result}


def clusters_scikit_learn(scale: float) -> dict[str, Any]:
    """k-means by scikit-learn, begun once."""
    from sklearn.cluster import KMeans

    n = int(MILLION * scale) // 10
    rows = _rows(n, "clusters")
    found, seconds, mb = _measured(lambda: KMeans(100, n_init=1, random_state=0).fit(rows))
    result = f"mean square {found.inertia_ / n:.3f} after {found.n_iter_} passes"
    return {"input": f"{n:,} x 64, 100 clusters", "seconds": seconds, "mb": mb, "found": result}


CELLS: dict[str, Callable[[float], dict[str, Any]]] = {
    "confident learning, prunus": confident,
    "confident learning, cleanlab": confident_cleanlab,
    "confident learning of many classes, prunus": confident_many,
    "near-duplicates, prunus": duplicates,
    "k-centre, prunus": k_centre,
    "k-centre in clusters, prunus": lambda scale: k_centre(scale, "clusters"),
    "k-centre, a plain loop": k_centre_plain,
    "facility location, prunus": facilities,
    "facility location, by chance": facilities_by_chance,
    "herding, prunus": herd,
    "k-means, one pass, prunus": lambda scale: nearest(scale, 100),
    "k-means, one pass, scikit-learn": lambda scale: nearest_scikit_learn(scale, 100),
    "k-means, one pass, 1,024 centres, prunus": lambda scale: nearest(scale, 1024),
    "k-means, one pass, 1,024 centres, scikit-learn": lambda scale: nearest_scikit_learn(scale, 1024),
    "k-means, whole, prunus": clusters,
    "k-means, whole, scikit-learn": clusters_scikit_learn,
}

if __name__ == "__main__":
    main()
