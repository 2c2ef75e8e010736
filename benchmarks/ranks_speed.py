"""How much faster do two processes train than one, and what does a step's exchange cost?

The same training (``prunus.recover.train``, gloo, one thread each) runs on one process, on two with the whole model each (ddp) and
on two that hold a part each (fsdp), in turns. Each turn starts the processes anew; the first epoch isn't timed. Compared are
seconds per step of the same batch, so that starting costs nothing here, and rank 0's processor seconds, which other work on the
machine changes less::

    python benchmarks/ranks_speed.py --turns 5
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from prunus.core.code.place import place
from prunus.core.recipes.recipe import Train
from prunus.recover import follow_trainings, leading, open_meeting, train
from prunus.tasks import Classification

WAYS = ("one process", "ddp, 2 processes", "fsdp, 2 processes")
MODELS = {"small": (64, 128, 64), "middle": (256, 512, 256), "large": (1024, 1024, 512)}
"""Numbers of an example, width of the three hidden layers, and examples per batch."""
EPOCHS, STEPS = 4, 12
"""The first epoch warms up."""


class Batch(NamedTuple):
    """What a step reads."""

    index: Tensor
    inputs: Tensor
    targets: Tensor


class Drawn:
    """Random examples in memory."""

    fixed, identity, task = True, "", Classification()

    def __init__(self, n: int, width: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.inputs, self.targets = torch.randn(n, width, generator=draw), torch.randint(10, (n,), generator=draw)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def known_targets(self) -> Tensor:
        """Return the labels."""
        return self.targets

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Yield all examples in a drawn order."""
        for rows in torch.randperm(len(self), generator=generator).split(batch_size):
            yield Batch(rows, self.inputs[rows], self.targets[rows])


def timed(name: str) -> tuple[float, float]:
    """Return a step's seconds, by the clock and of this process's processor, in the median epoch."""
    width, hidden, batch = MODELS[name]
    torch.manual_seed(0)
    widths = (width, hidden, hidden, hidden)
    layers = [part for pair in pairwise(widths) for part in (nn.Linear(*pair), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(hidden, 10))
    examples = Drawn(STEPS * batch, width)
    ticks: list[tuple[float, float]] = []
    train(
        model,
        examples,  # type: ignore[arg-type]
        Train(epochs=EPOCHS, batch_size=batch),
        seed=0,
        stage="timed",
        after_epoch=lambda _: ticks.append((time.perf_counter(), time.process_time())),
    )
    spans = [[(late - early) / STEPS for early, late in zip(a, b, strict=True)] for a, b in pairwise(ticks)]
    clock, own = (statistics.median(column) for column in zip(*spans, strict=True))
    return clock, own


def child(name: str, way: str, out: Path) -> None:
    """Train as one of the processes; rank 0 writes what it took."""
    torch.set_num_threads(1)
    here = place()
    if here.alone:
        out.write_text(json.dumps(timed(name)))
        return
    meeting = open_meeting(here, cuda=False)
    meeting.sharding = "fsdp" if way.startswith("fsdp") else "ddp"
    if not here.leads:
        raise SystemExit(0 if follow_trainings(meeting) else 1)
    try:
        with leading(meeting):
            out.write_text(json.dumps(timed(name)))
    finally:
        meeting.end()


def turn(name: str, way: str, folder: Path, niceness: int) -> tuple[float, float]:
    """Return what a step took when the processes of one way were started anew."""
    n_ranks = 1 if way == WAYS[0] else 2
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    out = folder / "took.json"
    command = ["nice", "-n", str(niceness), sys.executable, "-W", "ignore", __file__, "--child", name, way, str(out)]
    started = []
    for rank in range(n_ranks):
        told = {
            "RANK": rank,
            "WORLD_SIZE": n_ranks,
            "LOCAL_RANK": rank,
            "LOCAL_WORLD_SIZE": n_ranks,
            "MASTER_PORT": port,
        }
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
        environment |= {key: str(value) for key, value in told.items()} if n_ranks > 1 else {}
        started.append(subprocess.Popen(command, env=environment))
    codes = [process.wait() for process in started]
    assert codes == [0] * n_ranks, codes
    clock, own = json.loads(out.read_text())
    return clock, own


def shown(values: list[float], form: str) -> str:
    """Return the median and the spread."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def main() -> None:
    """Print one row per model and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument(
        "--nice", type=int, default=0, help="of the processes that are timed; below 0 on a busy machine"
    )
    parser.add_argument("--child", nargs=3, default=None)
    options = parser.parse_args()
    if options.child is not None:
        name, way, out = options.child
        child(name, way, Path(out))
        return
    print(
        "| model | parameters | batch | how | ms per step, median (spread) | times one process | rank 0's processor ms |"
    )
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            width, hidden, batch = MODELS[name]
            n = (width + 1) * hidden + 2 * (hidden + 1) * hidden + (hidden + 1) * 10
            took: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
            for _ in range(options.turns):
                for way in WAYS:
                    took[way].append(turn(name, way, Path(folder), options.nice))
            for way in WAYS:
                clock, own = ([1000 * value for value in column] for column in zip(*took[way], strict=True))
                ratios = [one / two for (one, _), (two, _) in zip(took[WAYS[0]], took[way], strict=True)]
                ratio = "1" if way == WAYS[0] else shown(ratios, ".2f")
                print(
                    f"| {name} | {n:,} | {batch} | {way} | {shown(clock, '.2f')} | {ratio} | {shown(own, '.2f')} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
