"""Which Ray cluster does the work: one that is started here, for as long as it is needed, or one that is there?

One that is started here listens on the loopback only, asks for a token that no other process knows, has no dashboard, sends no
statistics, and keeps its files in a folder that is this user's alone. Of one that is there nothing is changed.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch

from prunus.core.code.extras import check_there, require
from prunus.core.code.imports import one_line
from prunus.core.errors import RecipeError, RunError, raise_if_out_of_memory
from prunus.core.recipes.execution.dispatch_section import Dispatch
from prunus.scale.dispatch.same_code import asker, difference, versions

__all__ = ["Cluster", "open_cluster"]

T = TypeVar("T")

_STORE_BYTES = 80 << 20
"""Of Ray's object store, for one that is started here: near the least it takes, since shards are read from files."""

_SECONDS_TO_ANSWER = 5.0
_SECONDS_TO_START_A_WORKER = 300.0


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is a part of; ``folder`` is where it keeps its files, if it was started here."""

    ray: Any
    ours: bool
    folder: str | None = None

    def nodes(self) -> dict[str, str]:
        """Return what each node that lives is called, by its id."""
        alive = [node for node in self.ray.nodes() if node["Alive"]]
        names = [str(node["NodeManagerAddress"]) for node in alive]
        return {
            node["NodeID"]: name if names.count(name) == 1 else f"{name}/{node['NodeID'][:6]}"
            for node, name in zip(alive, names, strict=True)
        }

    def with_room(self, asked: Dispatch) -> list[str]:
        """Return the ids of the nodes that live and have what a worker needs."""
        needed = {"CPU": asked.cores, "GPU": asked.gpus}
        return [
            str(node["NodeID"])
            for node in self.ray.nodes()
            if node["Alive"] and all(node["Resources"].get(name, 0) >= amount for name, amount in needed.items())
        ]

    def sizes(self) -> str:
        """Return in words which cores and GPUs there are on the nodes that live."""
        found = [
            [node["Resources"].get(kind, 0) for kind in ("CPU", "GPU")] for node in self.ray.nodes() if node["Alive"]
        ]
        return (
            ", ".join(f"{cores:g} cores and {gpus:g} GPUs" for cores, gpus in sorted(found, reverse=True)) or "no node"
        )

    def ask(self, function: Callable[[], T], nodes: Iterable[str]) -> Iterator[tuple[str, T]]:
        """Yield what ``function`` returns on each of the nodes, with the node's id.

        Raises:
            RunError: one starts no worker.
        """
        wanted = list(nodes)
        if not wanted:
            return
        strategies = require("ray.util.scheduling_strategies", extra="ray")
        names, asked = self.nodes(), {}
        task = self.ray.remote(function)
        for node in wanted:
            there = strategies.NodeAffinitySchedulingStrategy(node, soft=False)
            asked[node] = task.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote()
        for node, answer in asked.items():
            try:
                found = self.ray.get(answer, timeout=_SECONDS_TO_START_A_WORKER)
            except self.ray.exceptions.RayError as error:
                name = names.get(node, node[:6])
                raise RunError(f"dispatch: the node {name} starts no worker: {one_line(error)}") from error
            yield node, found

    def close(self) -> None:
        """Leave it; end it if it was started here."""
        if self.ours:
            self.ray.shutdown()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def open_cluster(asked: Dispatch) -> Cluster:
    """Return the cluster that is asked for, once it is known that its nodes run the same code and have room for a worker.

    Raises:
        MissingExtraError: Ray isn't installed.
        RunError: it doesn't answer, or another version of something runs there.
        RecipeError: no node has what a worker needs.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before the first import, and for all that is started
    if asked.address is None:
        with _environment(_OF_OUR_OWN | {"RAY_AUTH_TOKEN": _token()} if "RAY_AUTH_MODE" not in os.environ else {}):
            ray = require("ray", extra="ray")
            cluster = Cluster(ray, ours=False) if ray.is_initialized() else _started(ray, asked)
    else:
        ray = require("ray", extra="ray")
        cluster = _joined(ray, asked.address)
    try:
        _check_versions(cluster)
        if not cluster.with_room(asked):
            raise RecipeError(
                f"dispatch: no node of the cluster has the {asked.cores:g} cores and {asked.gpus:g} GPUs of a worker: "
                f"got {cluster.sizes()}; ask for less, or start a larger node"
            )
    except BaseException:
        cluster.close()
        raise
    return cluster


_OF_OUR_OWN = {
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",  # Ray's own is 15: its workers would wait for whatever else the machine does
    "RAY_enable_metrics_collection": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # it means: listen on the loopback only, whatever the system
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@cache
def _token() -> str:
    return os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _no_words_on_stdout() -> Iterator[None]:
    """Keep Ray from printing each lost worker where a command's answer goes: it is told what was lost through the answers."""
    worker: Any = sys.modules["ray._private.worker"]
    before = getattr(worker, "listen_error_messages", None)
    worker.listen_error_messages = lambda *_: None
    try:
        yield
    finally:
        worker.listen_error_messages = before


def _check_gpus(asked: Dispatch) -> None:
    """Refuse workers that this machine has no GPUs for: Ray believes what it is told, and they would compute without."""
    if not asked.gpus:
        return
    there = torch.cuda.device_count()
    room = there * int(1 / asked.gpus) if asked.gpus < 1 else int(there / asked.gpus)
    if room < asked.workers:
        raise RecipeError(
            f"dispatch.gpus: expected room for {asked.workers} workers of {asked.gpus:g} GPUs each, got {there} GPUs on this "
            f"machine, for {room} of them; ask for fewer or smaller ones, or give the address of a cluster"
        )


def _started(ray: Any, asked: Dispatch) -> Cluster:
    _check_gpus(asked)
    constants: Any = sys.modules["ray._private.ray_constants"]
    constants.ENABLE_RAY_CLUSTER = (
        False  # the variable above is read at Ray's first import, which may have been another's
    )
    folder = tempfile.mkdtemp(prefix="prunus-ray-")
    started = Cluster(ray, ours=True, folder=folder)
    try:
        _init(ray, asked, folder)
    except BaseException:
        started.close()
        raise
    return started


def _init(ray: Any, asked: Dispatch, folder: str) -> None:
    try:
        with _no_words_on_stdout():
            ray.init(
                address="local",
                num_cpus=math.ceil(asked.workers * asked.cores),
                num_gpus=math.ceil(asked.workers * asked.gpus) if asked.gpus else 0,
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                log_to_driver=False,
                logging_level="ERROR",
                _temp_dir=folder,
            )
    except Exception as error:
        raise_if_out_of_memory(error)
        raise RunError(f"dispatch: no Ray cluster could be started on this machine: {one_line(error)}") from error


def _joined(ray: Any, address: str) -> Cluster:
    if address.startswith("ray://"):
        check_there(("grpc",), extra="ray", what=f"dispatch.address: {address}")
    if address != "auto":
        _check_it_answers(address)
    if ray.is_initialized():
        return Cluster(ray, ours=False)
    try:
        with _no_words_on_stdout():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        raise_if_out_of_memory(error)
        raise RunError(
            f"dispatch.address: {address} is no Ray cluster that can be joined: {one_line(error)}; one with a token "
            "needs RAY_AUTH_MODE=token and its RAY_AUTH_TOKEN here, too"
        ) from error
    return Cluster(ray, ours=True)


def _check_it_answers(address: str) -> None:
    """Say hello as gRPC does, which Ray speaks, since Ray itself would try an address where nobody answers for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise RecipeError(
            f"dispatch.address: expected host:port, ray://host:port or auto: got {address!r}; a cluster's head says its own"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER) as there:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return
            there.sendall(_HELLO)
            answer = there.recv(9)
    except OSError as error:
        raise RunError(
            f"dispatch.address: nothing answers at {address}: {error.strerror or error}; is the cluster up, and its port open?"
        ) from error
    if answer[3:4] != _SETTINGS:
        raise RunError(
            f"dispatch.address: what answers at {address} is no Ray cluster without TLS; its head says where it is (port 6379, or "
            "10001 for ray://); for one with TLS set RAY_USE_TLS=1"
        )


_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
_SETTINGS = b"\x04"
"""The kind of the first frame that each side of HTTP/2 sends (RFC 9113, 3.4)."""


_same_as_here: set[tuple[str, str]] = set()
"""Nodes by their ids, and what they were found to run: what this process does. A node that comes back has another id."""


def _check_versions(cluster: Cluster) -> None:
    ours, names = versions(), cluster.nodes()
    unknown = [node for node in names if (node, str(ours)) not in _same_as_here]
    for node, theirs in cluster.ask(asker(), unknown):
        if odd := difference(theirs, ours):
            raise RunError(
                f"dispatch: the node {names[node]} has {odd}; install the same everywhere, or leave the node out"
            )
        _same_as_here.add((node, str(ours)))
