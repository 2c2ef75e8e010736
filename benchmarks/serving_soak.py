"""Does a server lose or mix up an answer, or grow, while bundles are replaced, promoted and rolled back and clients misbehave?

A dense and a pruned model are served as a canary. For some minutes clients send good requests in JSON and bytes, every answer of
which is compared with what the version that it names gives; malformed ones; oversized ones; slow ones that stop half-way; and
feedback. Another pruned bundle is loaded each minute, one load is of a damaged bundle, and the pruned model is promoted and
rolled back. Printed are what came back, and how much memory the server took.

Usage: python benchmarks/serving_soak.py [--minutes 10]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from prunus.ship import load_bundle, read_manifest, save_bundle

ADMIN, USER = "a" * 32, "u" * 32
N_ROWS = 64
PATH = "/v2/models/m/infer"


def save(folder: Path, seed: int, width: int) -> Path:
    """Save a bundle of an MLP of 128 features and ten classes; all seeds decide alike on most rows."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, width), nn.ReLU(), nn.Linear(width, 10))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1e-4 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    facts: dict[str, Any] = {"class_names": tuple("0123456789"), "input_shape": (128,), "n_outputs": 10}
    save_bundle(folder, model, built_by=None, dense=model, task="classification", **facts)
    return folder


class Soak:
    """The clients, what they expect and what came."""

    def __init__(self, port: int, pid: int, expected: dict[str, np.ndarray], rows: np.ndarray) -> None:
        self.port, self.pid, self.expected, self.rows = port, pid, expected, rows
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.memory: list[tuple[float, float]] = []
        self.latencies: list[float] = []
        self.ends = False
        self.began = time.monotonic()

    async def ask(self, content: bytes, *, patience_s: float = 40.0) -> tuple[int, dict[str, str], bytes]:
        """Send bytes over a connection of their own and return the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(content)
            return await asyncio.wait_for(answer_of(reader), patience_s)
        finally:
            writer.close()

    async def good(self, seed: int) -> None:
        """Ask over one connection after another, in JSON or bytes, and compare every number."""
        draw = random.Random(seed)
        while not self.ends:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            for _ in range(draw.randint(1, 200)):
                if self.ends:
                    break
                first, n = draw.randrange(N_ROWS), draw.randint(1, 4)
                places = [(first + k) % N_ROWS for k in range(n)]
                binary, name = draw.random() < 0.5, f"{seed}-{draw.random()}"
                began = time.monotonic()
                try:
                    writer.write(request(self.rows[places], binary, name))
                    status, headers, body = await asyncio.wait_for(answer_of(reader), 40)
                except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
                    self.wrong.append(f"good: {type(error).__name__} after {time.monotonic() - self.began:.1f} s")
                    break
                self.latencies.append(time.monotonic() - began)
                self.check(status, headers, body, places, name)
                if draw.random() < 0.02:
                    await self.feedback(name, places)
            writer.close()

    def check(self, status: int, headers: dict[str, str], body: bytes, places: list[int], name: str) -> None:
        """Compare an answer with what the version that it names gives."""
        self.seen[f"good {status}"] += 1
        if status != 200:
            self.wrong.append(f"good: {status} {body[:200]!r}")
            return
        n_json = int(headers.get("inference-header-content-length", len(body)))
        tree = json.loads(body[:n_json])
        output = tree["outputs"][0]
        found = np.array(output["data"], np.float32) if "data" in output else np.frombuffer(body[n_json:], np.float32)
        version = tree["model_version"]
        self.seen[f"answered by {version}"] += 1
        if tree["id"] != name or not np.allclose(
            found.reshape(-1, 10), self.expected[version][places], rtol=1e-3, atol=1e-4
        ):
            self.wrong.append(f"good: another answer than that of {version} for {places}")

    async def feedback(self, name: str, places: list[int]) -> None:
        """Send the dense model's decisions as labels."""
        labels = next(iter(self.expected.values()))[places].argmax(axis=1).tolist()
        status, _, _ = await self.ask(post("/feedback", json.dumps({"id": name, "labels": labels}).encode()))
        self.seen[f"feedback {status}"] += 1
        if status not in (200, 404):
            self.wrong.append(f"feedback: {status}")

    async def bad(self) -> None:
        """Send what is refused, and see that it is, with JSON."""
        draw = random.Random(1)
        tensor = {"name": "input", "datatype": "FP32", "shape": [1, 128], "data": [0.0] * 128}
        kinds: dict[str, tuple[bytes, int]] = {
            "nan": (post(PATH, json.dumps({"inputs": [tensor | {"data": [float("nan")] * 128}]}).encode()), 400),
            "shape": (post(PATH, json.dumps({"inputs": [tensor | {"shape": [1, 127]}]}).encode()), 400),
            "deep": (post(PATH, b"[" * 200_000), 400),
            "no json": (post(PATH, b"\x00" * 100), 400),
            "overflow": (post(PATH, json.dumps({"inputs": [tensor | {"data": [3e38] * 128}]}).encode()), 422),
            "oversized": (post(PATH, b"", length=10**9), 413),
            "oversized in chunks": (chunked(PATH, b"x" * 65536, 20), 413),
            "smuggled": (post(PATH, b"0\r\n\r\n", more=b"transfer-encoding: chunked\r\n"), 400),
            "huge head": (post(PATH, b"{}", more=b"x: " + b"a" * 50_000 + b"\r\n"), 431),
            "no key": (post(PATH, b"{}", key="nobody"), 401),
            "not an admin": (post("/promote", b"{}"), 403),
            "nowhere": (post("/nowhere", b"{}"), 404),
        }
        while not self.ends:
            name = draw.choice(list(kinds))
            content, expected = kinds[name]
            try:
                status, _, body = await self.ask(content)
            except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
                # What is still being sent when the server closes is answered by a reset, not by what was said before.
                self.seen[f"bad: {name}: {type(error).__name__}"] += 1
                continue
            self.seen[f"bad: {name}: {status}"] += 1
            if status != expected or "error" not in json.loads(body):
                self.wrong.append(f"bad: {name}: expected {expected}, got {status} {body[:100]!r}")
            await asyncio.sleep(0.02)

    async def slow(self) -> None:
        """Begin a request, and leave it there until the server has enough."""
        while not self.ends:
            content = request(self.rows[:1], False, "slow")
            for cut in (20, len(content) - 50):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(content[:cut])
                try:
                    status, _, _ = await asyncio.wait_for(answer_of(reader), 60)
                    self.seen[f"slow: {status}"] += 1
                    if status != 408:
                        self.wrong.append(f"slow: {status}")
                except (OSError, asyncio.IncompleteReadError):
                    self.seen["slow: closed"] += 1
                finally:
                    writer.close()

    async def admin(self, bundles: list[str], minutes: float, beat_s: float) -> None:
        """Load another bundle each beat; promote, roll back, and try a damaged one."""
        turn = 0
        while not self.ends:
            await asyncio.sleep(beat_s)
            if self.ends:
                return
            turn += 1
            name = "damaged" if turn == 4 else bundles[turn % len(bundles)]
            body = json.dumps({"parameters": {"bundle": name}}).encode()
            status, _, said = await self.ask(post("/v2/repository/models/m/load", body, key=ADMIN), patience_s=300)
            self.seen[f"load {name}: {status}"] += 1
            if status != (422 if name == "damaged" else 200):
                self.wrong.append(f"load {name}: {status} {said[:200]!r}")
            if turn in (2, 6):
                status, _, said = await self.ask(post("/promote", b'{"force": true}', key=ADMIN))
                self.seen[f"promote: {status}"] += 1
                await asyncio.sleep(beat_s / 3)
                status, _, said = await self.ask(post("/rollback", b"", key=ADMIN))
                self.seen[f"roll back: {status}"] += 1

    async def watch(self) -> None:
        """Note how much memory the server takes."""
        while not self.ends:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
            self.memory.append((time.monotonic() - self.began, pages * os.sysconf("SC_PAGE_SIZE") / 2**20))
            await asyncio.sleep(2)

    async def run(self, bundles: list[str], minutes: float, beat_s: float) -> None:
        """Let all clients work for some minutes."""
        jobs = [self.good(seed) for seed in range(6)]
        jobs += [self.bad(), self.slow(), self.watch(), self.admin(bundles, minutes, beat_s)]
        tasks = [asyncio.ensure_future(job) for job in jobs]
        await asyncio.sleep(60 * minutes)
        self.ends = True
        await asyncio.wait(tasks, timeout=120)
        for task in tasks:
            if task.done() and task.exception() is not None:
                self.wrong.append(f"a client failed: {task.exception()!r}")


def post(path: str, body: bytes, *, key: str = USER, length: int | None = None, more: bytes = b"") -> bytes:
    """Return the bytes of a request."""
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\ncontent-length: {size}\r\n"
    return head.encode() + more + b"\r\n" + body


def chunked(path: str, part: bytes, n: int) -> bytes:
    """Return the bytes of a request whose body comes in chunks."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {USER}\r\ntransfer-encoding: chunked\r\n\r\n"
    return head.encode() + (b"%x\r\n" % len(part) + part + b"\r\n") * n + b"0\r\n\r\n"


def request(rows: np.ndarray, binary: bool, name: str) -> bytes:
    """Return the bytes of an inference request."""
    tensor: dict[str, Any] = {"name": "input", "datatype": "FP32", "shape": list(rows.shape)}
    if not binary:
        return post(PATH, json.dumps({"id": name, "inputs": [tensor | {"data": rows.reshape(-1).tolist()}]}).encode())
    tensor["parameters"] = {"binary_data_size": rows.nbytes}
    head = json.dumps({"id": name, "inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    more = b"inference-header-content-length: %d\r\n" % len(head)
    return post(PATH, head + rows.tobytes(), more=more)


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
    return int(status.split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--beat", type=float, default=60, help="seconds between loads")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    rows = np.random.default_rng(0).standard_normal((N_ROWS, 128)).astype(np.float32)
    names = ["one", "two", "three"]
    folders = [
        save(folder / "dense", 0, 512),
        *(save(folder / "all" / name, seed, 512) for seed, name in enumerate(names, 1)),
    ]
    damaged = shutil.copytree(folders[1], folder / "all" / "damaged")
    with (damaged / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    expected = {
        read_manifest(one).sha256[:12]: load_bundle(one).predict(torch.from_numpy(rows)).numpy() for one in folders
    }
    command = [sys.executable, "-m", "prunus", "serve", str(folders[1]), "--dense", str(folders[0]), "--canary", "30"]
    command += ["--bundles", str(folder / "all"), "--cache", str(folder / "cache"), "--port", "0", "--name", "m"]
    command += ["--threads", "1", "--max-body", "1", "--max-disagreement", "0.5", "--max-drop", "0.5"]
    environment = {**os.environ, "PRUNUS_API_KEYS": f"ops {ADMIN} admin, user {USER}", "OMP_NUM_THREADS": "1"}
    log = (folder / "log").open("wb")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    soak = Soak(int(line.split()[2].rsplit(":", 1)[1]), process.pid, expected, rows)
    try:
        asyncio.run(soak.run(names, options.minutes, options.beat))
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    report(soak, options.minutes, code, (folder / "log").read_text())
    shutil.rmtree(folder)


def report(soak: Soak, minutes: float, code: int, log: str) -> None:
    """Print what came back."""
    print(f"{minutes:g} minutes, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; the server ended with {code}")
    for name, count in sorted(soak.seen.items()):
        print(f"{name}: {count}")
    ordered = sorted(soak.latencies)
    print(f"good requests: p50 {1000 * median(ordered):.1f} ms, p99 {1000 * ordered[int(0.99 * len(ordered))]:.1f} ms")
    third = len(soak.memory) // 3
    parts = [[mb for _, mb in soak.memory[at : at + third]] for at in (0, third, 2 * third)]
    print("memory MB, median of each third: " + ", ".join(f"{median(part):.0f}" for part in parts), end="")
    print(f"; most {max(mb for _, mb in soak.memory):.0f}")
    errors = [one for one in log.splitlines() if '"level": "error"' in one]
    print(f"errors in the log: {len(errors)} {errors[:1]}")
    print(f"lost or wrong: {len(soak.wrong)} {soak.wrong[:5]}")


if __name__ == "__main__":
    main()
