"""How many requests a second does `prunus serve` answer, beside LitServe with batching and a server that runs the model inline?

A 17 MB MLP (1024 -> 1408 -> 1408 -> 576 -> 10), ONNX Runtime on one thread everywhere. `wrk` asks over the loopback with one
thread; servers take turns, so that what else the machine does meets all of them. Printed are medians over the rounds, with the
least and the most, latencies, errors, and requests per second of processor time, which others on the machine change less.

Usage: python benchmarks/serving.py [--rounds 3] [--seconds 4] [--peer-python PYTHON]   (LitServe must be installed for that PYTHON)
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from prunus.ship import export_file, load_bundle, save_bundle

CLIENTS = (1, 16, 64)
SHAPE = (1024,)

LUA = """
local file = io.open("{body}", "rb"); wrk.body = file:read("*a"); file:close()
wrk.method = "POST"
{headers}
function done(summary, latency, requests)
  io.write(string.format("RESULT %d %d %.1f %.1f %.1f %d %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), latency.mean, summary.errors.status,
    summary.errors.timeout + summary.errors.read + summary.errors.write))
end
"""


@dataclass
class Server:
    """A server in a process of its own, and what was measured of it."""

    name: str
    process: subprocess.Popen[bytes]
    url: str
    script: Path
    rates: dict[int, list[float]] = field(default_factory=dict)
    per_cpu: dict[int, list[float]] = field(default_factory=dict)
    latencies: dict[int, list[tuple[float, float, float]]] = field(default_factory=dict)
    errors: dict[int, int] = field(default_factory=dict)

    def measure(self, clients: int, seconds: float) -> None:
        """Let wrk ask for some seconds."""
        before = cpu_seconds(self.process.pid)
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--timeout", "5s", "-s", str(self.script), self.url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        used = cpu_seconds(self.process.pid) - before
        found = re.search(r"RESULT (\d+) (\d+) ([\d.]+) ([\d.]+) ([\d.]+) (\d+) (\d+)", said)
        assert found is not None, said
        n, micros, p50, p99, mean, bad, lost = map(float, found.groups())
        self.rates.setdefault(clients, []).append(n / (micros / 1e6))
        self.per_cpu.setdefault(clients, []).append(n / max(used, 1e-3))
        self.latencies.setdefault(clients, []).append((p50 / 1000, p99 / 1000, mean / 1000))
        self.errors[clients] = self.errors.get(clients, 0) + int(bad + lost)


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and all below it."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(words[1])
        used[int(stat.parent.name)] = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    family, grown = {pid}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in family} - family
        grown = bool(more)
        family |= more
    return sum(used.get(one, 0.0) for one in family)


def mlp() -> nn.Sequential:
    """Return the model: 17 MB of weights."""
    torch.manual_seed(0)
    layers = [nn.Linear(1024, 1408), nn.ReLU(), nn.Linear(1408, 1408), nn.ReLU(), nn.Linear(1408, 576), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(576, 10))


def bodies(folder: Path) -> dict[str, Path]:
    """Write what clients send, and wrk's scripts; return the scripts."""
    x = np.random.default_rng(0).standard_normal((1, *SHAPE)).astype(np.float32)
    data = [round(float(value), 6) for value in x[0]]
    tensor = {"name": "input", "shape": [1, *SHAPE], "datatype": "FP32"}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": x.nbytes}}]}).encode()
    head += b" " * (-len(head) % 64)
    found = {
        "json": (json.dumps({"inputs": [tensor | {"data": data}]}).encode(), {}),
        "binary": (head + x.tobytes(), {"Inference-Header-Content-Length": str(len(head))}),
        "plain": (json.dumps({"data": data}).encode(), {}),
    }
    scripts = {}
    for name, (body, headers) in found.items():
        (folder / f"{name}.body").write_bytes(body)
        lines = "\n".join(
            f'wrk.headers["{key}"] = "{value}"'
            for key, value in {"Content-Type": "application/json", **headers}.items()
        )
        scripts[name] = folder / f"{name}.lua"
        scripts[name].write_text(LUA.format(body=folder / f"{name}.body", headers=lines))
    return scripts


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server and what it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def started(name: str, command: list[str], url: str, script: Path) -> Server:
    """Return a server that answers."""
    log = script.with_name(f"{name.replace(' ', '-')}.log").open("wb")
    process = subprocess.Popen(
        command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True
    )
    atexit.register(end, process)
    body = script.with_suffix(".body").read_bytes()
    headers = {"Content-Type": "application/json"}
    if name == "prunus binary":
        headers["Inference-Header-Content-Length"] = re.findall(r'Content-Length"\] = "(\d+)"', script.read_text())[0]
    until = time.monotonic() + 180
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=5) as answer:
                answer.read()
            return Server(name, process, url, script)
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{name} refuses: {error} {error.read()[:300]!r}") from None
        except OSError:
            if time.monotonic() > until or process.poll() is not None:
                raise SystemExit(f"{name} didn't start: {Path(log.name).read_text()[-500:]}") from None
            time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--peer-python", default=sys.executable)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk isn't installed: apt-get install wrk")
    folder = Path(tempfile.mkdtemp())
    model = mlp()
    facts = {"input_shape": SHAPE, "n_outputs": 10, "task": "classification", "class_names": tuple("0123456789")}
    save_bundle(folder / "mlp", model, built_by=None, dense=model, **facts)  # type: ignore[arg-type]
    file = folder / "mlp.onnx"
    export_file(load_bundle(folder / "mlp"), "onnx", file)
    scripts = bodies(folder)
    ports = [free_port() for _ in range(5)]
    here = Path(__file__).parent
    local = f"http://127.0.0.1:{ports[0]}"
    prunus = [
        sys.executable,
        "-m",
        "prunus",
        "serve",
        str(folder / "mlp"),
        "--cache",
        str(folder / "cache"),
        "--threads",
        "1",
    ]
    ours = f"{local}/v2/models/mlp/infer"
    plain = [sys.executable, str(here / "serving_inline.py"), str(file), str(ports[1])]
    servers = [
        first := started("prunus json", [*prunus, "--port", str(ports[0])], ours, scripts["json"]),
        Server("prunus binary", first.process, ours, scripts["binary"]),
        started("inline", plain, f"http://127.0.0.1:{ports[1]}/infer", scripts["json"]),
    ]
    for number, (timeout, queue) in enumerate((("0", "mp"), ("0.002", "mp"), ("0.002", "fast")), 2):
        command = [
            options.peer_python,
            str(here / "serving_litserve.py"),
            str(file),
            str(ports[number]),
            timeout,
            queue,
        ]
        where = f"http://127.0.0.1:{ports[number]}/predict"
        servers.append(started(f"litserve {timeout} {queue}", command, where, scripts["plain"]))
    for server in servers:
        server.measure(16, 1.0)
        server.rates, server.per_cpu, server.latencies, server.errors = {}, {}, {}, {}
    for turn in range(options.rounds):
        for clients in CLIENTS:
            for server in servers[turn % len(servers) :] + servers[: turn % len(servers)]:
                server.measure(clients, options.seconds)
    report(servers, options.rounds, options.seconds)
    for server in servers:
        end(server.process)
    shutil.rmtree(folder)


def report(servers: list[Server], rounds: int, seconds: float) -> None:
    """Print what was measured."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {rounds} rounds of {seconds:g} s")
    print("server | clients | requests/s (least, most) | per CPU s | p50 ms | p99 ms | mean ms | errors")
    for clients in CLIENTS:
        for server in servers:
            rates, latencies = server.rates[clients], server.latencies[clients]
            p50, p99, mean = (median(row[place] for row in latencies) for place in range(3))
            print(
                f"{server.name} | {clients} | {median(rates):.0f} ({min(rates):.0f}, {max(rates):.0f}) | "
                f"{median(server.per_cpu[clients]):.0f} | {p50:.2f} | {p99:.2f} | {mean:.2f} | {server.errors[clients]}"
            )
    by_name = {server.name: server for server in servers}
    ours, inline = by_name["prunus json"], by_name["inline"]
    lit = [server for server in servers if server.name.startswith("litserve")]
    for clients in CLIENTS:
        best = max(lit, key=lambda server: median(server.rates[clients]))
        ratios = [a / b for a, b in zip(ours.rates[clients], best.rates[clients], strict=True)]
        per_cpu = median(ours.per_cpu[clients]) / median(best.per_cpu[clients])
        print(
            f"{clients} clients: {median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f}) times the requests/s of "
            f"{best.name}, {per_cpu:.2f} times per CPU second"
        )
    pairs = list(zip(inline.latencies[1], ours.latencies[1], strict=True))
    for place, word in ((0, "p50"), (2, "mean")):
        ratios = [theirs[place] / own[place] for theirs, own in pairs]
        print(
            f"1 client, inline's {word} latency over ours: {median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
