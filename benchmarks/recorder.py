"""What does it cost to record what a training says about every example, and what do its scores say?

Usage: python benchmarks/recorder.py [--only overhead] [--repetitions 5] [--scale 1]

One thread. ``writing``: bytes and microseconds per example and epoch, of calls with batches of several sizes, the first epoch of
a new file and every further one; beside it a plain loop that appends the same logits to a list in memory, in turns. ``overhead``:
a small CNN trained by a plain loop, with and without the recording, step by step in turns on the same batches; the share is of
paired steps. ``scoring``: seconds and memory to score a recording, which must not grow with the examples. ``simulation``: how
often intervals from one recording hold the truth, where epochs hang on each other. ``errors``: on digits and MNIST-1D (``pip
install mnist1d``), trained with many seeds, how often a 95 % interval holds the mean of the other seeds, made from one recording,
and from two or three. Times are those of the thread (processor) and of the clock. Memory is read from Linux's /proc.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunus.score import Recording, error_of_mean, scores_of

T_QUANTILES = {1: 12.706, 2: 4.303, 3: 3.182}


def main() -> None:
    """Run the parts and print their tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="part of a part's name")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.cell:
        print(json.dumps(_scored(int(arguments.cell))))
        return
    for name, part in PARTS.items():
        if arguments.only in name:
            print(f"\n{name}\n")
            part(arguments.repetitions, arguments.scale)


def writing(repetitions: int, scale: float) -> None:
    """Print bytes and microseconds per example and epoch."""
    n = int(200_000 * scale)
    print("| classes | batch | bytes | new file: us, processor (clock) | again: us | list in memory: us |")
    print("| --- | --- | --- | --- | --- | --- |")
    for classes, batch in [(10, 32), (10, 64), (10, 128), (10, 512), (64, 128), (1000, 128)]:
        few = n if classes < 1000 else n // 10
        rows: dict[str, list[tuple[float, float]]] = {"new": [], "again": [], "list": []}
        size = 0
        for _ in range(repetitions):
            with tempfile.TemporaryDirectory() as folder:
                recording = Recording(folder, n_examples=few)
                outputs, targets = torch.randn(batch, classes), torch.zeros(batch, dtype=torch.int64)
                order = torch.randperm(few).split(batch)
                for name in ("new", "again"):
                    recording(0, order[0], outputs[: len(order[0])], targets[: len(order[0])])
                    rows[name].append(_per_example(recording, order, outputs, targets, few))
                kept: list[Any] = []
                rows["list"].append(
                    _per_example(
                        lambda e, i, o, t, kept=kept: kept.append((i, o.clone())), order, outputs, targets, few
                    )
                )
                size = recording.record_bytes
        cells = [_spread([cpu for cpu, _ in rows[name]]) for name in ("new", "again", "list")]
        clock = statistics.median(wall for _, wall in rows["new"])
        print(f"| {classes} | {batch} | {size} | {cells[0]} ({clock:.2f}) | {cells[1]} | {cells[2]} |")


def _per_example(
    call: Callable[..., Any], order: tuple[Tensor, ...], outputs: Tensor, targets: Tensor, n: int
) -> tuple[float, float]:
    clock, cpu = time.perf_counter(), time.thread_time()
    for index in order:
        call(0, index, outputs[: len(index)], targets[: len(index)])
    return (time.thread_time() - cpu) / n * 1e6, (time.perf_counter() - clock) / n * 1e6


def overhead(repetitions: int, scale: float) -> None:
    """Print which share of a training step recording takes."""
    print("| model | batch | step: ms, processor | recording: ms | share of the step | share, by the clock |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, width, side, batch in [
        ("CNN, 2 layers", 16, 16, 128),
        ("CNN, 2 layers", 32, 32, 128),
        ("CNN", 32, 32, 512),
    ]:
        steps = max(10, int(40 * scale))
        n = batch * steps
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(2 * width, 10),
        )  # fmt: skip
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        shares: list[float] = []
        clocks: list[float] = []
        took: dict[bool, list[float]] = {True: [], False: []}
        with tempfile.TemporaryDirectory() as folder:
            recording = Recording(folder, n_examples=n)
            targets = torch.randint(10, (n,))
            for epoch in range(repetitions):
                inputs = torch.randn(batch, 3, side, side)
                for index in torch.randperm(n).split(batch):
                    pair: dict[bool, tuple[float, float]] = {}
                    for recorded in (False, True) if torch.rand(()) < 0.5 else (True, False):
                        clock, cpu = time.perf_counter(), time.thread_time()
                        outputs = model(inputs)
                        optimizer.zero_grad()
                        nn.functional.cross_entropy(outputs, targets[index]).backward()
                        optimizer.step()
                        middle, middle_cpu = time.perf_counter(), time.thread_time()
                        if recorded:
                            recording(epoch, index, outputs, targets[index])
                            took[True].append(time.thread_time() - middle_cpu)
                            pair[True] = (took[True][-1], time.perf_counter() - middle)
                        else:
                            took[False].append(middle_cpu - cpu)
                            pair[False] = (took[False][-1], middle - clock)
                    shares.append(pair[True][0] / pair[False][0])
                    clocks.append(pair[True][1] / pair[False][1])
        step, write = (statistics.median(took[kind]) * 1e3 for kind in (False, True))
        what = f"{name}, {width} wide, {side} x {side} | {batch}"
        print(f"| {what} | {step:.2f} | {write:.3f} | {_percent(shares)} | {_percent(clocks)} |")


def _percent(values: list[float]) -> str:
    low, high = np.quantile(values, [0.05, 0.95])
    return f"{statistics.median(values):.2%} ({low:.2%} to {high:.2%})"


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def scoring(repetitions: int, scale: float) -> None:
    """Print what scoring a recording of ten epochs and ten classes costs."""
    print("| examples | seconds, processor | us per example-epoch | MB above |")
    print("| --- | --- | --- | --- |")
    for n in (int(100_000 * scale), int(1_000_000 * scale)):
        rows = [_in_a_process(n) for _ in range(min(repetitions, 3))]
        seconds = [row["seconds"] for row in rows]
        each, mb = statistics.median(seconds) / n / 10 * 1e6, max(row["mb"] for row in rows)
        print(f"| {n:,} | {_spread(seconds)} | {each:.2f} | {mb:.0f} |")


def _in_a_process(n: int) -> dict[str, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, "--cell", str(n)], capture_output=True, text=True, env=environment, check=True
    )
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _scored(n: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        recording = Recording(folder, n_examples=n)
        for epoch in range(10):
            for index in torch.arange(n).split(10_000):
                recording(epoch, index, torch.randn(len(index), 10), index % 10)
        recording.close()
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        before, start = _megabytes("VmRSS"), time.process_time()
        scores = recording.scores()
        seconds = time.process_time() - start
        held = sum(column.nbytes for column in (*scores.columns().values(), scores.labels, scores.n_epochs)) / 2**20
        return {"seconds": seconds, "mb": _megabytes("VmHWM") - before - held}


def _megabytes(name: str) -> float:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1024


def simulation(repetitions: int, scale: float) -> None:
    """Print how often a 95 % interval holds the truth, where each epoch hangs on the one before."""
    print("| epochs | correlation of neighbours | one recording | deviation over the root of the epochs |")
    print("| --- | --- | --- | --- |")
    draw = np.random.default_rng(0)
    for length in (5, 10, 20, 50):
        for rho in (0.0, 0.5, 0.8):
            values = [draw.standard_normal(20_000) / math.sqrt(1 - rho**2)]
            for _ in range(length - 1):
                values.append(rho * values[-1] + draw.standard_normal(20_000))
            course = torch.from_numpy(np.stack(values))
            off = course.mean(dim=0).abs()
            ours = (off <= T_QUANTILES[2] * error_of_mean(course)).double().mean()
            usual = (off <= 1.96 * course.std(dim=0) / math.sqrt(length)).double().mean()
            print(f"| {length} | {rho} | {ours:.1%} | {usual:.1%} |")


def errors(repetitions: int, scale: float) -> None:
    """Print how often intervals hold what other seeds give, on real data with a tenth of the labels flipped."""
    n_seeds = max(7, int(13 * scale))
    print("| data | epochs | score | one recording | its error to that between seeds | two | three |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, data, epochs in (
        ("digits", _digits, 10),
        ("digits", _digits, 30),
        ("MNIST-1D", _mnist1d, 10),
        ("MNIST-1D", _mnist1d, 30),
    ):
        made = data()
        if made is None:
            print(f"| {name} | {epochs} | not run: no package mnist1d | | | | |")
            continue
        with tempfile.TemporaryDirectory() as folder:
            recordings = [_train(Path(folder) / str(seed), *made, epochs, seed) for seed in range(n_seeds)]
            alone = [one.scores() for one in recordings]
            for score in ("el2n", "aum", "loss", "confidence", "variability", "entropy", "margin"):
                each = np.stack([one.values[score] for one in alone]).astype(np.float64)
                own = np.stack([one.errors[score] for one in alone]).astype(np.float64)
                single = _covers(each, own, T_QUANTILES[2], each, 1)
                ratio = math.sqrt(np.square(own).mean() / each.var(axis=0, ddof=1).mean())
                cells = []
                for k in (2, 3):
                    groups = [scores_of(recordings[i : i + k]) for i in range(0, n_seeds - k, k)]
                    values = np.stack([one.values[score] for one in groups]).astype(np.float64)
                    spread = np.stack([one.errors[score] for one in groups]).astype(np.float64)
                    cells.append(f"{_covers(values, spread, T_QUANTILES[k - 1], each, k):.1%}")
                print(f"| {name} | {epochs} | {score} | {single:.1%} | {ratio:.2f} | {' | '.join(cells)} |")


def _covers(values: Any, errors: Any, quantile: float, each: Any, k: int) -> float:
    """Return how often an interval holds the mean of the other seeds, whose own error is allowed for."""
    found = []
    for number in range(len(values)):
        others = np.delete(each, range(number * k, number * k + k), axis=0)
        noise = 1.96 * others.std(axis=0, ddof=1) / math.sqrt(len(others))
        found.append(np.abs(values[number] - others.mean(axis=0)) <= np.hypot(quantile * errors[number], noise))
    return float(np.mean(found))


def _flipped(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    wrong = torch.rand(len(labels), generator=draw) < 0.1
    return inputs, torch.where(wrong, (labels + torch.randint(1, 10, labels.shape, generator=draw)) % 10, labels)


def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    inputs, labels = load_digits(return_X_y=True)
    return _flipped(torch.tensor(inputs / 16 - 0.3, dtype=torch.float32), torch.tensor(labels))


def _mnist1d() -> tuple[Tensor, Tensor] | None:
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError:
        return None
    settings = get_dataset_args()
    settings.num_samples = 2500
    made = make_dataset(settings)
    return _flipped(torch.tensor(made["x"], dtype=torch.float32), torch.tensor(made["y"]))


def _train(folder: Path, inputs: Tensor, labels: Tensor, epochs: int, seed: int) -> Recording:
    torch.manual_seed(seed)
    if inputs.shape[1] == 64:
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    else:
        model = nn.Sequential(
            nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 16, 5, 2, 2), nn.ReLU(), nn.Conv1d(16, 16, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Dropout(0.1), nn.Linear(160, 10),
        )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    with Recording(folder, n_examples=len(labels)) as recording:
        for epoch in range(epochs):
            for index in torch.randperm(len(labels)).split(64):
                outputs = model(inputs[index])
                optimizer.zero_grad()
                nn.functional.cross_entropy(outputs, labels[index]).backward()
                optimizer.step()
                recording(epoch, index, outputs, labels[index])
    return recording


PARTS: dict[str, Callable[[int, float], None]] = {
    "writing": writing,
    "overhead": overhead,
    "scoring": scoring,
    "simulation": simulation,
    "errors": errors,
}


if __name__ == "__main__":
    main()
