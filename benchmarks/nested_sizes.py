"""What does it cost that several sizes share one set of weights? Prints tables; the losing rows too.

Usage: python benchmarks/nested_sizes.py [--cases mnist1d-mlp,mnist1d-cnn,flights-mlp] [--seeds 5] [--longer 1] [--rows FILE]

The same dense model (of the same seed) becomes four sizes in three ways: ``prunus sizes`` with weights in common (shared); the same
nested cuts, each recovered by itself (own); and one run of prunus for each size, which prunes the dense model and recovers what is
left (apart). Each size gets as many epochs of recovery in each way, as many as the dense model was trained times ``--longer``, so
all take about the same number of forward and backward passes. Quality is that of the bundles as they load, on rows that nobody saw,
by no code of prunus; differences are paired by seed, with the 95 % interval of Student's t over the seeds. Bytes are those of the
files that hold weights and positions. ``--method distil`` recovers by distillation from the dense model in all ways.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from example_data import RealSet, flights, mnist1d
from sklearn.metrics import roc_auc_score
from torch import Tensor

from prunus import load_bundle
from prunus.core.recipes.recipe import Recipe
from prunus.evaluate.student import student_quantile
from prunus.pipeline import run
from prunus.pipeline.sizes import make_sizes

SHARES = (0.75, 0.5, 0.25, 0.125)
ARMS = ("shared", "own", "apart")
BESIDE = (("shared", "own"), ("shared", "apart"), ("own", "apart"))
Row = dict[str, Any]
How = tuple[str, float]
"""By which method a size is recovered, and in how many times the epochs that the dense model had."""


@dataclass(frozen=True)
class Case:
    """A set and a model: what the model reads of the set, what quality is, how many rows it gets and how long it learns."""

    load: Callable[[], RealSet]
    inputs: Callable[[RealSet], Tensor]
    metric: str
    model: dict[str, Any]
    n_rows: int
    epochs: int


CASES = {
    "mnist1d-mlp": Case(
        mnist1d,
        lambda data: data.inputs,
        "accuracy",
        {"builder": "mlp", "args": {"width": 128, "depth": 2}},
        5000,
        20,
    ),
    "mnist1d-cnn": Case(
        mnist1d,
        lambda data: data.inputs.unsqueeze(1),
        "accuracy",
        {"builder": "cnn", "args": {"width": 32, "depth": 2, "pool": "flatten"}},
        5000,
        5,
    ),
    "flights-mlp": Case(
        flights, lambda data: data.flat, "auroc", {"builder": "mlp", "args": {"width": 128, "norm": "batch"}}, 20_000, 4
    ),
}


def recipe(case: Case, data: Path, output: Path, seed: int, how: How, **more: Any) -> Recipe:
    """Return how a model is trained, pruned and recovered; ``more`` says to which sizes."""
    strategy = {"criterion": "magnitude_l2", "granularity": "channel", "compare_allocations": False}
    return Recipe.model_validate(
        {
            "name": "sizes",
            "data": {"source": str(data), "split": {"validation": 0.1, "calibration": 0.1, "test": 0.1, "seed": seed}},
            "model": case.model,
            "train": {"epochs": case.epochs},
            "recovery": {"method": how[0], "epochs": round(how[1] * case.epochs)},
            "seeds": [seed],
            "evaluation": {"bootstrap": 100, "latency": {"runtime": "torch", "repeats": 5, "warm_up": 1}},
            "output": str(output),
            **more,
            "strategy": {**strategy, **more.get("strategy", {})},
        }
    )


def measured(name: str, case: Case, data: RealSet, seed: int, how: How) -> list[Row]:
    """Return one row for each way: the quality of each size, bytes and processor seconds."""
    inputs = case.inputs(data).float()
    order = np.random.default_rng((seed, 5)).permutation(len(data.labels))
    used, rest = order[: case.n_rows], torch.from_numpy(order[case.n_rows :])
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        names = np.array(data.class_names)
        np.savez(path, x=inputs[used].numpy(), y=data.labels[used].numpy(), class_names=names)

        def quality(bundle: Path, size: float | None = None) -> float:
            told, labels = load_bundle(bundle, size=size).predict(inputs[rest]), data.labels[rest]
            if case.metric == "accuracy":
                return float((told.argmax(dim=1) == labels).float().mean())
            return float(roc_auc_score(labels.numpy(), (told[:, 1] - told[:, 0]).numpy()))

        for arm in ARMS:
            out, start = Path(folder) / arm, process_time()
            row: Row = {"case": name, "seed": seed, "arm": arm, "method": how[0], "longer": how[1]}
            if arm == "apart":
                for share in SHARES:
                    run(recipe(case, path, out / f"{share}", seed, how, strategy={"keep_fraction": share}))
                row["seconds"] = process_time() - start
                bundles: list[tuple[Path, float | None]] = [(out / f"{share}" / "bundle", None) for share in SHARES]
                row["dense"] = quality(out / f"{SHARES[0]}" / "dense")
                row["bytes"] = [(bundle / "model.safetensors").stat().st_size for bundle, _ in bundles]
            else:
                sizes = {"keep_fractions": list(SHARES), "weights": arm}
                made = make_sizes(recipe(case, path, out, seed, how, sizes=sizes))
                row["seconds"] = process_time() - start
                bundles = [(made.folder, share) for share in SHARES]
                row["dense"] = quality(out / "dense")
                row["bytes"] = [size["size_bytes"] for size in made.facts["sizes"]]
            row["quality"] = [quality(*bundle) for bundle in bundles]
            found.append(row)
    assert len({row["dense"] for row in found}) == 1, "the dense model is the same in each way"
    return found


def interval(values: list[float]) -> str:
    """Return the mean with its 95 % interval over the seeds."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:+.2f}"
    half = student_quantile(0.95, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"


def report(rows: list[Row]) -> None:
    """Print what sharing costs in quality, and what it saves in bytes."""
    by = {(_what(row), row["seed"], row["arm"]): row for row in rows}
    whats = list(dict.fromkeys(map(_what, rows)))
    _head("model, recovery", "size", "dense", *ARMS, *(f"{arm} − {other}" for arm, other in BESIDE))
    for what in whats:
        seeds = sorted({row["seed"] for row in rows if _what(row) == what})
        dense = statistics.mean(100 * by[what, seed, "own"]["dense"] for seed in seeds)
        for place, share in enumerate(SHARES):
            values = {arm: [100 * by[what, seed, arm]["quality"][place] for seed in seeds] for arm in ARMS}
            means = [f"{statistics.mean(values[arm]):.1f}" for arm in ARMS]
            apart = [
                interval([mine - its for mine, its in zip(values[arm], values[other], strict=True)])
                for arm, other in BESIDE
            ]
            print(f"| {what} | {share:g} | {dense:.1f} | {' | '.join([*means, *apart])} |")
    took = ("own", "apart")
    seconds = (f"processor seconds, shared of {arm}" for arm in took)
    _head("model, recovery", "seeds", *(f"kB {arm}" for arm in ARMS), "shared of own", *seconds)
    for what in whats:
        seeds = sorted({row["seed"] for row in rows if _what(row) == what})
        kb = [statistics.mean(sum(by[what, seed, arm]["bytes"]) / 1000 for seed in seeds) for arm in ARMS]
        cells = [what, str(len(seeds)), *(f"{size:.0f}" for size in kb), f"{kb[0] / kb[1]:.2f}"]
        for arm in took:
            times = [by[what, seed, "shared"]["seconds"] / by[what, seed, arm]["seconds"] for seed in seeds]
            cells.append(f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})")
        print(f"| {' | '.join(cells)} |")


def _what(row: Row) -> str:
    return f"{row['case']}, {row['method']}" + (f", {row['longer']:g} times as long" if row["longer"] != 1 else "")


def _head(*titles: str) -> None:
    print(f"\n| {' | '.join(titles)} |\n| {' | '.join('---' for _ in titles)} |")


def main() -> None:
    """Run what isn't in the rows yet, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--longer", default="1", help="times the dense model's epochs")
    parser.add_argument("--method", default="fine_tune", choices=["none", "fine_tune", "distil"])
    parser.add_argument("--rows", type=Path, help="keep each row here, and go on from it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    held = options.rows.read_text().splitlines() if options.rows and options.rows.exists() else []
    rows = [json.loads(line) for line in held]
    known = {(row["case"], row["seed"], row["method"], row["longer"]) for row in rows}
    asked = [float(times) for times in options.longer.split(",")]
    for seed, times, name in product(range(options.seeds), asked, options.cases.split(",")):
        if (name, seed, options.method, times) in known:
            continue
        new = measured(name, CASES[name], CASES[name].load(), seed, (options.method, times))
        rows += new
        if options.rows:
            with options.rows.open("a") as file:
                file.writelines(f"{json.dumps(row)}\n" for row in new)
    report(rows)


if __name__ == "__main__":
    main()
