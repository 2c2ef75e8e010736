"""How long do intervals of very many examples take, and are they right? Prints tables; the losing rows too.

Usage: python benchmarks/bootstrap.py [--rows 1000000,10000000] [--repeats 3] [--resamples 1000] [--some 4] [--folds 200]

A dense and a pruned model are compared (``prunus.evaluate.compare``) on the same examples, with paired intervals of R², MAE and
RMSE: as prunus does it, with every example drawn by itself (what it did for any number of them, and does up to 262 144), by a plain
loop in NumPy (draw rows, take the means), and, as a yardstick, the same comparison of ten classes. What would take hours draws
``--some`` resamples and twice as many, and is scaled up by the difference; the ways take turns. Then, at sizes that the exact
bootstrap can do, how wide both kinds of intervals are and how often they hold the truth.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np

from prunus.evaluate import Pairs, compare
from prunus.evaluate.resample import resample
from prunus.tasks import Classification, Regression

METRICS = ("r2", "mae", "rmse")
MODULE: Any = sys.modules[resample.__module__]
Seen = dict[str, Any]


def answers(n: int, kind: str, seed: int) -> tuple[Seen, Seen]:
    """Return what was observed of two models whose errors are alike."""
    draw = np.random.default_rng(seed)
    target = draw.normal(size=(n, 1))
    size: Any = 1.0
    if kind == "sorted":
        target, size = np.sort(target, axis=0), np.linspace(0.1, 2, n)[:, None]
    elif kind == "heavy tails":
        size = np.abs(draw.standard_t(3, size=(n, 1)))
    shared = size * draw.normal(size=(n, 1)) * 0.5
    dense, pruned = (_seen(target, shared + scale * size * draw.normal(size=(n, 1))) for scale in (0.15, 0.2))
    return dense, pruned


def _seen(target: Any, error: Any) -> Seen:
    return {"absolute_error": abs(error), "square_error": error**2, "target": target, "spread": np.zeros_like(target)}


def classes(n: int, seed: int) -> tuple[Seen, Seen]:
    """Return what was observed of two models that name one of ten classes."""
    draw = np.random.default_rng(seed)
    true = draw.integers(0, 10, n)
    found = []
    for wrong in (0.1, 0.11):
        predicted = np.where(draw.random(n) < wrong, draw.integers(0, 10, n), true)
        found.append({"true": true, "predicted": predicted, "right": predicted == true})
    return found[0], found[1]


@contextmanager
def drawing(most: int, groups: int = 1 << 16) -> Iterator[None]:
    """Draw more than ``most`` examples in groups."""
    before = MODULE._MOST_APART, MODULE._GROUPS
    MODULE._MOST_APART, MODULE._GROUPS = most, groups
    try:
        yield
    finally:
        MODULE._MOST_APART, MODULE._GROUPS = before


def by_numpy(dense: Seen, pruned: Seen, resamples: int) -> None:
    """Draw rows and take the means that the metrics need, of both models."""
    draw = np.random.default_rng(0)
    n = len(dense["target"])
    columns = [one[name][:, 0] for one in (dense, pruned) for name in ("absolute_error", "square_error")]
    columns += [dense["target"][:, 0], dense["target"][:, 0] ** 2]
    for _ in range(resamples):
        rows = draw.integers(0, n, n)
        for column in columns:
            column[rows].mean()


def seconds(work: Callable[[int], object], resamples: int, some: int | None) -> float:
    """Return how long ``resamples`` take; with ``some`` by the difference between so many and twice as many."""
    times = []
    for n in (resamples,) if some is None else (some, 2 * some):
        start = perf_counter()
        work(n)
        times.append(perf_counter() - start)
    if some is None:
        return times[0]
    each = max(times[1] - times[0], 0.0) / some
    return times[0] + each * (resamples - some)


def speed(asked: argparse.Namespace) -> None:
    """Print how long each way takes."""
    print(f"\nSeconds for {asked.resamples} resamples, median of {asked.repeats} (least to most); * scaled up.\n")
    print("| examples | prunus | each drawn by itself * | NumPy * | classes | by itself : prunus | NumPy : prunus |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for n in map(int, asked.rows.split(",")):
        dense, pruned = answers(n, "plain", 0)
        first, second = classes(n, 0)

        def regression(resamples: int, dense: Seen = dense, pruned: Seen = pruned) -> None:
            compare(Pairs([dense], [pruned], Regression(), bootstrap=resamples), METRICS)

        def alone(resamples: int, work: Callable[[int], None] = regression, n: int = n) -> None:
            with drawing(most=n):
                work(resamples)

        def counted(resamples: int, first: Seen = first, second: Seen = second) -> None:
            names = tuple(map(str, range(10)))
            pairs = Pairs([first], [second], Classification(class_names=names), bootstrap=resamples)
            compare(pairs, ("accuracy", "f1_macro"))

        def plain(resamples: int, dense: Seen = dense, pruned: Seen = pruned) -> None:
            by_numpy(dense, pruned, resamples)

        ways = {"prunus": regression, "alone": alone, "numpy": plain, "classes": counted}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(asked.repeats):
            for name, work in ways.items():
                some = asked.some if name in ("alone", "numpy") else None
                times[name].append(seconds(work, asked.resamples, some))
        ratios = [
            [other / own for other, own in zip(times[name], times["prunus"], strict=True)]
            for name in ("alone", "numpy")
        ]
        print(f"| {n} | " + " | ".join(_said(found) for found in (*times.values(), *ratios)) + " |")


def widths(asked: argparse.Namespace) -> None:
    """Print how wide intervals are beside those of the exact bootstrap, and how often they hold the truth."""
    print("\nIntervals of 4000 examples in 1000 groups beside each drawn by itself, 90 %, 400 resamples.\n")
    width = f"width, of the exact one's, median of {asked.folds} (least to most)"
    print(f"| data | difference in | {width} | hold the truth | the exact ones do |")
    print("| --- | --- | --- | --- | --- |")
    for kind in ("plain", "sorted", "heavy tails"):
        big = answers(2_000_000, kind, 10_000)
        with drawing(most=1):
            pairs = Pairs([big[0]], [big[1]], Regression(), bootstrap=2)
            truth = {one.metric: one.difference.value for one in compare(pairs, METRICS)}
        ratios: dict[str, list[float]] = {name: [] for name in METRICS}
        held = {name: [0, 0] for name in METRICS}
        for seed in range(asked.folds):
            dense, pruned = answers(4000, kind, seed)
            pairs = Pairs([dense], [pruned], Regression(), 0.9, 400, seed)
            exact = compare(pairs, METRICS)
            with drawing(most=1, groups=1000):
                found = compare(pairs, METRICS)
            for one, other in zip(found, exact, strict=True):
                mine, its = one.difference, other.difference
                ratios[one.metric].append((mine.high - mine.low) / (its.high - its.low))
                for place, interval in enumerate((mine, its)):
                    held[one.metric][place] += interval.low <= truth[one.metric] <= interval.high
        for name in METRICS:
            shares = " | ".join(f"{100 * count / asked.folds:.1f} %" for count in held[name])
            print(f"| {kind} | {name} | {_said(ratios[name])} | {shares} |")


def _said(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000000,10000000", help="how many examples, with commas; empty: none")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--some", type=int, default=4, help="resamples of what would take hours")
    parser.add_argument("--folds", type=int, default=200, help="repetitions for widths; 0: none")
    asked = parser.parse_args()
    if asked.rows:
        speed(asked)
    if asked.folds:
        widths(asked)


if __name__ == "__main__":
    main()
