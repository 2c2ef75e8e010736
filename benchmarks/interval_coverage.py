"""Do intervals hold what they say? How often 95 % intervals cover the truth, for every metric of every task that is simulated.

Usage: python benchmarks/interval_coverage.py [TASK ...] [--repetitions 2000] [--examples 300] [--bootstrap 1000]

A population of answers is drawn once; the truth is the metric of all of it. Each repetition draws so many examples from it, and
asks for the interval of one model, and for that of the difference between two models on the same examples. Prints Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Generator

from prunus.core.batch import Batch
from prunus.evaluate import compare, measure_quality
from prunus.tasks import Classification, Observed, Regression, Task, measured, metrics_of, rows_of

SIZE = 50_000
Population = tuple[Task, Observed, Observed]
"""A task, and what it observed of a dense and of a pruned model's answers to the same examples."""


def classification(rng: Generator) -> Population:
    """Five classes of unequal size; the second model is a little worse, mostly on the same examples."""
    names = tuple("abcde")
    true = rng.choice(5, size=SIZE, p=[0.4, 0.25, 0.15, 0.12, 0.08])
    hard = rng.normal(size=(SIZE, 5))
    scores = [2.0 * np.eye(5)[true] + hard, 1.8 * np.eye(5)[true] + 0.9 * hard + 0.5 * rng.normal(size=(SIZE, 5))]
    return _observed(Classification(names), scores, torch.tensor(true))


def regression(rng: Generator) -> Population:
    """Skewed targets, and errors that grow with them."""
    target = rng.gamma(3.0, size=SIZE)
    shared = rng.normal(size=SIZE)
    answers = [target + 0.3 * target * shared, target + 0.3 * target * shared + 0.3 * rng.normal(size=SIZE)]
    return _observed(Regression(), answers, torch.tensor(target))


POPULATIONS: dict[str, Callable[[Generator], Population]] = {
    "classification": classification,
    "regression": regression,
}


def _observed(task: Task, answers: list[np.ndarray], targets: torch.Tensor) -> Population:
    batch = Batch(torch.arange(len(targets)), None, targets)
    dense, pruned = (task.observe(torch.tensor(one), batch) for one in answers)
    return task, dense, pruned


def main() -> None:
    """Parse, repeat, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="*", default=[])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(
        f"{asked.repetitions} repetitions of {asked.examples} examples, {asked.bootstrap} resamples, seed {asked.seed}.\n"
    )
    print("| task | metric | truth | its interval covers it | the difference's interval covers it |")
    print("| --- | --- | --- | --- | --- |")
    for name in asked.tasks or POPULATIONS:
        for metric, truth, one, two in coverage(name, asked):
            print(f"| {name} | {metric} | {truth:.4g} | {_share(one, asked)} | {_share(two, asked)} |", flush=True)


def coverage(name: str, asked: argparse.Namespace) -> list[tuple[str, float, int, int]]:
    """Return each metric, its truth, and how often it and the difference of two models were covered."""
    rng = np.random.default_rng(asked.seed)
    task, dense, pruned = POPULATIONS[name](rng)
    names = metrics_of(task.name)
    everything = np.ones((1, SIZE))
    truth = measured(task, names, dense, everything)[0]
    change = measured(task, names, pruned, everything)[0] - truth
    covered = np.zeros((2, len(names)), dtype=int)
    for repetition in range(asked.repetitions):
        rows = rng.integers(SIZE, size=asked.examples)
        one, other = rows_of(dense, rows), rows_of(pruned, rows)
        options = {"metrics": names, "bootstrap": asked.bootstrap, "seed": repetition}
        found = measure_quality(one, task, **options).metrics
        differences = [row.difference for row in compare([one], [other], task, **options)]
        for row, (intervals, true) in enumerate(((found, truth), (differences, change))):
            covered[row] += [item.low <= value <= item.high for item, value in zip(intervals, true, strict=True)]
    return [(metric, float(truth[i]), *map(int, covered[:, i])) for i, metric in enumerate(names)]


def _share(covered: int, asked: argparse.Namespace) -> str:
    share = covered / asked.repetitions
    error = 1.96 * (share * (1 - share) / asked.repetitions) ** 0.5
    return f"{100 * share:.1f} % (± {100 * error:.1f})"


if __name__ == "__main__":
    main()
