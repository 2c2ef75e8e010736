"""What lies in deploy/ for Slurm starts what it should: a stand-in for srun takes the commands, and runs them on the loopback."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm.sbatch"
SCONTROL = """#!/bin/bash
[[ $1 == show && $2 == hostnames ]] || exit 2
echo 127.0.0.1
sleep 0.2 # who only reads the first has gone
echo 127.0.0.2
"""
TOLD = f"""#!{sys.executable}
import json, os, sys
print(json.dumps([sys.argv[1:], os.environ["OMP_NUM_THREADS"]]))
"""
SRUN = """#!/bin/bash
[[ $1 == --kill-on-bad-exit=1 ]] || exit 2
shift
"$@" & first=$!
"$@" & second=$!
wait $first && wait $second
"""


def started(folder, srun, *arguments, **variables):
    """Run the script as Slurm does on the first of two nodes, with stand-ins for its commands."""
    stand_ins = folder / "bin"
    stand_ins.mkdir()
    for name, text in (("scontrol", SCONTROL), ("srun", srun)):
        (stand_ins / name).write_text(text)
        (stand_ins / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "64"}
    path = os.pathsep.join([str(stand_ins), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, **slurm, "SLURM_JOB_ID": "123456", "PATH": path, **variables}
    command = ["bash", str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("variables", "processes", "threads", "rest"),
    [
        ({"SLURM_GPUS_ON_NODE": "8"}, "8", "8", ["-o", "runtime.device=cuda"]),
        ({}, "1", "64", ["-o", "runtime.device=cpu"]),
        ({"SLURM_RESTART_COUNT": "1"}, "1", "64", ["--resume", "-o", "runtime.device=cpu"]),
    ],
)
def test_each_node_starts_torchrun_with_options_that_it_has(tmp_path, variables, processes, threads, rest):
    done = started(tmp_path, TOLD, "recipe.yaml", "-o", "seeds=[1]", **variables)
    assert done.returncode == 0, done.stderr
    (kill, torchrun, *given), n_threads = json.loads(done.stdout)
    assert (kill, torchrun, n_threads) == ("--kill-on-bad-exit=1", "torchrun", threads)
    parsed = get_args_parser().parse_args(given)
    assert (parsed.nnodes, parsed.nproc_per_node, parsed.max_restarts) == ("2", processes, 3)
    assert (parsed.rdzv_backend, parsed.rdzv_id) == ("c10d", "123456")
    assert parsed.rdzv_endpoint == f"127.0.0.1:{20_000 + 123_456 % 10_000}"
    assert (parsed.module, parsed.training_script) == (True, "prunus")
    assert parsed.training_script_args == ["run", "recipe.yaml", "-o", "seeds=[1]", *rest]


def test_what_slurm_is_asked_for_is_what_its_manual_calls_so():
    asked = [
        line.split()[1].partition("=")[0] for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")
    ]
    known = "--job-name --nodes --ntasks-per-node --gpus-per-node --cpus-per-task --time --requeue"
    assert asked == known.split()
    assert "--ntasks-per-node=1" in SCRIPT.read_text()  # torchrun itself starts one process for each GPU


DATA = """
import torch


def data():
    draw = torch.Generator().manual_seed(0)
    inputs, weights = torch.randn(101, 6, generator=draw), torch.randn(6, 3, generator=draw)
    return torch.utils.data.TensorDataset(inputs, (inputs @ weights).argmax(1))


def net():
    return torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))
"""
RECIPE = """
output: out
data: {source: "on_slurm:data"}
model: {builder: "on_slurm:net"}
train: {epochs: 1, batch_size: 15}
strategy: {granularity: channel, keep_fraction: 0.5, criterion: taylor}
recovery: {epochs: 1, batch_size: 15}
evaluation: {bootstrap: 100, latency: {repeats: 5, warm_up: 1, runtime: torch}}
seeds: [0]
"""


@pytest.mark.nightly
def test_two_nodes_on_the_loopback_meet_train_and_end(tmp_path):
    (tmp_path / "on_slurm.py").write_text(DATA)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    job = str(random.randrange(10_000))
    done = started(tmp_path, SRUN, "recipe.yaml", SLURM_JOB_ID=job, SLURM_CPUS_PER_TASK="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("bundle out/bundle") == 1  # only rank 0 speaks
    assert (tmp_path / "out" / "bundle" / "manifest.json").exists()
