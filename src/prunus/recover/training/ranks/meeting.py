"""How do the processes that torchrun started find each other, and hear what rank 0 wants next?

All that may take long (data are read, a model is scored) is waited for at the store, not in a collective call, which would run
out of time. Every process says which versions it has and which data; then the others wait for trainings until rank 0 says the end.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d
from torch.distributed.rendezvous import rendezvous

from prunus.core.code.place import Place
from prunus.core.errors import PrunusError, RecipeError, RunError, raise_if_out_of_memory
from prunus.core.runtime import versions

__all__ = ["Meeting", "current", "is_lost", "leading", "open_meeting"]

PATIENCE = timedelta(minutes=10)
"""How long a step, or reading the data, may take longer on one process than on another."""
_JOINING = timedelta(minutes=5)
_LONG = timedelta(days=30)
_END = "end"
_FAREWELL_S = 15.0
_TOLD = ("prunus", "torch", "python")

_current: ContextVar[Meeting | None] = ContextVar("meeting", default=None)


def current() -> Meeting | None:
    """Return the meeting that this process leads; None where it trains alone."""
    return _current.get()


@contextmanager
def leading(meeting: Meeting) -> Iterator[None]:
    """Share every training inside the block with the others of ``meeting``."""
    token = _current.set(meeting)
    try:
        yield
    finally:
        _current.reset(token)


@dataclass
class Meeting:
    """What the processes say to each other through the store; ``known`` is what every process has of its own, by name."""

    place: Place
    store: Any
    known: dict[str, Any] = field(default_factory=dict)
    sharding: Literal["ddp", "fsdp"] = "ddp"
    n_tasks: int = 0
    n_words: int = 0

    def report(self, facts: dict[str, Any]) -> None:
        """Tell rank 0 what this process has: versions, and the fingerprint of its data or what is wrong with them."""
        found = {name: value for name, value in versions().items() if name in _TOLD}
        self._set(f"report/{self.place.rank}", {"host": self.place.host, "versions": found, **facts})

    def show(self, what: Any) -> None:
        """Show the others, from rank 0, what they look for where they are."""
        self._set("shown", what)

    def shown(self) -> Any:
        """Wait for what rank 0 shows; None if it says the end."""
        return json.loads(self.store.get("shown")) if self._await("shown") else None

    def check_reports(self, fingerprint: str) -> list[str]:
        """Wait on rank 0 until every process said what it has; return those that don't see what it shows.

        Raises:
            RunError: one has another version, other data or none, or said nothing.
        """
        own, blind = versions(), []
        for rank in range(1, self.place.n_ranks):
            said = self._wait(f"report/{rank}", PATIENCE)
            if said is None:
                raise RunError(
                    f"rank {rank} said nothing for {PATIENCE.seconds // 60} minutes while its data were read: look at its machine"
                )
            who = f"rank {rank} on {said['host']}"
            for name in _TOLD:
                if said["versions"].get(name) != own[name] and name != "python":
                    raise RunError(
                        f"{who} has {name} {said['versions'].get(name)}, rank 0 has {own[name]}: install one version everywhere"
                    )
            if "error" in said:
                raise RunError(f"{who} can't take part: {said['error']}")
            if said["fingerprint"] != fingerprint:
                raise RunError(
                    f"{who} has other data (fingerprint {said['fingerprint'][:12]}, rank 0 has {fingerprint[:12]}): give every "
                    "machine the same files, or a shared folder"
                )
            if not said.get("sees", True):
                blind.append(who)
        return blind

    def call(self) -> None:
        """Tell the others on rank 0 that a training comes."""
        self.n_tasks += 1
        self.store.set(f"task/{self.n_tasks}", "1")

    def await_call(self) -> bool:
        """Wait for the next training; return False at the end."""
        self.n_tasks += 1
        return self._await(f"task/{self.n_tasks}")

    def say(self, goes_on: bool) -> None:
        """Say on rank 0 whether a training goes on."""
        self.n_words += 1
        self.store.set(f"word/{self.n_words}", str(int(goes_on)))
        if self.n_words > 1:  # all others are past it, or they couldn't have computed until here
            self.store.delete_key(f"word/{self.n_words - 1}")

    def hear(self) -> bool:
        """Wait for rank 0's word."""
        self.n_words += 1
        key = f"word/{self.n_words}"
        return self._await(key) and self.store.get(key) == b"1"

    def end(self) -> None:
        """Say on rank 0 that nothing comes any more, and stay until the others heard it: the store may live here."""
        with suppress(dist.DistError):  # the store is gone: so are the others
            for key in ("end", "shown", f"task/{self.n_tasks + 1}", f"word/{self.n_words + 1}"):
                self.store.set(key, _END)
            self.close()  # whoever waits in a collective call hears of it
            until = time.monotonic() + _FAREWELL_S
            waits = [f"left/{rank}" for rank in range(1, self.place.n_ranks)]
            while not self.store.check(waits) and time.monotonic() < until:
                time.sleep(0.02)

    def leave(self) -> None:
        """Say on another rank that it heard the end."""
        with suppress(dist.DistError):
            self.store.set(f"left/{self.place.rank}", "1")
        self.close()

    def fail(self, line: str) -> bool:
        """Say what failed on this process, close its connections, so that no other waits; return whether rank 0 took note."""
        with suppress(dist.DistError):
            self.store.compare_set(
                "failed", "", json.dumps({"rank": self.place.rank, "host": self.place.host, "line": line})
            )
        self.close()
        with suppress(dist.DistError):
            self.store.wait(["end"], timedelta(seconds=_FAREWELL_S))
            self.store.set(f"left/{self.place.rank}", "1")
            return True
        return False

    @property
    def ended(self) -> bool:
        """Whether rank 0 said the end."""
        with suppress(dist.DistError):
            return bool(self.store.check(["end"]))
        return False

    def failure(self, wait_s: float = 3.0) -> str | None:
        """Return what another process said it failed of."""
        with suppress(dist.DistError):
            self.store.wait(["failed"], timedelta(seconds=wait_s))
            said = json.loads(self.store.get("failed"))
            return f"rank {said['rank']} on {said['host']} failed: {said['line']}"
        return None

    def close(self) -> None:
        """Close the connections."""
        with suppress(dist.DistError, ValueError):
            if dist.is_initialized():
                dist.destroy_process_group()

    def _set(self, key: str, value: Any) -> None:
        self.store.set(key, json.dumps(value))

    def _wait(self, key: str, patience: timedelta) -> Any:
        try:
            self.store.wait([key], patience)
        except RuntimeError as error:
            raise_if_out_of_memory(error)
            return None
        return json.loads(self.store.get(key))

    def _await(self, key: str) -> bool:
        """Wait until ``key`` is said, however long it takes; return False if it says the end.

        Raises:
            DistError: rank 0 is gone.
        """
        self.store.wait([key], _LONG)
        return bool(self.store.get(key) != _END.encode())


def open_meeting(place: Place, *, cuda: bool) -> Meeting:
    """Return the meeting of the processes that torchrun started, once all are there.

    Raises:
        RecipeError: there are fewer GPUs on this machine than processes.
        RunError: the others can't be reached.
    """
    if cuda:
        found = torch.cuda.device_count()
        if place.n_local > found:
            raise RecipeError(
                f"runtime.device: torchrun started {place.n_local} processes on {place.host}, which has {found} GPUs: "
                "start one per GPU (--nproc-per-node), or use runtime.device: cpu"
            )
        torch.cuda.set_device(place.local_rank)
    # torch logs what it retries; what came of it is said here.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    try:
        store, _, _ = next(iter(rendezvous("env://", timeout=_JOINING)))
        # torchrun may keep one store over restarts: what an earlier start left there is no concern of this one.
        start = f"{place.restarts} {place.n_ranks} {os.environ.get('MASTER_PORT')}"
        own = distributed_c10d.PrefixStore(f"prunus {start}", store)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=distributed_c10d.PrefixStore(f"group {start}", store),
            rank=place.rank,
            world_size=place.n_ranks,
            timeout=PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        raise_if_out_of_memory(error)
        text = " ".join(str(error).split())[:200]
        raise RunError(
            f"rank {place.rank} on {place.host} can't reach the others ({text}): free the port (--master-port), and check that "
            "every machine reaches MASTER_ADDR"
        ) from error
    return Meeting(place, own)


def is_lost(error: BaseException) -> bool:
    """Return whether an error means that another process is gone, and nothing about this one."""
    text = str(error).lower()
    signs = ("gloo", "nccl", "connection closed", "connection reset", "timed out", "broken pipe", "process group")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and not isinstance(error, PrunusError) and any(sign in text for sign in signs)
    )
