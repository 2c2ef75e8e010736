"""What do two workers gain of a run, and of an evaluation, and what does a worker cost?

Usage: python benchmarks/workers.py [--rounds 3] [--only NAME] [--keep FILE]

``prunus run`` with three seeds, and ``prunus evaluate --robustness=corruptions,attacks`` of a bundle of such a run, on sklearn's
digits, each in a short and a long form, with ``--workers 1`` and ``--workers 2`` in turns: these forked, as they are, and spawned,
as where nothing can be forked. One worker is no process more: the command does all itself. What is left (the record but for its
times, the plan's and the bundle's hashes; the safety file) is compared. The ratios are of the commands of one round; memory is the
most that all processes had together, where what they share counts once. The tables are of all that stands in ``--keep``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from dispatch_load import watched

from prunus.ship import bundle_sha256

WAYS = ("1", "2, forked", "2, spawned")
SPAWNED = "from prunus.core.code import new_process as n; n._server_began_in.append('no'); from prunus.cli import main; main()"
"""A command that takes its fork server for one that began in other circumstances."""
Row = dict[str, Any]


def recipe(output: Path, epochs: int, width: int) -> dict[str, Any]:
    """Return a run of three seeds."""
    return {
        "name": "digits",
        "data": {"source": "sklearn:digits", "split": {"validation": 0.1, "calibration": 0.1, "test": 0.3}},
        "model": {"builder": "cnn", "args": {"width": width}},
        "train": {"epochs": epochs},
        "strategy": {"criterion": "taylor", "granularity": "channel", "keep_fraction": 0.5},
        "recovery": {"epochs": epochs},
        "seeds": [0, 1, 2],
        "evaluation": {"latency": {"runtime": "torch", "repeats": 5, "warm_up": 1}},
        "output": str(output),
    }


RUNS = {"run, short": (2, 16), "run, long": (20, 32)}
"""Epochs of training and of recovery, and how wide the network is."""
EVALUATIONS = {"evaluate, short": ("corruptions", 100), "evaluate, long": ("corruptions,attacks", 540)}
"""Which suites, on how many examples at most."""


def run_facts(output: Path) -> str:
    """Return a hash of what a run leaves, but for its times and its place."""
    record = json.loads((output / "record.json").read_text())
    record = record.get("content", record)
    for key in ("timing", "latency", "seconds"):
        record.pop(key, None)
    record["recipe"].pop("output", None)
    text = json.dumps(record, sort_keys=True).replace(str(output), "")
    return hashlib.sha256((text + bundle_sha256(output / "bundle")).encode()).hexdigest()[:16]


def measured(name: str, way: str, folder: Path) -> Row:
    """Return what one command took, and a hash of what it left."""
    prunus = [sys.executable, "-W", "ignore", *(["-c", SPAWNED] if way.endswith("spawned") else ["-m", "prunus"])]
    n, output = way[0], folder / f"{name}-{way}".replace(", ", "-")
    if name in RUNS:
        path = folder / f"{output.name}.yaml"
        path.write_text(yaml.safe_dump(recipe(output, *RUNS[name])))
        took = watched([*prunus, "run", str(path), "--overwrite", "--quiet", "--workers", n], every=0.1, silent=True)
        return took | {"left": run_facts(output)}
    bundle = folder / "bundle-run"
    if not bundle.exists():
        path = folder / "bundle.yaml"
        path.write_text(yaml.safe_dump({**recipe(bundle, *RUNS["run, long"]), "seeds": [0]}))
        watched([*prunus, "run", str(path), "--quiet"], silent=True)
    suites, budget = EVALUATIONS[name]
    asked = [f"--robustness={suites}", "--budget", str(budget), "--workers", n, "--out", str(output), "--quiet"]
    (output / "safety.json").unlink(missing_ok=True)
    took = watched([*prunus, "evaluate", str(bundle), *asked], every=0.1, silent=True)
    return took | {"left": hashlib.sha256((output / "safety.json").read_bytes()).hexdigest()[:16]}


def shown(values: list[float], form: str = ".1f") -> str:
    """Return the median and the spread."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def report(rows: list[Row]) -> None:
    """Print the tables."""
    titles = ["command", "workers", "rounds", "seconds, median (spread)", "of one worker's", "processor seconds"]
    titles += ["of one worker's", "most MB", "identical"]
    print(f"\n| {' | '.join(titles)} |\n| {' | '.join('---' for _ in titles)} |")
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = {n: sorted((r for r in rows if (r["name"], r["workers"]) == (name, n)), key=_round) for n in WAYS}
        for n in WAYS:
            pairs = list(zip(mine[n], mine["1"], strict=False))
            ratios = {
                key: "1" if n == "1" else shown([row[key] / one[key] for row, one in pairs], ".2f")
                for key in ("seconds", "processor")
            }
            same = sum(row["left"] == one["left"] for row, one in pairs)
            cells = [name, n, len(pairs), shown([row["seconds"] for row in mine[n]]), ratios["seconds"]]
            cells += [shown([row["processor"] for row in mine[n]]), ratios["processor"]]
            cells += [
                f"{statistics.median(row['mb'] for row in mine[n]):.0f}",
                "" if n == "1" else f"{same} of {len(pairs)}",
            ]
            print(f"| {' | '.join(map(str, cells))} |")


def _round(row: Row) -> int:
    return int(row["round"])


def main() -> None:
    """Run what isn't kept yet, in turns, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="part of a command's name")
    parser.add_argument("--keep", type=Path, help="a file for what was measured, which is added to it")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    held = options.keep.read_text().splitlines() if options.keep and options.keep.exists() else []
    rows = [json.loads(line) for line in held]
    known = {(row["name"], row["workers"], row["round"]) for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.rounds):
            for name in (*RUNS, *EVALUATIONS):
                for n in WAYS if turn % 2 == 0 else reversed(WAYS):
                    if options.only not in name or (name, n, turn) in known:
                        continue
                    row = {"name": name, "workers": n, "round": turn, **measured(name, n, Path(folder))}
                    rows.append(row)
                    if options.keep:
                        with options.keep.open("a") as file:
                            file.write(json.dumps(row) + "\n")
    report(rows)


if __name__ == "__main__":
    main()
