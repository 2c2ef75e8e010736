"""What becomes of a run under torchrun when a rank is killed: are the curve, the plan and the weights those of the undisturbed run?

A recipe trains, prunes and recovers on two processes (gloo). It runs once undisturbed; then, ``--times`` times, a rank drawn at
random gets SIGKILL at a moment drawn at random, torchrun starts all ranks anew (``--max-restarts``), and the run goes on from what
is kept::

    python benchmarks/faults_training.py --times 5 --sharding ddp
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from prunus.core.files.plain_files import sha256_file

RECIPE = """
name: faults
output: {output}
data: {{source: "ranks_data:data"}}
model: {{builder: "ranks_data:net"}}
train: {{epochs: 6, batch_size: 31, learning_rate: 0.01}}
strategy: {{granularity: channel, keep_fraction: 0.5, criterion: taylor}}
recovery: {{epochs: 6, batch_size: 31, learning_rate: 0.005, average: {{kind: ema, decay: 0.99}}}}
evaluation: {{bootstrap: 100, latency: {{repeats: 5, warm_up: 1, runtime: torch}}}}
runtime: {{sharding: {sharding}}}
seeds: [0]
"""
DATA = """
import torch
from torch import nn


def data():
    draw = torch.Generator().manual_seed(0)
    inputs, weights = torch.randn(607, 16, generator=draw), torch.randn(16, 4, generator=draw)
    targets = (inputs @ weights + torch.randn(607, 4, generator=draw)).argmax(1)
    return torch.utils.data.TensorDataset(inputs, targets)


def net():
    return nn.Sequential(
        nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4)
    )
"""


def started(folder: Path, name: str, sharding: str) -> subprocess.Popen[str]:
    """Start the recipe on two ranks."""
    (folder / "ranks_data.py").write_text(DATA)
    (folder / f"{name}.yaml").write_text(RECIPE.format(output=name, sharding=sharding))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "3"]
    command += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command += ["-m", "prunus", "run", f"{name}.yaml", "--overwrite"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    said = (folder / f"{name}.txt").open("w")
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, stdout=said, stderr=subprocess.STDOUT)


def ranks_of(agent: int) -> list[int]:
    """Return the processes that an agent of torchrun started."""
    tree = subprocess.run(["ps", "-o", "pid=", "--ppid", str(agent)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in tree.stdout.split()]


def result(folder: Path, name: str) -> dict[str, object]:
    """Return what is compared: the curves, the plan's units and the weights."""
    record = json.loads((folder / name / "record.json").read_text())
    weights = {path.parent.name: sha256_file(path) for path in sorted((folder / name).rglob("*.safetensors"))}
    return {"curves": record["curves"], "units": sha256_file(folder / name / "plan" / "units.parquet"), **weights}


def last_stage(folder: Path, name: str) -> str:
    """Return the last line that the run logged before now."""
    log = folder / name / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return json.loads(lines[-1])["stage"] if lines else "before the first stage"


def restarts(folder: Path, name: str) -> int:
    """Return how often the run began anew."""
    lines = map(json.loads, (folder / name / "log.jsonl").read_text().splitlines())
    return sum(line["stage"] == "load data" and line["kind"] == "start" for line in lines) - 1


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
        begin = time.monotonic()
        undisturbed = started(folder, "whole", options.sharding)
        assert undisturbed.wait() == 0, (folder / "whole.txt").read_text()[-2000:]
        seconds = time.monotonic() - begin
        expected = result(folder, "whole")
        print(f"{options.sharding}: undisturbed in {seconds:.1f} s")
        print("| kill | rank | after s | in stage | exit code | restarts | curves, plan, weights |")
        print("|---|---|---|---|---|---|---|")
        for number in range(options.times):
            name = f"killed{number}"
            agent = started(folder, name, options.sharding)
            begin, rank = time.monotonic(), draw.randrange(2)
            wait = draw.uniform(0.3, 0.95) * seconds
            while time.monotonic() - begin < wait or len(ranks_of(agent.pid)) < 2:
                if agent.poll() is not None:
                    break
                time.sleep(0.05)
            pids = ranks_of(agent.pid)
            stage = last_stage(folder, name)
            if len(pids) == 2:
                os.kill(pids[rank], signal.SIGKILL)
            after = time.monotonic() - begin
            code = agent.wait()
            same = code == 0 and result(folder, name) == expected
            print(
                f"| {number + 1} | {rank if len(pids) == 2 else 'none, it was done'} | {after:.1f} | {stage} | {code} | "
                f"{restarts(folder, name)} | {'identical' if same else 'DIFFERENT'} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
