"""Do several machines that share no disk score, refuse what they can't see, survive a cut cable, and train together?

Machines are namespaces of this computer, each with an address, a name, processes and a disk of its own, on a switch whose cables
can be cut (tests/machines.py; needs root). Data and results lie on a machine that speaks S3 (moto). Ray is started as
deploy/ray-cluster.yaml says. Each check prints ok or FAILED, and how long it took.

    python benchmarks/several_machines.py ray torchrun
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from machines import Machine, machines, missing, until  # noqa: E402

BIN = Path(sys.executable).parent
HEAD, STORE = "10.0.0.5", "10.0.0.8"
ENVIRONMENT = {
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}:{ROOT / 'benchmarks'}",
    "OMP_NUM_THREADS": "1",
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_ENDPOINT_URL": f"http://{STORE}:9000",
    "NO_PROXY": "*",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
SHARDS, ROWS = 24, 50_000
MAKE = f"""
import boto3, numpy as np, pyarrow as pa, pyarrow.parquet as pq
from pathlib import Path
from prunus.core.recipes.recipe import Model
from prunus.models import build
from prunus.ship import save_bundle
names = tuple(f"x{{place}}" for place in range(16))
model, where = Model(builder="mlp", args={{"width": 64}}), Path("/tmp/job")
about = dict(built_by=model, input_shape=(16,), n_outputs=3, task="classification", class_names=("a", "b", "c"))
save_bundle(where / "b", build(model, input_shape=(16,), n_outputs=3, seed=0), feature_names=names, **about)
(where / "in").mkdir()
for number in range({SHARDS}):
    draw = np.random.default_rng(number)
    columns = {{name: draw.random({ROWS}, np.float32) for name in names}} | {{"label": draw.choice(["a", "b", "c"], {ROWS})}}
    pq.write_table(pa.table(columns), where / "in" / f"part-{{number:03}}.parquet")
client = boto3.client("s3")
client.create_bucket(Bucket="bucket")
for path in where.rglob("*"):
    if path.is_file():
        client.put_object(Bucket="bucket", Key=path.relative_to(where).as_posix(), Body=path.read_bytes())
"""
COMPARE = """
import boto3, sys
from pathlib import Path
client, folder, n = boto3.client("s3"), sys.argv[1], 0
for path in Path("/tmp/scores").glob("*.parquet"):
    same = client.get_object(Bucket="bucket", Key=f"{folder}/{path.name}")["Body"].read() == path.read_bytes()
    n += same
print(n)
"""
COUNT = "import boto3, sys; print(boto3.client('s3').list_objects_v2(Bucket='bucket', Prefix=sys.argv[1])['KeyCount'])"
SAME = """
import pyarrow as pa, pyarrow.parquet as pq
from safetensors.torch import load_file
plans = [pq.read_table(f"{run}/plan/units.parquet") for run in ("out", "one")]
whole = [column.name for column in plans[0].schema if not pa.types.is_floating(column.type)]
assert plans[0].select(whole).equals(plans[1].select(whole)), "another plan"
ours, theirs = (load_file(f"{run}/bundle/model.safetensors") for run in ("out", "one"))
assert all((ours[name] - theirs[name]).abs().max() < 1e-5 for name in ours), "other weights"
"""
TRAINED = """
import torch


def data():
    draw = torch.Generator().manual_seed(0)
    inputs, weights = torch.randn(4001, 6, generator=draw), torch.randn(6, 3, generator=draw)
    return torch.utils.data.TensorDataset(inputs, (inputs @ weights).argmax(1))


def net():
    return torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))
"""
RECIPE = """
output: out
data: {source: "trained_here:data"}
model: {builder: "trained_here:net"}
train: {epochs: 10, batch_size: 64}
strategy: {granularity: channel, keep_fraction: 0.5, criterion: taylor}
recovery: {epochs: 5, batch_size: 64}
evaluation: {bootstrap: 100, latency: {repeats: 5, warm_up: 1, runtime: torch}}
seeds: [0]
"""


def tell(what: str, holds: bool, start: float, more: str = "") -> None:
    print(f"{'ok' if holds else 'FAILED'}  {what} ({time.monotonic() - start:.0f} s){more and ': ' + more}", flush=True)


def scored(machine: Machine, *words: str, bundle: str = "s3://bucket/b", given: str = "s3://bucket/in"):
    command = ["prunus", "score-shards", bundle, given, "--target", "label", "--quiet", *words]
    return machine.start(*command, **ENVIRONMENT)


def said(process) -> tuple[int, str]:
    _, errors = process.communicate(timeout=900)
    return process.returncode, errors.strip().splitlines()[-1] if errors.strip() else ""


def ray(head: Machine, nodes: list[Machine]) -> None:
    store = ["--object-store-memory=200000000", "--disable-usage-stats"]
    first = ["--head", f"--node-ip-address={HEAD}", "--port=6379", "--num-cpus=0", "--include-dashboard=false"]
    head.check("ray", "start", *first, *store, **ENVIRONMENT)
    for node in nodes:
        node.check("ray", "start", f"--address={HEAD}:6379", *store, **ENVIRONMENT)
    head.check("python", "-c", MAKE, **ENVIRONMENT)
    cluster = ["--backend", "ray", "--workers", "4", "--address", f"{HEAD}:6379"]
    code, error = said(scored(head, "--output", "/tmp/scores", bundle="/tmp/job/b", given="/tmp/job/in"))
    assert code == 0, error

    start = time.monotonic()
    code, error = said(scored(head, "--output", "/tmp/a", *cluster, bundle="/tmp/job/b", given="/tmp/job/in"))
    tell(
        "data on one machine's disk: a line names who can't read what", code == 8 and "/tmp/job" in error, start, error
    )
    start = time.monotonic()
    code, error = said(scored(head, "--output", "/tmp/c", *cluster))
    tell(
        "results on one machine's disk: a line names who doesn't see it", code == 8 and "/tmp/c" in error, start, error
    )

    start = time.monotonic()
    code, error = said(scored(head, "--output", "s3://bucket/whole", *cluster))
    same = head.check("python", "-c", COMPARE, "whole", **ENVIRONMENT).strip() if code == 0 else error
    tell(
        "data and results at URLs: to the byte those of one process", same == str(SHARDS), start, f"{same} of {SHARDS}"
    )

    start = time.monotonic()
    running = scored(head, "--output", "s3://bucket/cut", *cluster)
    until(lambda: int(head.check("python", "-c", COUNT, "cut/part", **ENVIRONMENT)) > 3, 600, "shards are scored")
    nodes[0].pull()
    code, error = said(running)
    same = head.check("python", "-c", COMPARE, "cut", **ENVIRONMENT).strip() if code == 0 else error
    tell(
        "the cable of a node is cut: the others finish, to the byte", same == str(SHARDS), start, f"{same} of {SHARDS}"
    )
    nodes[0].plug()


def torchrun(first: Machine, second: Machine) -> None:
    for machine in (first, second):
        machine.check("mkdir", "-p", "/tmp/w")
        for name, text in (("trained_here.py", TRAINED), ("recipe.yaml", RECIPE)):
            machine.check("sh", "-c", 'printf %s "$1" > "/tmp/w/$2"', "sh", text, name)
    start = time.monotonic()
    meet = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", "first:29400"]
    job = ["-m", "prunus", "run", "recipe.yaml", "--quiet", "-o", "runtime.device=cpu"]
    started = [machine.start("torchrun", *meet, *job, folder="/tmp/w", **ENVIRONMENT) for machine in (first, second)]
    codes = [said(one)[0] for one in started]
    held = [machine for machine in (first, second) if machine.run("test", "-d", "/tmp/w/out/bundle").returncode == 0]
    first.check("prunus", "run", "recipe.yaml", "-o", "output=one", "--quiet", folder="/tmp/w", **ENVIRONMENT)
    same = held == [first] and first.run("python", "-c", SAME, folder="/tmp/w", **ENVIRONMENT).returncode == 0
    tell("torchrun on two machines, disks of their own: the plan of one process", codes == [0, 0] and same, start)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("what", nargs="*", default=["ray", "torchrun"])
    what = asked.parse_args().what
    if why := missing():
        raise SystemExit(f"no machines can be made here: {why}")
    with tempfile.TemporaryDirectory() as folder:
        if "ray" in what:
            with machines("head", "node1", "node2", "store", folder=Path(folder)) as (head, *nodes, store):
                store.start("python", ROOT / "tests" / "object_store.py", STORE, "9000", **ENVIRONMENT)
                ray(head, nodes)
        if "torchrun" in what:
            with machines("first", "second", folder=Path(folder)) as (first, second):
                torchrun(first, second)


if __name__ == "__main__":
    main()
