"""Does a pruned model score training examples as the dense one does, and what does it save?

    python benchmarks/pruned_scorer.py [--sets digits mnist1d] [--seeds 0 1 2] [--keep 0.5 0.25]

A tenth of the training labels is flipped. Dense model, pruned model and a second dense one (another start, which says how much
agreement there is to be had) are trained briefly in turns, each watched by the recorder; time is the thread's own, the cut of the
pruned model included. Then as many examples go as labels were flipped, the lowest ``aum`` first, and the dense model is trained on
what stays: accuracy on test examples beside chance and all of them. A time is the least of two turns. Means over seeds; of times
the median and the range.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.core.events import silent
from prunus.core.runtime import seeded
from prunus.data import Examples
from prunus.evaluate import measure_cost, observe, rank_correlation
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.stages.scoring.example_evidence import watch_training
from prunus.pipeline.stages.scoring.pruned_scorer import scoring_job
from prunus.recover import train
from prunus.score import example_criteria

NOISE, SHORT, LONG = 0.1, 10, 15
SCORES = ("aum", "el2n", "forgetting", "prototype")


def digits() -> tuple[Any, Any]:
    """Return scikit-learn's digits as pictures."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images / 16).reshape(-1, 1, 8, 8).astype(np.float32), labels


def curves() -> tuple[Any, Any]:
    """Return MNIST-1D."""
    from example_data import mnist1d

    data = mnist1d()
    return data.inputs[:, None].numpy(), data.labels.numpy()


def pictures_net(width: int = 48) -> nn.Module:
    """Return a small conv net."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, 10),
    )


def curves_net(width: int = 64) -> nn.Module:
    """Return three convolutions, wider than those that come with MNIST-1D."""
    layers: list[nn.Module] = [nn.Conv1d(1, width, 5, 2, 1), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Conv1d(width, width, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(5 * width, 10))


SETS: dict[str, tuple[Callable[[], tuple[Any, Any]], Callable[[], nn.Module]]] = {
    "digits": (digits, pictures_net),
    "mnist1d": (curves, curves_net),
}


def job_of(data: tuple[Any, Any], build: Callable[[], nn.Module], seed: int, scorer: dict[str, Any] | str) -> Job:
    """Return a job whose models start anew for each seed."""
    criteria = [{"criterion": name, "keep_fraction": 0.9} for name in SCORES]
    options = {"split": {"validation": 0.05, "calibration": 0.05, "test": 0.4, "seed": seed}, "label_noise": NOISE}
    settings = {"epochs": LONG, "batch_size": 64, "learning_rate": 5e-3}
    job = ModelOptimizer(
        build(),
        data,
        strategy={"criterion": "magnitude_l2"},
        train=settings,
        examples={"epochs": SHORT, "scorer": scorer, "remove": criteria},
        data_options={**options, "standardize": True},
        seeds=[seed],
        listener=silent,
    )._job

    def fresh(number: int) -> nn.Module:
        with seeded(number, "model"):
            return build()

    object.__setattr__(job, "build", fresh)
    return job


def scored(job: Job, seed: int) -> tuple[float, dict[str, Any], nn.Module]:
    """Return the thread's seconds for scoring all training examples, the scores, and the model as it begins."""
    assert job.recipe.examples is not None
    start = time.thread_time()
    scorer = scoring_job(job, seed)
    evidence = watch_training(scorer, seed, job.recipe.examples, job.data.train, "scores")
    scores = {name: example_criteria[name](evidence).double().numpy() for name in SCORES}
    return time.thread_time() - start, scores, scorer.build(seed)


def auc(saliency: np.ndarray[Any, Any], wrong: np.ndarray[Any, Any]) -> float:
    """Return with which chance a flipped label scores below one that isn't."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(wrong, -saliency))


def accuracy(job: Job, examples: Examples, seed: int) -> float:
    """Return the dense model's accuracy on test examples, trained on some examples for as many steps as on all."""
    n_all, n = len(job.data.train), len(examples)
    config = job.recipe.train.model_copy(update={"epochs": round(LONG * n_all / n)})
    model = job.build(seed)
    train(model, examples, config, seed=seed, stage="quality")
    return float(observe(model, job.data.test, job.data.test.task)["right"].mean())


def lowest_gone(examples: Examples, saliency: np.ndarray[Any, Any]) -> Examples:
    """Return the examples without as many of the lowest as labels were flipped."""
    keep = np.ones(len(saliency), np.bool_)
    keep[np.argsort(saliency, kind="stable")[: round(NOISE * len(saliency))]] = False
    return examples.select(keep)


def measure(name: str, seed: int, shares: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Return what each scorer costs and says under one seed."""
    load, build = SETS[name]
    data = load()
    dense = job_of(data, build, seed, "dense")
    asked = {f"{share:g}": job_of(data, build, seed, {"model": "pruned", "keep_fraction": share}) for share in shares}
    assert dense.data.noise is not None
    wrong = np.isin(dense.data.train.ids, list(dense.data.noise.ids))
    ways = {"dense": partial(scored, dense, seed), "dense again": partial(scored, dense, seed + 1000)}
    ways |= {key: partial(scored, job, seed) for key, job in asked.items()}
    found: dict[str, dict[str, Any]] = {}
    times: dict[str, list[float]] = {key: [] for key in ways}
    for _ in range(2):  # in turns, twice
        for key, score in ways.items():
            seconds, scores, model = score()
            times[key].append(seconds)
            found[key] = {"scores": scores, "model": model}
    inputs = next(iter(dense.data.calibration.batches(1))).inputs
    whole = measure_cost(found["dense"]["model"], inputs).macs
    rows: dict[str, dict[str, Any]] = {}
    for key, one in found.items():
        scores = one["scores"]
        rows[key] = {
            "time": min(times[key]) / min(times["dense"]),
            "macs": measure_cost(one["model"], inputs).macs / whole,
            "auc": auc(scores["aum"], wrong),
            "accuracy": accuracy(dense, lowest_gone(dense.data.train, scores["aum"]), seed),
            **{score: rank_correlation(scores[score], found["dense"]["scores"][score])[0] for score in SCORES},
        }
    draw = np.random.default_rng((seed, 7))
    train_set = dense.data.train
    rows["by chance"] = {"accuracy": accuracy(dense, lowest_gone(train_set, draw.random(len(train_set))), seed)}
    rows["all"] = {"accuracy": accuracy(dense, train_set, seed)}
    return rows


def table(name: str, found: Sequence[dict[str, dict[str, Any]]]) -> str:
    """Return one set's rows as Markdown."""
    head = ["scored by", "MACs", "time", "AUC of flipped labels", "accuracy of what stays", *SCORES]
    lines = [f"**{name}**, {len(found)} seeds", "", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for key in found[0]:
        rows = [one[key] for one in found]
        cells = [key if key[0].isalpha() else f"pruned, {key} of the units"]
        if "macs" in rows[0]:
            ratios = [row["time"] for row in rows]
            cells += [f"{mean(row['macs'] for row in rows):.2f}"]
            cells += [f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"]
            cells += [f"{mean(row['auc'] for row in rows):.3f}"]
        else:
            cells += ["", "", ""]
        values = [row["accuracy"] for row in rows]
        cells.append(f"{100 * mean(values):.1f} % ({100 * min(values):.1f} to {100 * max(values):.1f})")
        cells += [f"{mean(row[score] for row in rows):.2f}" if score in rows[0] else "" for score in SCORES]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--keep", nargs="+", type=float, default=[0.5, 0.25])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.sets:
        print(table(name, [measure(name, seed, asked.keep) for seed in asked.seeds]), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
