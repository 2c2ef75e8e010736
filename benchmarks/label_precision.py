"""How near is the estimated share of wrong labels among the suspected ones to the true one?

Labels of digits and of drawn curves (one-dimensional shapes of ten kinds) are flipped at several rates behind prunus's back. Each
row is a list of one run: what is relabelled, and what is removed for its margin.

Usage: python benchmarks/label_precision.py [seeds]
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from prunus import ModelOptimizer
from prunus.core.events import silent
from prunus.pipeline.stages.example_stage import judge_examples

RATES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
EXAMPLES = {
    "epochs": 10,
    "folds": 3,
    "relabel": {"confidence": 0.6, "neighbours": 10, "agreement": 0.7},
    "remove": [{"criterion": "aum", "keep_fraction": 0.95}],
}


def digits(seed: int) -> tuple[Tensor, Tensor]:
    """Return scikit-learn's digits as images."""
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)


def curves(seed: int, n: int = 1800) -> tuple[Tensor, Tensor]:
    """Return curves of 40 points, ``(n, 40)``: one of ten templates, moved, scaled, tilted and with noise, as in MNIST-1D."""
    templates = np.random.default_rng(7).normal(size=(10, 12)).cumsum(axis=1)
    draw = np.random.default_rng(seed)
    labels = draw.integers(10, size=n)
    made = np.zeros((n, 40))
    for row, label in enumerate(labels):
        shape = np.interp(np.linspace(0, 11, 24), np.arange(12), templates[label]) * draw.uniform(0.7, 1.3)
        start = draw.integers(4, 13)
        made[row, start : start + 24] = shape - shape.mean()
        made[row] += np.linspace(-1, 1, 40) * draw.normal(0, 0.5) + draw.normal(0, 0.5, 40)
    return torch.tensor(made, dtype=torch.float32), torch.tensor(labels)


def network(width: int) -> nn.Module:
    """Return a small classifier of ten classes."""
    return nn.Sequential(nn.Linear(width, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 10))


def measured(x: Tensor, y: Tensor, rate: float, seed: int, **examples: object) -> list[dict[str, float | str]]:
    """Return for each list how many of it are estimated to be wrong, and how many are."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(y), generator=draw)[: round(rate * len(y))]
    flipped = y.clone()
    flipped[rows] = (y[rows] + torch.randint(1, 10, (len(rows),), generator=draw)) % 10
    torch.manual_seed(seed)
    job = ModelOptimizer(
        network(x.shape[1]),
        (x, flipped),
        examples={**EXAMPLES, **examples},
        train={"epochs": 10, "learning_rate": 3e-3},
        data_options={"split": {"validation": 0.1, "calibration": 0.1, "test": 0.1}},
        seeds=[seed],
        listener=silent,
    )._job
    wrong = {job.data.train.source.ids[row] for row in rows.tolist()}
    found: list[dict[str, float | str]] = []
    for step in judge_examples(job, seed, lambda *asked: asked[2]()):
        called = [name for d in step.decisions if d.label is not None for name in d.label[~d.keep].tolist()]
        true = sum(name in wrong for name in called) / max(len(called), 1)
        told = step.settings.get("precision")
        if told is not None:
            found.append({"list": step.operation, "n": len(called), "true": true, **told})
    return found


def main(n_seeds: int) -> None:
    """Print a row for each set, rate and list: means over the seeds, and how often the interval holds the true share."""
    print(
        "| data | wrong labels | list | called wrong | true share | estimated | off by, points | inside the interval |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, make in (("digits", digits), ("curves", curves)):
        for rate in RATES:
            rows = [row for seed in range(n_seeds) for row in measured(*make(seed), rate, seed)]
            for kind in ("relabel", "remove"):
                some = [row for row in rows if row["list"] == kind]
                if not some:
                    continue
                n, true, value, low, high = (
                    np.array([row[key] for row in some], float) for key in ("n", "true", "value", "low", "high")
                )
                cells = [
                    name, f"{rate:.0%}", kind, f"{n.mean():.0f}", f"{true.mean():.1%}", f"{value.mean():.1%}",
                    f"{100 * (value.mean() - true.mean()):+.1f} ({100 * np.abs(value - true).mean():.1f} in a run)",
                    f"{((low <= true) & (true <= high)).sum()} of {len(some)}",
                ]  # fmt: skip
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
