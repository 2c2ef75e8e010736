"""What does scoring cost? Time and peak memory of each criterion, beside one plain forward and backward pass.

All criteria and the plain pass take turns on the same model and the same calibration data; times are medians with their
quartiles, ratios are medians of ratios within one round. Memory is what a process of its own grows by.

Usage: python benchmarks/criteria_cost.py [--model cnn|resnet|mlp] [--examples 1024] [--batch-size 128] [--rounds 9]
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.core.recipes.recipe import Model
from prunus.data.examples import Batch
from prunus.models import build
from prunus.score import criteria, gather, prunable_weights, score_weights
from prunus.score.criteria.criterion import Need

TOGETHER = ("gradient", "taylor", "snip", "wanda", "apoz", "activation_mean", "activation_variance")
SHAPES = {"cnn": (1, 28, 28), "resnet": (3, 32, 32), "mlp": (256,)}
SIZES = {"cnn": {"width": 32}, "resnet": {"width": 16}, "mlp": {}}


class Random:
    """Random examples with random labels: cost doesn't depend on what they show."""

    def __init__(self, n: int, shape: tuple[int, ...]) -> None:
        draw = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(n, *shape, generator=draw)
        self.targets = torch.randint(0, 10, (n,), generator=draw)
        self.input_shape = shape

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, batch_size: int) -> list[Batch]:
        """Return all batches."""
        return [Batch(i, self.inputs[i], self.targets[i]) for i in torch.arange(len(self)).split(batch_size)]


def loss(outputs: Tensor, batch: Batch) -> Tensor:
    """Return the mean cross-entropy."""
    return functional.cross_entropy(outputs, batch.targets)


def jobs(model: nn.Module, examples: Random, batch_size: int) -> dict[str, Callable[[], object]]:
    """Return what takes turns: the plain pass, everything that one pass gives together, and each criterion by itself."""
    names = prunable_weights(model)
    wanted = [dict(model.named_parameters())[name] for name in names]

    def plain() -> None:
        model.eval()
        for batch in examples.batches(batch_size):
            torch.autograd.grad(loss(model(batch.inputs), batch), wanted)

    def scored(which: tuple[str, ...]) -> Callable[[], object]:
        needs: set[Need] = {need for name in which for need in criteria[name].needs}

        def run() -> None:
            evidence = gather(model, names, examples, loss, needs, batch_size=batch_size)  # type: ignore[arg-type]
            for name in which:
                if "weight" in criteria[name].granularities:
                    score_weights(evidence, names, name)

        return run

    found: dict[str, Callable[[], object]] = {"plain forward + backward": plain, "together": scored(TOGETHER)}
    for name in criteria:
        if name not in ("movement", "block_influence"):  # a training, and not of single weights
            found[name] = scored((name,))
    return found


def peak(name: str, arguments: argparse.Namespace, answer: multiprocessing.SimpleQueue[float]) -> None:
    """Put what a fresh process grows by when it runs one job, in MB."""
    torch.set_num_threads(1)
    model, examples = setting(arguments)
    # What is imported on the first call isn't the criterion's memory.
    jobs(model, Random(4, SHAPES[arguments.model]), arguments.batch_size)[name]()
    run = jobs(model, examples, arguments.batch_size)[name]
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is there now
    before = status_kb("VmRSS")
    run()
    answer.put((status_kb("VmHWM") - before) / 1024)


def status_kb(key: str) -> int:
    """Return one line of what Linux says about this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def setting(arguments: argparse.Namespace) -> tuple[nn.Module, Random]:
    """Return the model and the calibration set."""
    shape = SHAPES[arguments.model]
    model = build(Model(builder=arguments.model, args=SIZES[arguments.model]), input_shape=shape, n_outputs=10, seed=0)
    return model, Random(arguments.examples, shape)


def memory(name: str, arguments: argparse.Namespace) -> float:
    """Return the peak of one job in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=peak, args=(name, arguments, answer))
    process.start()
    process.join()
    return answer.get()


def main() -> None:
    """Print one Markdown row per criterion."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=list(SHAPES), default="cnn")
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="names of criteria, with commas between")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, examples = setting(arguments)
    runs = jobs(model, examples, arguments.batch_size)
    if arguments.only:
        runs = {
            n: run
            for n, run in runs.items()
            if n in ("plain forward + backward", "together", *arguments.only.split(","))
        }
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    n_weights = sum(p.numel() for p in model.parameters())
    print(
        f"{arguments.model}, {n_weights:,} parameters, {arguments.examples} examples, batches of {arguments.batch_size},"
    )
    print(
        f"one thread, torch {torch.__version__}; processor seconds, median (quartiles) of {arguments.rounds} rounds\n"
    )
    print("| criterion | needs | seconds | times the plain pass | peak memory, MB |")
    print("| --- | --- | --- | --- | --- |")
    plain = np.array(seconds["plain forward + backward"])
    for name in runs:
        needs = (
            ", ".join(criteria[name].needs) if name in criteria else ", ".join(TOGETHER) if name == "together" else ""
        )
        low, middle, high = np.quantile(seconds[name], [0.25, 0.5, 0.75])
        ratio = np.quantile(np.array(seconds[name]) / plain, [0.25, 0.5, 0.75])
        cells = [name, needs, f"{middle:.3f} ({low:.3f}–{high:.3f})", f"{ratio[1]:.2f} ({ratio[0]:.2f}–{ratio[2]:.2f})"]
        print("| " + " | ".join([*cells, f"{memory(name, arguments):.0f}"]) + " |", flush=True)


if __name__ == "__main__":
    main()
