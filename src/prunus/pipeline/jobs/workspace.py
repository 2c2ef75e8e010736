"""How does a run that was killed go on as if it never stopped?

Every stage is a function of its inputs and of seeds derived from its name. What is slow (training) or must not be
decided twice is kept under ``.work/`` as soon as it is done; all else is computed again. Whatever is kept carries its hash
(``core.files.sealed``): what was damaged since is computed again, too, and a note says so.
"""

from __future__ import annotations

import copy
import glob
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load
from torch import nn

from prunus.core.code.freed_memory import give_back_freed
from prunus.core.code.place import place
from prunus.core.errors import PlanError
from prunus.core.events import Event, Listener, silent
from prunus.core.files.file_hash import sha256_file
from prunus.core.files.plain_files import (
    atomic_folder,
    atomic_path,
    explain_os_error,
    open_plain,
    remove,
)
from prunus.core.files.plan_file import load_plan, save_plan
from prunus.core.files.sealed import DamagedError, seal, unseal
from prunus.core.tensors import save_tensors
from prunus.core.types import Plan, Step
from prunus.pipeline.jobs.replaced_run import forget_aside
from prunus.pipeline.jobs.same_ranks import DATA, RANKS, check_data, check_weights

__all__ = ["LOAD_DATA", "LOG", "WORK", "Workspace"]

T = TypeVar("T")
LOG, WORK = "log.jsonl", ".work"
LOAD_DATA = "load data"
"""The stage before which a run may not be begun: what an old run left in its folder stays until it is over."""


class Workspace:
    """A run's folder: what is kept there, and who is told about the progress.

    ``folder`` None keeps nothing: the facade works in memory. ``logs`` False leaves ``log.jsonl`` alone: a worker's events are
    written by the process that it works for.
    """

    def __init__(self, folder: Path | None, listener: Listener = silent, *, logs: bool = True) -> None:
        self.folder = folder
        self.listener = listener
        self._logs = logs
        self._within = ""
        self._said: set[tuple[str, str, str]] = set()
        self._heard: set[tuple[str, str, str]] = set()
        self._seconds: dict[str, float] = {}
        self._opened = time.perf_counter()
        self._states: dict[str, dict[str, torch.Tensor]] = {}

    @property
    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds per stage of this process (a resumed run knows only its own)."""
        return dict(self._seconds)

    @property
    def elapsed_s(self) -> float:
        """Wall-clock seconds since this process opened the workspace."""
        return round(time.perf_counter() - self._opened, 3)

    def within(self, name: str) -> Workspace:
        """Return the same workspace for a part of the run whose stages have the names of others: ``name`` stands before them."""
        part = copy.copy(self)
        part._within = f"{self._within}{name} / "
        return part

    def named(self, stage: str) -> str:
        """Return what a stage of this part of the run is called in the whole."""
        return self._within + stage

    def adopt(self, name: str) -> None:
        """Keep what was kept within ``name`` as if it had been kept here; where both are there, what is here stays."""
        work = self.path()
        if work is None:
            return
        start = f"{self._within}{name} / ".replace("/", "_")
        for path in sorted(work.glob(f"{glob.escape(start)}*")):
            here = work / (self._within.replace("/", "_") + path.name.removeprefix(start))
            if not here.exists():
                path.rename(here)

    def emit(self, event: Event) -> None:
        """Tell the listener, and keep all but the progress ticks in ``log.jsonl``."""
        if self._within:
            event = replace(event, stage=self._within + event.stage)
        if _key(event) not in self._heard:
            self._say(event)

    def hear(self, events: Iterable[Event]) -> None:
        """Tell what a worker told, which did a part of this run; what the run tells on the way there is told once."""
        for event in events:
            if _key(event) in self._said:
                continue
            if event.kind == "end":
                self._seconds[event.stage] = float(event.facts.get("seconds", 0.0))
            self._say(event)
            self._heard.add(_key(event))

    def _say(self, event: Event) -> None:
        if event.kind != "progress":
            self._said.add(_key(event))
        if self.folder is not None and self._logs and event.kind != "progress":
            line = {"time": round(time.time(), 3), "kind": event.kind, "stage": event.stage, "message": event.message}
            try:
                with open_plain(self.folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as log:
                    log.write((json.dumps({**line, **dict(event.facts)}, default=str) + "\n").encode())
            except OSError as error:
                raise explain_os_error(error, self.folder / LOG) from error
        self.listener(event)

    def note(self, stage: str, message: str) -> None:
        """Tell something that the user should know."""
        self.emit(Event("note", stage, message))

    def warn(self, stage: str, message: str) -> None:
        """Tell something that the user should act on; it is told even where progress is not."""
        self.emit(Event("warning", stage, message))

    @contextmanager
    def stage(self, name: str, message: str = "") -> Iterator[None]:
        """Announce a stage, time it, and say when it ended."""
        if self.folder is not None and name != LOAD_DATA:
            forget_aside(self.folder)
        give_back_freed()
        self.emit(Event("start", name, message))
        start = time.perf_counter()
        yield
        give_back_freed()
        seconds = round(time.perf_counter() - start, 3)
        if ("end", self._within + name, message) not in self._heard:
            self._seconds[self._within + name] = seconds
        self.emit(Event("end", name, message, facts={"seconds": seconds}))

    def path(self, *parts: str) -> Path | None:
        """Return a path below ``.work``, or None when nothing is kept."""
        if self.folder is None:
            return None
        named = (part.replace("/", "_") for part in (self._within + parts[0], *parts[1:])) if parts else ()
        return self.folder / WORK / Path(*named)

    def trained(self, name: str, model: nn.Module, fit: Callable[[Path | None], dict[str, Any]]) -> dict[str, Any]:
        """Train ``model`` in place by ``fit(checkpoint)``, or load what an earlier process trained; return the facts."""
        done, checkpoint = self.path(name), self.path(f"{name}.checkpoint")
        weights = None if done is None else self._read(done / "model.safetensors")
        said = None if done is None else self._read(done / "facts.json")
        if weights is not None and said is not None:
            model.load_state_dict(load(weights))
            return _facts(said)
        if checkpoint is not None:
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            self.n_ranks()
        facts = fit(checkpoint)
        if done is not None:
            with atomic_folder(done) as temporary:
                save_tensors(_state(model), temporary / "model.safetensors")
                seal(temporary / "model.safetensors")
                (temporary / "facts.json").write_text(json.dumps(facts, allow_nan=False), encoding="utf-8")
                seal(temporary / "facts.json")
            assert checkpoint is not None
            checkpoint.unlink(missing_ok=True)
        return facts

    def n_ranks(self) -> int:
        """Return on how many processes the first training of the run began: on so many as now, if none did."""
        whole = copy.copy(self)
        whole._within = ""
        return int(whole.remembered(RANKS, lambda: {"n": place().n_ranks})["n"])

    def begin_on(self, fingerprint: str, weights: str | None) -> None:
        """Keep on which data the run begins, and from which file of weights, if there is one.

        Raises:
            DataError: it was begun on others.
            OutputError: the weights were others.
        """
        if self.folder is None:
            return
        sha256 = sha256_file(Path(weights)) if weights is not None and Path(weights).is_file() else None
        begun = self.remembered(DATA, lambda: {"sha256": fingerprint, "weights": sha256})
        check_data(self.folder, begun["sha256"], fingerprint)
        check_weights(self.folder, weights, begun.get("weights"), sha256)

    def decided(self, asked: str, name: str, decide: Callable[[], tuple[Step, ...]]) -> tuple[Step, ...]:
        """Return the steps that ``decide()`` gives, or those that an earlier process decided."""
        done = self.path(name)
        if done is not None and done.exists():
            try:
                return load_plan(done).steps
            except PlanError as error:
                self._damaged(done, error)
        steps = decide()
        if done is not None:
            save_plan(Plan(steps, 0, {}, {}), done)
        return steps

    def kept(self, name: str, compute: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Return the tensors that ``compute()`` gives, or those that an earlier process computed."""
        done = self.path(f"{name}.safetensors")
        content = None if done is None else self._read(done)
        if content is not None:
            return dict(load(content))
        tensors = {key: value.detach().cpu().contiguous() for key, value in compute().items()}
        if done is not None:
            with atomic_path(done) as temporary:
                save_tensors(tensors, temporary)
                seal(temporary)
        return tensors

    def is_kept(self, name: str) -> bool:
        """Return whether an earlier process computed what is kept under a name, and it is whole."""
        done = self.path(f"{name}.safetensors")
        return done is not None and self._read(done) is not None

    def keep_state(self, name: str, model: nn.Module) -> None:
        """Keep the weights that ``model`` has now; without a folder, in memory."""
        path = self.path(f"{name}.safetensors")
        if path is None:
            self._states[self._within + name] = _state(model)
            return
        with atomic_path(path) as temporary:
            save_tensors(_state(model), temporary)
            seal(temporary)

    def kept_state(self, name: str) -> dict[str, torch.Tensor] | None:
        """Return the weights, or what else, that were kept under a name, or None."""
        path = self.path(f"{name}.safetensors")
        content = None if path is None else self._read(path)
        return self._states.get(self._within + name) if content is None else dict(load(content))

    def check_state(self, name: str, training: str) -> None:
        """Forget a training if the weights that it keeps under ``name`` on its way were damaged: it has to keep them anew."""
        path = self.path(f"{name}.safetensors")
        if path is not None and path.exists() and self._read(path) is None:
            for trained in (training, f"{training}.checkpoint"):
                remove(self.path(trained) or path)

    def remembered(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the plain values that ``compute()`` gives, or those that an earlier process measured."""
        done = self.path(f"{name}.json")
        said = None if done is None else self._read(done)
        if said is not None:
            return _facts(said)
        facts = compute()
        if done is not None:
            with atomic_path(done) as temporary:
                temporary.write_text(json.dumps(facts, allow_nan=False), encoding="utf-8")
                seal(temporary)
        return facts

    def _read(self, path: Path) -> bytes | None:
        """Return what was kept at ``path``; None where there is nothing, or nothing that is whole."""
        try:
            return unseal(path)
        except DamagedError as error:
            self._damaged(path, error)
            return None

    def _damaged(self, path: Path, error: Exception) -> None:
        self.note(path.stem, f"what was kept for the resume is damaged and computed again ({error})")
        remove(path)

    def forget(self, *, but: str | None = None) -> None:
        """Remove what was only kept for a resume, but for the stage called ``but`` and its states."""
        work = self.path()
        if work is None or not work.is_dir():
            return
        start = None if but is None else but.replace("/", "_")
        with suppress(OSError):
            for child in work.iterdir():
                if start is None or not child.name.startswith(start) or child.name.endswith(".checkpoint"):
                    remove(child)
            if not any(work.iterdir()):
                remove(work)


def _key(event: Event) -> tuple[str, str, str]:
    return event.kind, event.stage, event.message


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}


def _facts(content: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(content)
    return value
