"""What becomes of a run under torchrun when a rank is killed: are the curve, the plan and the weights those of the undisturbed run?

A recipe trains, prunes and recovers on two processes (gloo). It runs once undisturbed; then, until ``--times`` kills struck, a rank
drawn at random gets SIGKILL at a moment drawn at random of the training or the recovery. A kill counts where the run's log says
that this stage had begun and not ended at that moment; one that came too late is drawn anew, and said. torchrun then starts all
ranks anew (``--max-restarts``): how often is its own count, of its log. The run goes on from what is kept::

    python benchmarks/faults_training.py --times 5 --sharding ddp
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from prunus.core.files.file_hash import sha256_file
from prunus.core.files.sealed import DamagedError, unseal

STAGES = ("seed 0 / train", "seed 0 / recover 1 of 1")
RECIPE = """
name: faults
output: {output}
data: {{source: "ranks_data:data"}}
model: {{builder: "ranks_data:net"}}
train: {{epochs: 10, batch_size: 31, learning_rate: 0.01}}
strategy: {{granularity: channel, keep_fraction: 0.5, criterion: taylor}}
recovery: {{epochs: 10, batch_size: 31, learning_rate: 0.005, average: {{kind: ema, decay: 0.99}}}}
evaluation: {{bootstrap: 100, latency: {{repeats: 5, warm_up: 1, runtime: torch}}}}
runtime: {{sharding: {sharding}}}
seeds: [0]
"""
DATA = """
import torch
from torch import nn


def data():
    draw = torch.Generator().manual_seed(0)
    inputs, weights = torch.randn(1207, 16, generator=draw), torch.randn(16, 4, generator=draw)
    targets = (inputs @ weights + torch.randn(1207, 4, generator=draw)).argmax(1)
    return torch.utils.data.TensorDataset(inputs, targets)


def net():
    return nn.Sequential(
        nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4)
    )
"""


def started(folder: Path, name: str, sharding: str) -> subprocess.Popen[str]:
    """Start the recipe on two ranks; torchrun says what it does."""
    (folder / "ranks_data.py").write_text(DATA)
    (folder / f"{name}.yaml").write_text(RECIPE.format(output=name, sharding=sharding))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "3"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command += ["-m", "prunus", "run", f"{name}.yaml", "--overwrite"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LOGLEVEL": "INFO"}
    said = (folder / f"{name}.txt").open("w")
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, stdout=said, stderr=subprocess.STDOUT)


def restarts(folder: Path, name: str) -> int:
    """Return how often torchrun started all ranks anew, as it says itself."""
    return max(map(int, re.findall(r"restart_count=(\d+)", (folder / f"{name}.txt").read_text())), default=0)


def ranks_of(agent: int) -> dict[int, int]:
    """Return the processes that an agent of torchrun started, by their ranks."""
    tree = subprocess.run(["ps", "-o", "pid=", "--ppid", str(agent)], capture_output=True, text=True, check=False)
    found = {}
    for pid in map(int, tree.stdout.split()):
        try:
            told = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        found |= {int(entry[5:]): pid for entry in told if entry.startswith(b"RANK=")}
    return found


def times(folder: Path, name: str, stage: str) -> tuple[float, float]:
    """Return when a stage began and ended, by the run's log; infinity for what it doesn't say (yet)."""
    log = folder / name / "log.jsonl"
    found: dict[str, float] = {}
    for line in map(json.loads, log.read_text().splitlines() if log.exists() else []):
        if line["stage"] == stage:
            found.setdefault(line["kind"], line["time"])
    return found.get("start", float("inf")), found.get("end", float("inf"))


def n_kept(folder: Path, name: str, stage: str) -> int:
    """Return after how many epochs of a stage a run would go on now."""
    try:
        content = unseal(folder / name / ".work" / f"{stage.replace('/', '_')}.checkpoint")
    except DamagedError:
        return 0
    return 0 if content is None else int(torch.load(io.BytesIO(content), weights_only=True)["epoch"])


def result(folder: Path, name: str) -> dict[str, object]:
    """Return what is compared: the curves, the plan's units and the weights."""
    record = json.loads((folder / name / "record.json").read_text())
    weights = {path.parent.name: sha256_file(path) for path in sorted((folder / name).rglob("*.safetensors"))}
    return {"curves": record["curves"], "units": sha256_file(folder / name / "plan" / "units.parquet"), **weights}


@dataclass(frozen=True)
class Strike:
    """A kill: of which rank, in which stage, after which share of the stage's undisturbed time."""

    rank: int
    stage: str
    share: float


def strike(folder: Path, name: str, sharding: str, plan: Strike, seconds: float) -> tuple[bool, int, int]:
    """Run, kill as planned, and wait for the end; return whether the kill met the stage, what was kept then, and the exit code."""
    agent = started(folder, name, sharding)
    while agent.poll() is None and times(folder, name, plan.stage)[0] == float("inf"):
        time.sleep(0.02)
    time.sleep(plan.share * seconds)
    kept, ranks = n_kept(folder, name, plan.stage), ranks_of(agent.pid)
    begun, ended = times(folder, name, plan.stage)
    struck = begun < float("inf") and ended == float("inf") and plan.rank in ranks
    if struck:
        at = time.time()
        os.kill(ranks[plan.rank], signal.SIGKILL)
    code = agent.wait()
    return struck and times(folder, name, plan.stage)[1] > at, kept, code


def main() -> None:
    """Print one row per kill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--sharding", default="ddp", choices=["ddp", "fsdp"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        assert started(folder, "whole", options.sharding).wait() == 0, (folder / "whole.txt").read_text()[-2000:]
        expected, took = result(folder, "whole"), {}
        for stage in STAGES:
            begun, ended = times(folder, "whole", stage)
            took[stage] = ended - begun
        told = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in took.items())
        print(f"{options.sharding}: undisturbed {told}; restarts {restarts(folder, 'whole')}")
        print("| kill | rank | stage | epochs kept | torchrun's restarts | exit code | curves, plan, weights |")
        print("|---|---|---|---|---|---|---|")
        number = missed = 0
        while number < options.times:
            plan = Strike(draw.randrange(2), draw.choice(STAGES), draw.uniform(0.05, 0.9))
            name = f"killed{number + missed}"
            struck, kept, code = strike(folder, name, options.sharding, plan, took[plan.stage])
            if not struck:
                missed += 1
                continue
            number += 1
            same = code == 0 and result(folder, name) == expected
            print(
                f"| {number} | {plan.rank} | {plan.stage} | {kept} of 10 | {restarts(folder, name)} | {code} | "
                f"{'identical' if same else 'DIFFERENT'} |",
                flush=True,
            )
        print(f"{missed} kills came after the stage and were drawn anew")


if __name__ == "__main__":
    main()
