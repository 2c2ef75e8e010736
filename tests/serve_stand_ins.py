"""A server without a network: its application is called as uvicorn calls it, and its model is a few lines of NumPy."""

from __future__ import annotations

import asyncio
import json
import queue
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from patience import PATIENCE_S
from prunus.apply.traced.limits import Span
from prunus.core.errors import ModelError
from prunus.core.recipes import recipe
from prunus.models import build
from prunus.serve.gate.admission import Admission
from prunus.serve.gate.api_keys import ApiKeys
from prunus.serve.running.served_model import Loaded
from prunus.serve.serve_settings import ClientLimits, ServeSettings
from prunus.serve.start import application, listening_socket, new_site, uvicorn_server
from prunus.serve.wire.strict_http import _StrictProtocol
from prunus.serve.wire.tensor_specs import ModelSpec, TensorSpec
from prunus.ship import read_manifest, save_bundle


class StandInEngine:
    """Sums of three of the six features; it fails where the first is 666, and notes every batch that it gets."""

    platform, note = "stand_in", ""

    def __init__(self, matrix: np.ndarray | None = None) -> None:
        self.matrix = np.eye(6, 3, dtype=np.float32) if matrix is None else matrix
        self.batches: list[int] = []
        self.go = threading.Event()
        self.go.set()

    def run(self, arrays):
        self.go.wait(PATIENCE_S)
        self.batches.append(len(arrays[0]))
        if (arrays[0][:, 0] == 666).any():
            raise ModelError("the model fails on 666")
        with np.errstate(over="ignore"):
            return [arrays[0] @ self.matrix]


@dataclass
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    app: Any,
    method: str,
    path: str,
    body: Any = b"",
    headers: Mapping[str, str] | None = None,
    client: str = "127.0.0.1",
) -> Answered:
    """Ask an ASGI application as uvicorn would; a body that is no bytes goes as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"host": "localhost:8000", "content-length": str(len(content)), **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()],
        "client": (client, 4000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    parts = [content[at : at + 65536] for at in range(0, len(content), 65536)] or [b""]
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not parts:
            return {"type": "http.disconnect"}
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    await app(scope, receive, send)
    start, *rest = said
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answered(start["status"], found, b"".join(message.get("body", b"") for message in rest))


def infer(data: Any, *, shape: Any = None, datatype: str = "FP32", name: str = "input", **more: Any) -> dict[str, Any]:
    """Return the body of an inference request."""
    values = np.asarray(data)
    shape = list(values.shape) if shape is None else shape
    tensor = {"name": name, "shape": shape, "datatype": datatype, "data": values.reshape(-1).tolist()}
    return {"inputs": [tensor], **more}


def loaded(folder: Path, engine: Any = None, **changes: Any) -> Loaded:
    """Return the bundle in a folder with an engine that is none of ONNX Runtime's."""
    manifest = read_manifest(folder)
    spec = ModelSpec(
        "small",
        manifest.sha256[:12],
        (TensorSpec("input", "FP32", (Span(6, 6),)),),
        (TensorSpec("output", "FP32", (Span(3, 3),)),),
        manifest.task,
        "stand_in",
        ("a", "b", "c"),
    )
    return Loaded(folder, manifest, replace(spec, **changes), engine or StandInEngine(), alone=False)


def patient(limits: Mapping[str, Any] | None = None) -> ClientLimits:
    """Return limits of which those in seconds are minutes, unless they are given."""
    return ClientLimits(**{"deadline_s": PATIENCE_S, "read_s": PATIENCE_S, "idle_s": PATIENCE_S, **(limits or {})})


def served(
    folder: Path, engine: Any = None, *, keys: ApiKeys | None = None, limits: Any = None, **settings: Any
) -> Any:
    """Return the site and the application of a server; to be called where an event loop runs."""
    chosen = ServeSettings(limits=patient(limits), **settings)
    site = new_site(loaded(folder, engine), chosen, Admission(chosen, keys or ApiKeys({})))
    return site, application(site)


def pair_served(
    folder: Path,
    pair: Any,
    *,
    dense: Any = None,
    pruned: Any = None,
    keys: Any = None,
    limits: Any = None,
    **settings: Any,
) -> Any:
    """Return the site and the application of a server of two models, whose versions are called dense and pruned."""
    chosen = ServeSettings(limits=patient(limits), **settings)
    both = [loaded(folder, engine, version=name) for name, engine in (("dense", dense), ("pruned", pruned))]
    site = new_site(both[0], chosen, Admission(chosen, keys or ApiKeys({})), both[1], pair)
    return site, application(site)


def save_small(folder: Path, seed: int = 0, **more: Any) -> Path:
    """Save a bundle of a small network of six features and three classes."""
    built_by = recipe.Model(builder="mlp", args={"width": 8})
    model = build(built_by, input_shape=(6,), n_outputs=3, seed=seed)
    options = {"class_names": ("a", "b", "c"), "feature_names": tuple("uvwxyz"), **more}
    save_bundle(folder, model, built_by=built_by, input_shape=(6,), n_outputs=3, task="classification", **options)
    return folder


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle of a small network; nobody changes it."""
    with torch.random.fork_rng():
        return save_small(tmp_path_factory.mktemp("serve") / "small")


@contextmanager
def listening(folder: Path, engine: Any = None, **options: Any) -> Iterator[tuple[Any, int]]:
    """Run a server on a free port of the loopback, in a thread; yield its site and the port."""
    came: queue.Queue[Any] = queue.Queue()

    async def run() -> None:
        site, app = served(folder, engine, port=0, **options)
        with listening_socket(site.settings) as taken:
            server = uvicorn_server(site, app)
            came.put((site, taken.getsockname()[1], server))
            await server.serve(sockets=[taken])
            for model in site.traffic.models:
                await model.retire()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    site, port, server = came.get(timeout=PATIENCE_S)
    try:
        yield site, port
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@contextmanager
def watch_begins_with_a_word() -> Iterator[None]:
    """Have servers look after a client from its first byte on: a test may be late to send it, and is answered all the same."""
    look = _StrictProtocol._look

    def look_later(self: Any) -> None:
        if self.cycle is None and not self._head_bytes and self._in_head:
            self._watch = self.loop.call_later(self.limits.read_s, self._look)
        else:
            look(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_StrictProtocol, "_look", look_later)
        yield


def exchange(port: int, content: bytes) -> bytes:
    """Send bytes over a connection of their own, and return all that comes back until it ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(content)
        return received(connection)


def received(connection: socket.socket, *, n_answers: int | None = None) -> bytes:
    """Return what comes until the server closes, or so many answers are there."""
    found = b""
    while n_answers is None or found.count(b"HTTP/1.1 ") < n_answers or not found.endswith(b"}"):
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            break
        if not part:
            break
        found += part
    return found


def go(coroutine: Any) -> Any:
    """Run something in an event loop of its own."""
    return asyncio.run(coroutine)
