"""What do the benchmarks of dispatch score, on which cluster, and what of a run is watched?

A shard holds 32 random columns, a label, and ``shard`` and ``row``, which say where a row stands. The model is a small network.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

WIDTH = 32
COLUMNS = [f"x{number}" for number in range(WIDTH)]
STORE_BYTES = 80 << 20
MARK = "PRUNUS_BENCHMARK"


def write_shards(folder: Path, n_shards: int, n_rows: int) -> list[Path]:
    """Return files of random rows, written unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"part-{number:04d}.parquet" for number in range(n_shards)]
    for number, path in enumerate(paths):
        if path.exists():
            continue
        draw = np.random.default_rng(number)
        values = draw.standard_normal((WIDTH, n_rows), dtype=np.float32)
        table = dict(zip(COLUMNS, values, strict=True))
        table |= {"y": draw.integers(0, 10, n_rows), "shard": np.full(n_rows, number), "row": np.arange(n_rows)}
        pq.write_table(pa.table(table), path, compression="none", use_dictionary=False)
    return paths


def network() -> torch.nn.Module:
    """Return the model that scores."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(WIDTH, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)).eval()


class Losses:
    """Scores rows by their cross-entropy."""

    columns: tuple[str, ...] = (*COLUMNS, "y")

    def __init__(self) -> None:
        self.model = network()

    def __call__(self, batch: Any) -> dict[str, Any]:
        return {"loss": losses(self.model, batch)}


class Slowly(Losses):
    """Also tells where a row stands; a pause per batch makes room for accidents; ``marks`` has which were begun, by whom."""

    columns = (*COLUMNS, "y", "shard", "row")

    def __init__(self, marks: Path, pause: float) -> None:
        super().__init__()
        self.marks, self.pause = marks, pause

    def __call__(self, batch: Any) -> dict[str, Any]:
        if batch.column("row")[0].as_py() == 0:
            (self.marks / f"{batch.column('shard')[0].as_py()}-{os.getpid()}-{uuid.uuid4()}").touch()
        time.sleep(self.pause)
        return {**super().__call__(batch), "shard": batch.column("shard"), "row": batch.column("row")}


class Opens:
    """Opens a scorer in a worker, by its class and arguments."""

    def __init__(self, kind: type[Losses], *given: Any) -> None:
        self.kind, self.given = kind, given

    def __call__(self) -> Losses:
        return self.kind(*self.given)


_KEPT: list[torch.nn.Module] = []


def mapped(batch: Any) -> Any:
    """Return the same of a batch, for Ray Data; the model is made once in each process."""
    if not _KEPT:
        torch.set_num_threads(1)
        _KEPT.append(network())
    return pa.table({"loss": losses(_KEPT[0], batch)})


def losses(model: torch.nn.Module, batch: Any) -> np.ndarray[Any, Any]:
    """Return the cross-entropy of each row of a batch."""
    with torch.inference_mode():
        rows = torch.stack([torch.from_numpy(np.array(batch.column(name), np.float32)) for name in COLUMNS], dim=1)
        labels = torch.from_numpy(np.array(batch.column("y")))
        return torch.nn.functional.cross_entropy(model(rows), labels, reduction="none").numpy()


def hash_of(folder: Path) -> str:
    """Return a hash of all scores of a run: of their names and bytes."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.parquet")):
        total.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


@contextmanager
def loopback_cluster(n_nodes: int, store_bytes: int = STORE_BYTES, **options: Any) -> Iterator[Any]:
    """Yield a Ray cluster of so many nodes of one core each, on the loopback."""
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_enable_metrics_collection": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # it means: listen on the loopback only
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        add_node(cluster, include_dashboard=False, object_store_memory=store_bytes, **options)
        for _ in range(n_nodes - 1):
            add_node(cluster, object_store_memory=store_bytes)
        yield cluster
    finally:
        sys.modules["ray"].shutdown()
        cluster.shutdown()


def add_node(cluster: Any, **options: Any) -> Any:
    """Return a node that was added; on a busy machine one may need more than the 30 s that Ray gives it."""
    for attempt in range(3):
        try:
            return cluster.add_node(num_cpus=1, **{"object_store_memory": STORE_BYTES, **options})
        except Exception as error:
            if attempt == 2:
                raise
            print(f"a node didn't start ({error}): once more", file=sys.stderr)
    raise AssertionError


def watched(command: list[str], every: float = 0.25, *, silent: bool = False) -> dict[str, float]:
    """Run a command; return its seconds, the processor seconds of all processes that it started, and the most memory they had.

    ``silent`` throws its output away. The processes are found by a variable of their environment, whoever is their parent by then;
    memory that several share counts once.
    """
    mark, used, most = uuid.uuid4().hex, dict[int, float](), 0.0
    start = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, MARK: mark}, stdout=subprocess.DEVNULL if silent else None)
    while process.poll() is None:
        memory = 0.0
        for pid in marked(mark):
            used[pid] = max(used.get(pid, 0.0), _processor_seconds(pid))
            memory += _megabytes(pid)
        most = max(most, memory)
        time.sleep(every)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return {"seconds": time.perf_counter() - start, "processor": sum(used.values()), "mb": most}


def marked(mark: str) -> list[int]:
    """Return the ids of all processes with this mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def _processor_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _megabytes(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)
