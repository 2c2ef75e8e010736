"""What does a lost worker, node, driver, disk or shard cost, and is the result the undisturbed one?

Usage: python benchmarks/faults.py [--repetitions 5] [--seed 0] [--only NAME] [--folder FOLDER]

Forty files of 32 columns are scored by two workers, and something happens at a random moment: a worker or the driver is killed, a
node is removed, the disk of the output is full, a shard is damaged, the object store of each node is full. Then the run goes on
with ``resume``, where it ended. Counted are the shards that were begun more than once, by marks that they leave, against those that
were under way; the scores are compared byte by byte with those of a run in one process that nothing happened to, and no other file
may lie beside them. Each accident is drawn from the seed, its row and its number. The full disk is a file system of a size that is
drawn (mounted, which takes root). Run it as root, or without that row (``--only``). It ends with 1 where a repetition went wrong.
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
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from dispatch_load import MARK, STORE_BYTES, add_node, hash_of, loopback_cluster, write_shards
from faults_bench import N_ROWS, N_SHARDS, WORKERS, Bench, children, done, run, said


def main() -> int:
    """Do each accident several times and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of a row's name, such as 'node' or ', ray'")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--run", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault(MARK, uuid.uuid4().hex)
    if arguments.run:
        shards, output, marks, address, ballast, pause = arguments.run
        print(json.dumps(run(Path(shards), Path(output), Path(marks), address or None, int(ballast), float(pause))))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        write_shards(folder / "shards", N_SHARDS, N_ROWS)
        bench = Bench(folder, random.Random())
        bench.marks.mkdir(exist_ok=True)
        shutil.rmtree(folder / "alone", ignore_errors=True)
        run(bench.shards, folder / "alone", bench.marks, "here")
        bench.whole = hash_of(folder / "alone")
        print("| what happens | workers | what then | begun more than once, median (spread) | identical |")
        print("| --- | --- | --- | --- | --- |", flush=True)
        rows = [row for row in ACCIDENTS if arguments.only in f"{row[0]}, {row[1]}"]
        right = [_row(*row, bench, arguments.repetitions, arguments.seed) for row in rows]
    return 0 if all(right) else 1


Accident = Callable[[Bench], str]


def _row(name: str, kind: str, accident: Accident, bench: Bench, repetitions: int, seed: int) -> bool:
    outcomes: list[str] = []
    again, same = [], 0
    with _place(kind, bench, full="object stores" in name):
        for repetition in range(repetitions):
            bench.fresh(f"{seed}/{name}/{kind}/{repetition}")
            began = time.perf_counter()
            outcomes.append(accident(bench))
            again.append(bench.begun_again())
            same += bench.is_whole()
            told = f"{outcomes[-1]}, {again[-1]} again, {same} the same, {time.perf_counter() - began:.0f} s"
            print(f"{name}, {kind}: {told}", file=sys.stderr, flush=True)
            if os.path.ismount(bench.output):
                subprocess.run(["umount", str(bench.output)], check=True)
    spread = f"{statistics.median(again):g} ({min(again)} to {max(again)})"
    told = ", ".join(f"{n} of {repetitions}: {outcome}" for outcome, n in Counter(outcomes).items())
    print(f"| {name} | {kind} | {told} | {spread} | {same} of {repetitions} |", flush=True)
    at_most = WORKERS + (accident is damage_scores_that_were_done)
    return same == repetitions and max(again) <= at_most and not any(one.startswith("WRONG") for one in outcomes)


@contextmanager
def _place(kind: str, bench: Bench, *, full: bool) -> Iterator[None]:
    if kind == "local":
        bench.address = bench.cluster = None
        yield
        return
    # A store that is full would otherwise go on in files, until the disk is full to 95 %.
    full_store = {"automatic_object_spilling_enabled": False, "local_fs_capacity_threshold": 0.01}
    options: dict[str, Any] = {"_system_config": full_store} if full else {}
    with loopback_cluster(2, **options) as cluster:
        bench.cluster, bench.address = cluster, cluster.address
        yield


def kill_a_worker(bench: Bench) -> str:
    """Kill a process that scores, as the system does for lack of memory."""
    process = bench.started()
    bench.at_a_moment()
    while not (workers := bench.at_work()):
        time.sleep(0.01)
    os.kill(bench.draw.choice(workers), signal.SIGKILL)
    return _ended(process)


def remove_a_node(bench: Bench) -> str:
    """Take away the node that isn't the head, with all its processes at one stroke, and bring another."""
    process = bench.started()
    bench.at_a_moment()
    node = bench.cluster.list_all_nodes()[1]
    for raylet in node.all_processes["raylet"]:
        for pid in (raylet.process.pid, *children(raylet.process.pid)):
            os.kill(pid, signal.SIGKILL)
    bench.cluster.remove_node(node, allow_graceful=False)
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
    right = found.get("shards_resumed", -1) >= before and not found["failed"]
    return "resumed" if right else f"WRONG: {found}"


def damage_scores_that_were_done(bench: Bench) -> str:
    """Kill the driver, turn a bit of a file of scores that was done, and go on: it is done again."""
    process = bench.started()
    bench.at_a_moment()
    process.kill()
    process.wait()
    before = done(bench.output)
    path = bench.output / f"part-{bench.draw.randrange(max(before - WORKERS, 1)):04d}.parquet"
    whole = bytearray(path.read_bytes())
    whole[bench.draw.randrange(len(whole))] ^= 1 << bench.draw.randrange(8)
    path.write_bytes(whole)
    found = bench.resumed()
    right = before - 1 <= found.get("shards_resumed", -1) < N_SHARDS and not found["failed"]
    return "resumed" if right else f"WRONG: {found}"


def disk_full(bench: Bench) -> str:
    """Score to a file system that is too small, enlarge it, and go on."""
    need = sum(path.stat().st_size for path in (bench.folder / "alone").glob("*.parquet"))
    size = int(need * bench.draw.uniform(0.15, 0.85)) + (1 << 16)
    bench.output.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(bench.output)], check=True)
    found = said(bench.started())
    if not found.get("stopped", "").startswith("no space left to write"):
        return f"WRONG: {found}"
    subprocess.run(["mount", "-o", f"remount,size={4 * need}", str(bench.output)], check=True)
    found = bench.resumed()
    return "one line, then resumed" if not found.get("failed", True) else f"WRONG: {found}"


def damaged_shard(bench: Bench) -> str:
    """Damage a shard while the run is on; mend it after it ended, and go on."""
    process = bench.started()
    n = bench.at_a_moment()
    if n > N_SHARDS - 3 * WORKERS:
        return "WRONG: too late"
    path = bench.shards / f"part-{bench.draw.randrange(n + 2 * WORKERS, N_SHARDS):04d}.parquet"
    whole = path.read_bytes()
    times = path.stat()
    cut = whole[: bench.draw.randrange(100, len(whole))]
    path.write_bytes(bench.draw.choice([cut, b"", whole[:-100] + bytes(100)]))
    try:
        found = said(process)
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    if list(found.get("failed", ())) != [str(path)] or found["shards"] != N_SHARDS - 1:
        return f"WRONG: {found}"
    found = bench.resumed()
    return "named, then resumed" if found.get("shards_resumed") == N_SHARDS - 1 else f"WRONG: {found}"


def store_full(bench: Bench) -> str:
    """Fill the object store of every node from another driver while the run is on, until it ends."""
    with _filler(bench) as fill:
        process = bench.started(pause=LONG_PAUSE)
        bench.at_a_moment()
        return _ended(process) if fill() else "WRONG: filled too late"


def store_full_and_a_worker_killed(bench: Bench) -> str:
    """Fill the stores and kill a worker: who takes its place needs the function, which on one node has lost its copy by then."""
    with _filler(bench) as fill:
        process = bench.started(heavy=True, pause=LONG_PAUSE)
        bench.at_a_moment()
        in_time = fill()
        while in_time and not (workers := bench.at_work()):
            time.sleep(0.01)
        if in_time:
            os.kill(bench.draw.choice(workers), signal.SIGKILL)
            time.sleep(10.0)
    return _ended(process) if in_time else "WRONG: filled too late"


def store_full_before_a_resume(bench: Bench) -> str:
    """Kill the driver and fill the stores: a resume whose function has to go through them is refused; make room, and go on."""
    with _filler(bench) as fill:
        process = bench.started(heavy=True)
        bench.at_a_moment()
        process.kill()
        process.wait()
        fill()
        found = bench.resumed(heavy=True)
    if "object store of this node is full" not in found.get("refused", ""):
        return f"WRONG: {found}"
    found = bench.resumed(heavy=True)
    return "one line, then resumed" if not found.get("failed", True) else f"WRONG: {found}"


LONG_PAUSE = 0.2

FILL = """
import sys, ray, numpy
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
strategies = __import__("ray.util.scheduling_strategies", fromlist=["x"])
@ray.remote(num_cpus=0)
class Filler:
    def ready(self):
        return True
    def fill(self):
        self.held, n_bytes = [], 0
        for size in (8 << 20, 1 << 20, 1 << 17):
            try:
                while n_bytes < 1 << 30:
                    self.held.append(ray.put(numpy.zeros(size, numpy.uint8)))
                    n_bytes += size
            except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError):
                pass
        return n_bytes
nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
affinity = strategies.NodeAffinitySchedulingStrategy
fillers = [Filler.options(scheduling_strategy=affinity(node, soft=False)).remote() for node in nodes]
ray.get([filler.ready.remote() for filler in fillers])
print("ready", flush=True)
sys.stdin.readline()
print(*ray.get([filler.fill.remote() for filler in fillers]), flush=True)
sys.stdin.readline()
"""


@contextmanager
def _filler(bench: Bench) -> Iterator[Callable[[], bool]]:
    """Yield what fills the stores, and tells whether the run is still on then; they are emptied with the block."""
    command = [sys.executable, "-c", FILL, bench.address or ""]
    filler = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert filler.stdin is not None
    assert filler.stdout is not None
    asked, told = filler.stdin, filler.stdout

    def fill() -> bool:
        print(file=asked, flush=True)
        n_bytes = [int(word) for word in told.readline().split()]
        if len(n_bytes) < 2 or min(n_bytes) < 0.95 * STORE_BYTES:
            raise RuntimeError(f"the object stores couldn't be filled: {n_bytes}")
        return done(bench.output) < N_SHARDS - WORKERS

    if told.readline() != "ready\n":
        raise RuntimeError("nobody is there to fill the object stores")
    try:
        yield fill
    finally:
        asked.close()
        filler.wait()
        time.sleep(2.0)  # what a driver held is let go a little after it went


def _ended(process: subprocess.Popen[str]) -> str:
    found = said(process)
    right = found.get("shards") == N_SHARDS and not found["failed"]
    return "went on" if right else f"WRONG: {found}"


ACCIDENTS: tuple[tuple[str, str, Accident], ...] = (
    ("a worker is killed", "local", kill_a_worker),
    ("the driver is killed", "local", kill_the_driver),
    ("the driver is killed, and scores are damaged", "local", damage_scores_that_were_done),
    ("the output's disk is full", "local", disk_full),
    ("a shard is damaged", "local", damaged_shard),
    ("a worker is killed", "ray", kill_a_worker),
    ("a node is removed", "ray", remove_a_node),
    ("the driver is killed", "ray", kill_the_driver),
    ("the driver is killed, and scores are damaged", "ray", damage_scores_that_were_done),
    ("the output's disk is full", "ray", disk_full),
    ("a shard is damaged", "ray", damaged_shard),
    ("the object stores are full", "ray", store_full),
    ("the object stores are full, and a worker is killed", "ray", store_full_and_a_worker_killed),
    ("the object stores are full before a resume", "ray", store_full_before_a_resume),
)


if __name__ == "__main__":
    sys.exit(main())
