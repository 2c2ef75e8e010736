"""What does it cost to score rows of an object store beside the same on the disk, and are only the needed bytes fetched?

A million rows of 32 features that a small network reads and 32 that nobody does, in shards of Parquet; once as files, once as
objects of a server on the loopback that speaks S3 (moto, in a process of its own). Each pass is a new process; the two take turns.
The server is written in Python and runs on the same cores, so that wall time says more of it than of prunus: the client's own
processor time is beside it.

    python benchmarks/urls.py --rows 1000000 --rounds 5
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve()
READ, OTHERS = 32, 32
BUCKET = "prunus-bench"


def network():
    """Return what scores: called by name in each pass."""
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(READ, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))


def write(folder: Path, n_rows: int, n_shards: int) -> tuple[int, int]:
    """Write the shards; return the bytes of the columns that are read, and of all files."""
    needed = whole = 0
    for number in range(n_shards):
        random = np.random.default_rng(number)
        columns = {f"x{place}": random.random(n_rows // n_shards, np.float32) for place in range(READ + OTHERS)}
        path = folder / f"part-{number:03}.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=16384)
        metadata = pq.read_metadata(path)
        for group in range(metadata.num_row_groups):
            needed += sum(metadata.row_group(group).column(place).total_compressed_size for place in range(READ))
        whole += path.stat().st_size
    return needed, whole


def one_pass(given: str, output: str) -> None:
    """Score all shards in this process, and print what it took."""
    from prunus.core.files.urls.url_path import path_at
    from prunus.pipeline.sharding.score_files import score_files

    sys.path.insert(0, str(HERE.parent))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu, start = usage.ru_utime + usage.ru_stime, time.perf_counter()
    found = score_files(
        "urls:network",
        [path_at(given)],
        path_at(output),
        columns=[f"x{place}" for place in range(READ)],
        names=["entropy", "margin"],
    )
    wall = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    assert not found.failed, found.failed
    print(json.dumps({"wall": wall, "cpu": usage.ru_utime + usage.ru_stime - cpu, "memory_mb": usage.ru_maxrss >> 10}))


def serve() -> None:
    """Serve until the input ends; each line asks what was sent since the last one."""
    sys.path.insert(0, str(HERE.parent.parent / "tests"))
    from object_store import ENVIRONMENT, Store

    os.environ.update(ENVIRONMENT)
    store = Store()
    print(store.endpoint, flush=True)
    for _ in sys.stdin:
        n = sum(method == "GET" for method, *_ in store.requests)
        print(json.dumps({"bytes": store.bytes_sent, "gets": n, "requests": len(store.requests)}), flush=True)
        store.bytes_sent = 0
        store.requests.clear()


def weight(folder: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.parquet")))).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pass", dest="one", nargs=2)
    parser.add_argument("--serve", action="store_true")
    asked = parser.parse_args()
    if asked.serve:
        serve()
    elif asked.one:
        one_pass(*asked.one)
    else:
        compare(asked)


def compare(asked: argparse.Namespace) -> None:
    """Let both take turns, and print what each took."""
    sys.path.insert(0, str(HERE.parent.parent / "tests"))
    from object_store import ENVIRONMENT

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "in").mkdir()
        needed, whole = write(root / "in", asked.rows, asked.shards)
        command = [sys.executable, str(HERE)]
        server = subprocess.Popen([*command, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        endpoint = server.stdout.readline().strip()
        environment = {**os.environ, **ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}

        def sent():
            server.stdin.write("\n")
            server.stdin.flush()
            return json.loads(server.stdout.readline())

        os.environ.update(environment)
        import boto3

        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket=BUCKET)
        for path in sorted((root / "in").iterdir()):
            client.upload_file(str(path), BUCKET, f"in/{path.name}")
        sent()
        rows: dict[str, list[dict]] = {"disk": [], "store": []}
        traffic = {}
        for turn in range(asked.rounds + 1):
            places = {
                "disk": (root / "in", root / f"out-{turn}"),
                "store": (f"s3://{BUCKET}/in", f"s3://{BUCKET}/out-{turn}"),
            }
            for kind in ("disk", "store") if turn % 2 else ("store", "disk"):
                done = subprocess.run(
                    [*command, "--pass", *map(str, places[kind])],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                if turn:  # the first warms the disk's cache
                    rows[kind].append(json.loads(done.stdout))
                if kind == "store":
                    traffic = sent()
        last = root / "fetched"
        last.mkdir()
        for entry in client.list_objects_v2(Bucket=BUCKET, Prefix=f"out-{asked.rounds}/part")["Contents"]:
            client.download_file(BUCKET, entry["Key"], str(last / Path(entry["Key"]).name))
        same = weight(last) == weight(root / f"out-{asked.rounds}")
        server.stdin.close()
        server.wait()
    print(f"{asked.rows:,} rows, {asked.shards} shards, {asked.rounds} rounds; the same scores to the bit: {same}")
    for kind, found in rows.items():
        for key, unit in (("wall", "s"), ("cpu", "s of the client's processor"), ("memory_mb", "MB at most")):
            values = [one[key] for one in found]
            print(f"{kind:6} {statistics.median(values):8.2f} {unit} ({min(values):.2f} to {max(values):.2f})")
    for key in ("wall", "cpu"):
        ratios = [store[key] / disk[key] for disk, store in zip(rows["disk"], rows["store"], strict=True)]
        print(f"store / disk, {key}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(
        f"bytes: {needed:,} needed, {traffic['bytes']:,} fetched ({traffic['bytes'] / needed:.2f} times), {whole:,} in all files; "
        f"{traffic['gets']} reads, {traffic['requests']} requests"
    )


if __name__ == "__main__":
    main()
