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
from prunus.evaluate import Pairs, compare, measure_quality
from prunus.evaluate.resample import n_observed
from prunus.tasks import (
    Agreement,
    Classification,
    Language,
    MultiLabel,
    Observed,
    Regression,
    Retrieval,
    Segmentation,
    SequenceToSequence,
    Task,
    TokenClassification,
    measured,
    metrics_of,
    rows_of,
)
from prunus.tasks.detection import Detection

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


def plain_regression(rng: Generator) -> Population:
    """Normal targets, and errors that have nothing to do with them."""
    target, shared, own = rng.normal(size=(3, SIZE))
    return _observed(Regression(), [target + 0.5 * shared, target + 0.5 * shared + 0.2 * own], torch.tensor(target))


def regression(rng: Generator) -> Population:
    """Skewed targets, and errors that grow with them."""
    target = rng.gamma(3.0, size=SIZE)
    shared = rng.normal(size=SIZE)
    answers = [target + 0.3 * target * shared, target + 0.3 * target * shared + 0.3 * rng.normal(size=SIZE)]
    return _observed(Regression(), answers, torch.tensor(target))


def multilabel(rng: Generator) -> Population:
    """Four labels from common to rare."""
    n = 20_000
    true = (rng.random((n, 4)) < [0.5, 0.3, 0.2, 0.1]).astype(np.float32)
    hard = rng.normal(size=(n, 4))
    answers = [2.5 * (true - 0.5) + hard, 2.2 * (true - 0.5) + hard + 0.4 * rng.normal(size=(n, 4))]
    return _observed(MultiLabel(), answers, torch.tensor(true))


def segmentation(rng: Generator) -> Population:
    """Masks of 8 x 8 with up to three classes; images differ in how hard they are."""
    n = 4000
    smooth = rng.normal(size=(n, 3, 4, 4)).repeat(2, axis=2).repeat(2, axis=3)
    true = smooth.argmax(axis=1)
    noise = rng.gamma(2.0, size=(n, 1, 1, 1)) * rng.normal(size=(n, 3, 8, 8))
    answers = [smooth + 0.5 * noise, smooth + 0.5 * noise + 0.4 * rng.normal(size=(n, 3, 8, 8))]
    return _observed(Segmentation(), answers, torch.tensor(true))


def spans(rng: Generator) -> Population:
    """Sentences of ten tokens with names of persons and places."""
    n, tags = 8000, ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    true = np.zeros((n, 10), dtype=np.int64)
    for start, (first, inside) in ((0, (1, 2)), (5, (3, 4))):
        there, long = rng.random(n) < 0.6, rng.random(n) < 0.5
        true[:, start] = np.where(there, first, 0)
        true[:, start + 1] = np.where(there & long, inside, 0)
    hard = rng.normal(size=(n, 10, 5)) * rng.gamma(4.0, 0.25, size=(n, 1, 1))
    answers = [3.0 * np.eye(5)[true] + hard, 2.8 * np.eye(5)[true] + hard + 0.4 * rng.normal(size=(n, 10, 5))]
    return _observed(TokenClassification(tags), answers, torch.tensor(true))


def language(rng: Generator) -> Population:
    """Texts of two to nine tokens of six kinds."""
    n = 8000
    ids = rng.integers(6, size=(n, 9))
    hidden = np.where(np.arange(9)[None] < rng.integers(2, 10, size=(n, 1)), ids, -100)
    following = np.concatenate([ids[:, 1:], ids[:, :1]], axis=1)
    scores = 1.5 * np.eye(6)[following] + rng.normal(size=(n, 9, 6))
    answers = [scores, scores + 0.5 * rng.normal(size=(n, 9, 6))]
    return _observed(Language(), answers, torch.tensor(hidden))


def sequences(rng: Generator) -> Population:
    """Answers of four tokens of five kinds."""
    n = 8000
    true = rng.integers(5, size=(n, 4))
    scores = 2.5 * np.eye(5)[true] + rng.normal(size=(n, 4, 5)) * rng.gamma(4.0, 0.25, size=(n, 1, 1))
    return _observed(SequenceToSequence(), [scores, scores + 0.5 * rng.normal(size=(n, 4, 5))], torch.tensor(true))


def retrieval(rng: Generator) -> Population:
    """Vectors of 300 things, five times each."""
    which = np.arange(1500) % 300
    vectors = rng.normal(size=(300, 8))[which] + 0.7 * rng.normal(size=(1500, 8))
    return _observed(Retrieval(), [vectors, vectors + 0.3 * rng.normal(size=(1500, 8))], torch.tensor(which))


def agreement(rng: Generator) -> Population:
    """Four scores, and those of two smaller models."""
    scores = rng.normal(size=(20_000, 4)) * rng.gamma(2.0, size=(20_000, 1))
    answers = [scores + 0.2 * rng.normal(size=scores.shape), scores + 0.4 * rng.normal(size=scores.shape)]
    return _observed(Agreement(), answers, torch.tensor(scores))


def detection(rng: Generator) -> Population:
    """One to four boxes of two classes; some are missed, some made up."""
    targets, dense, pruned = [], [], []
    for _ in range(1500):
        n = rng.integers(1, 5)
        corner = rng.uniform(0, 70, size=(n, 2))
        boxes, labels = (
            np.concatenate([corner, corner + rng.uniform(8, 30, size=(n, 2))], axis=1),
            rng.integers(2, size=n),
        )
        targets.append({"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(labels)})
        shift, hard = rng.normal(size=(n, 4)), rng.random(n)
        for made, spread, missed in ((dense, 1.2, 0.1), (pruned, 1.8, 0.15)):
            there = hard > missed
            wrong = rng.uniform(0, 70, size=(rng.poisson(0.5), 2))
            false = np.concatenate([wrong, wrong + 15], axis=1)
            scores = np.concatenate([0.4 + 0.5 * hard[there], rng.uniform(0.1, 0.7, size=len(false))])
            made.append(
                {
                    "boxes": torch.tensor(np.concatenate([boxes[there] + spread * shift[there], false])).float(),
                    "labels": torch.tensor(np.concatenate([labels[there], rng.integers(2, size=len(false))])),
                    "scores": torch.tensor(scores).float(),
                }
            )
    task, batch = Detection(n_classes=2), Batch(torch.arange(1500), None, targets)
    return task, *(task.settled(task.observe(one, batch)) for one in (dense, pruned))


POPULATIONS: dict[str, Callable[[Generator], Population]] = {
    "classification": classification,
    "regression, normal errors": plain_regression,
    "regression, errors that grow with skewed targets": regression,
    "multilabel": multilabel,
    "segmentation": segmentation,
    "token_classification": spans,
    "language": language,
    "sequence_to_sequence": sequences,
    "retrieval": retrieval,
    "agreement": agreement,
    "detection": detection,
}


def _observed(task: Task, answers: list[np.ndarray], targets: torch.Tensor) -> Population:
    batch = Batch(torch.arange(len(targets)), None, targets)
    dense, pruned = (task.settled(task.observe(torch.tensor(one), batch)) for one in answers)
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
    size = n_observed(dense)
    everything = np.ones((1, size))
    truth = measured(task, names, dense, everything)[0]
    change = measured(task, names, pruned, everything)[0] - truth
    covered = np.zeros((2, len(names)), dtype=int)
    for repetition in range(asked.repetitions):
        rows = rng.integers(size, size=asked.examples)
        one, other = rows_of(dense, rows), rows_of(pruned, rows)
        options = {"bootstrap": asked.bootstrap, "seed": repetition}
        found = measure_quality(one, task, metrics=names, **options).metrics
        differences = [row.difference for row in compare(Pairs([one], [other], task, **options), names)]
        for row, (intervals, true) in enumerate(((found, truth), (differences, change))):
            covered[row] += [item.low <= value <= item.high for item, value in zip(intervals, true, strict=True)]
    return [(metric, float(truth[i]), *map(int, covered[:, i])) for i, metric in enumerate(names)]


def _share(covered: int, asked: argparse.Namespace) -> str:
    share = covered / asked.repetitions
    error = 1.96 * (share * (1 - share) / asked.repetitions) ** 0.5
    return f"{100 * share:.1f} % (± {100 * error:.1f})"


if __name__ == "__main__":
    main()
