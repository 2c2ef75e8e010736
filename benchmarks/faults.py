"""What does a lost worker, node, driver, disk or shard cost, and is the result the undisturbed one?

Usage: python benchmarks/faults.py [--repetitions 5] [--only NAME] [--folder FOLDER]

Files of 32 columns are scored by two workers, and something happens at a random moment: a worker or the driver is killed, a node is
removed, the disk of the output is full, a shard is damaged, the object store of each node is full. Then the run goes on with
``resume``, where it ended. Counted are the shards that were begun more than once, by marks that they leave, against those that were
under way; the scores are compared byte by byte with those of a run in one process that nothing happened to. The full disk is a file
system of a size that is drawn (mounted, which takes root). Run it as root, or without that row (``--only``).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from dispatch_load import MARK, Opens, Slowly, add_node, hash_of, loopback_cluster, marked, write_shards

from prunus.core.errors import OutputError, PrunusError
from prunus.scale import score_shards
from prunus.scale.dispatch import Dispatch

N_SHARDS, N_ROWS, BATCH_ROWS, PAUSE = 24, 40_000, 4_000, 0.02
WORKERS = 2


def main() -> None:
    """Do each accident several times and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", default="", help="part of a row's name")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault(MARK, uuid.uuid4().hex)
    if arguments.run:
        shards, output, marks, address = arguments.run
        print(json.dumps(run(Path(shards), Path(output), Path(marks), address or None)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        write_shards(folder / "shards", N_SHARDS, N_ROWS)
        bench = Bench(folder, random.Random(0))
        bench.marks.mkdir(exist_ok=True)
        shutil.rmtree(folder / "alone", ignore_errors=True)
        run(bench.shards, folder / "alone", bench.marks, "here")
        bench.whole = hash_of(folder / "alone")
        print("| what happens | workers | went on, or was resumed | begun more than once | identical |")
        print("| --- | --- | --- | --- | --- |", flush=True)
        for name, (kind, accident) in ACCIDENTS.items():
            if arguments.only in f"{name}, {kind}":
                _row(name, kind, accident, bench, arguments.repetitions)


@dataclass
class Bench:
    """Where an accident takes place; ``seconds`` is how long an undisturbed run took, of which a moment is drawn."""

    folder: Path
    draw: random.Random
    whole: str = ""
    address: str | None = None
    cluster: Any = None
    notes: list[str] = field(default_factory=list)

    @property
    def shards(self) -> Path:
        """The files that are scored."""
        return self.folder / "shards"

    @property
    def output(self) -> Path:
        """Where the scores go."""
        return self.folder / "output"

    @property
    def marks(self) -> Path:
        """A file for each time that a shard was begun."""
        return self.folder / "marks"

    def fresh(self) -> None:
        """Forget the last run."""
        for folder in (self.output, self.marks):
            shutil.rmtree(folder, ignore_errors=True)
        self.marks.mkdir()

    def started(self) -> subprocess.Popen[str]:
        """Return a run in a process of its own."""
        command = [sys.executable, __file__, "--run", *map(str, (self.shards, self.output, self.marks))]
        return subprocess.Popen([*command, self.address or ""], stdout=subprocess.PIPE, text=True)

    def at_a_moment(self) -> int:
        """Wait until a number of shards that is drawn is done, and a little more; return the number."""
        n = self.draw.randrange(1, N_SHARDS - 4)
        while done(self.output) < n:
            time.sleep(0.02)
        time.sleep(self.draw.random() * N_ROWS / BATCH_ROWS * PAUSE)
        return n

    def resumed(self) -> dict[str, Any]:
        """Go on with what there is, in a process of its own; return what it says."""
        process = self.started()
        text, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"the resumed run ended with {process.returncode}")
        return dict(json.loads(text))

    def begun_again(self) -> int:
        """Return how many times a shard was begun that had been begun before."""
        return sum(n - 1 for n in Counter(path.name.partition("-")[0] for path in self.marks.iterdir()).values())


def run(shards: Path, output: Path, marks: Path, address: str | None) -> dict[str, Any]:
    """Score the shards by two workers here, or on the cluster at an address; return what was done."""
    dispatch = Dispatch(workers=WORKERS)
    if address == "here":
        dispatch = Dispatch()
    elif address is not None:
        dispatch = Dispatch(backend="ray", workers=WORKERS, address=address)
    opens = Opens(Slowly, marks, PAUSE)
    try:
        found = score_shards(
            [shards], output, opens, settings={}, batch_rows=BATCH_ROWS, backend=dispatch, resume=output.exists()
        )
    except OutputError as error:
        return {"stopped": str(error)}
    except PrunusError as error:
        return {"refused": str(error)}
    return found.to_dict()


def done(output: Path) -> int:
    """Return how many shards the run's state says are done."""
    try:
        return len(json.loads((output / ".prunus-scores.json").read_text())["done"])
    except (OSError, ValueError):
        return 0


def _row(name: str, kind: str, accident: Callable[[Bench], str], bench: Bench, repetitions: int) -> None:
    outcomes: list[str] = []
    again, same = [], 0
    with _place(kind, bench, full=accident is store_full):
        for _ in range(repetitions):
            bench.fresh()
            outcomes.append(accident(bench))
            again.append(bench.begun_again())
            same += hash_of(bench.output) == bench.whole
            print(f"{name}, {kind}: {outcomes[-1]}, {again[-1]} again, {same}", file=sys.stderr, flush=True)
            if os.path.ismount(bench.output):
                subprocess.run(["umount", str(bench.output)], check=True)
    spread = f"{statistics.median(again):g} ({min(again)} to {max(again)})"
    told = ", ".join(f"{n} of {repetitions}: {outcome}" for outcome, n in Counter(outcomes).items())
    print(f"| {name} | {kind} | {told} | {spread} | {same} of {repetitions} |", flush=True)


@contextmanager
def _place(kind: str, bench: Bench, *, full: bool) -> Iterator[None]:
    if kind == "local":
        bench.address = bench.cluster = None
        yield
        return
    config = {"_system_config": {"automatic_object_spilling_enabled": False}} if full else {}
    with loopback_cluster(2, **config) as cluster:
        bench.cluster, bench.address = cluster, cluster.address
        yield


def kill_a_worker(bench: Bench) -> str:
    """Kill a process that scores, as the system does for lack of memory."""
    process = bench.started()
    bench.at_a_moment()
    workers = _workers(process.pid, bench)
    os.kill(bench.draw.choice(workers), signal.SIGKILL)
    return _ended(process)


def remove_a_node(bench: Bench) -> str:
    """Take away the node that isn't the head, and bring another."""
    process = bench.started()
    bench.at_a_moment()
    bench.cluster.remove_node(bench.cluster.list_all_nodes()[1], allow_graceful=False)
    add_node(bench.cluster)
    return _ended(process)


def kill_the_driver(bench: Bench) -> str:
    """Kill the process that hands out the shards, and go on in another one."""
    process = bench.started()
    bench.at_a_moment()
    process.kill()
    process.wait()
    before = done(bench.output)
    found = bench.resumed()
    return "resumed" if found["shards_resumed"] >= before and not found["failed"] else f"RESUMED {found}"


def disk_full(bench: Bench) -> str:
    """Score to a file system that is too small, enlarge it, and go on."""
    need = sum(path.stat().st_size for path in (bench.folder / "alone").glob("*.parquet"))
    size = int(need * bench.draw.uniform(0.15, 0.85)) + (1 << 16)
    bench.output.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(bench.output)], check=True)
    process = bench.started()
    text, _ = process.communicate()
    said = dict(json.loads(text))
    if not said.get("stopped", "").startswith("no space left to write"):
        return f"SAID {said}"
    subprocess.run(["mount", "-o", f"remount,size={4 * need}", str(bench.output)], check=True)
    found = bench.resumed()
    return "one line, then resumed" if not found["failed"] else f"RESUMED {found}"


def damaged_shard(bench: Bench) -> str:
    """Cut a shard short while the run is on; mend it after it ended, and go on."""
    process = bench.started()
    n = bench.at_a_moment()
    path = bench.shards / f"part-{bench.draw.randrange(n + WORKERS + 1, N_SHARDS):04d}.parquet"
    whole = path.read_bytes()
    times = path.stat()
    path.write_bytes(whole[: bench.draw.randrange(100, len(whole))])
    try:
        text, _ = process.communicate()
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    said = dict(json.loads(text))
    if list(said["failed"]) != [str(path)] or said["shards"] != N_SHARDS - 1:
        return f"SAID {said}"
    found = bench.resumed()
    return "named, then resumed" if found["shards_resumed"] == N_SHARDS - 1 else f"RESUMED {found}"


def store_full(bench: Bench) -> str:
    """Fill the object store of every node from another driver while the run is on."""
    process = bench.started()
    bench.at_a_moment()
    command = [sys.executable, "-c", FILL, bench.address or ""]
    filler = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert filler.stdout is not None
    if filler.stdout.readline() != "full\n":
        return "COULD NOT BE FILLED"
    threading.Timer(30.0, filler.kill).start()
    return _ended(process)


FILL = """
import sys, time, ray, numpy
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
strategies = __import__("ray.util.scheduling_strategies", fromlist=["x"])
@ray.remote(num_cpus=0)
class Filler:
    def fill(self):
        self.held = []
        for size in (8 << 20, 1 << 20, 1 << 17):
            try:
                while True:
                    self.held.append(ray.put(numpy.zeros(size, numpy.uint8)))
            except ray.exceptions.ObjectStoreFullError:
                pass
        return sum(size for size in map(len, ray.get(self.held)))
nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
affinity = strategies.NodeAffinitySchedulingStrategy
fillers = [Filler.options(scheduling_strategy=affinity(node, soft=False)).remote() for node in nodes]
ray.get([filler.fill.remote() for filler in fillers])
print("full", flush=True)
time.sleep(600)
"""


def _ended(process: subprocess.Popen[str]) -> str:
    text, _ = process.communicate()
    said = dict(json.loads(text)) if process.returncode == 0 else {}
    return "went on" if said.get("shards") == N_SHARDS and not said["failed"] else f"ENDED {process.returncode} {said}"


def _processes() -> dict[int, tuple[int, str]]:
    """Return the parent and the command line of each process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(path.name)] = parent, (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def _workers(driver: int, bench: Bench) -> list[int]:
    """Return the ids of the processes that score: the driver's own children, or those that the cluster's nodes started."""
    found = _processes()
    if bench.cluster is None:
        return [pid for pid, (parent, command) in found.items() if parent == driver and "spawn_main" in command]
    ours = marked(os.environ[MARK])
    return [pid for pid in ours if found.get(pid, (0, ""))[1].startswith("ray::") and "Agent" not in found[pid][1]]


ACCIDENTS: dict[str, tuple[str, Callable[[Bench], str]]] = {
    "a worker is killed": ("local", kill_a_worker),
    "the driver is killed": ("local", kill_the_driver),
    "the output's disk is full": ("local", disk_full),
    "a shard is damaged": ("local", damaged_shard),
    "a worker is killed ": ("ray", kill_a_worker),
    "a node is removed": ("ray", remove_a_node),
    "the driver is killed ": ("ray", kill_the_driver),
    "the output's disk is full ": ("ray", disk_full),
    "a shard is damaged ": ("ray", damaged_shard),
    "the object stores are full": ("ray", store_full),
}


if __name__ == "__main__":
    main()
