"""How does a run that was killed go on as if it never stopped?

Every stage is a function of its inputs and of seeds derived from its name. What is slow (training) or must not be
decided twice is kept under ``.work/`` as soon as it is done; all else is computed again. Two kinds of thing are kept:
the weights of a model whose structure the flow rebuilds, and the steps of a plan.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import nn

from prunus.core.errors import OutputError
from prunus.core.events import Event, Listener, silent
from prunus.core.files import atomic_folder, atomic_path, explain_os_error, folder_lock, write_json, write_text
from prunus.core.plan_file import load_plan, save_plan
from prunus.core.recipe import Recipe
from prunus.core.tensors import save_tensors
from prunus.core.types import Plan, Step

__all__ = ["Workspace", "open_workspace"]

T = TypeVar("T")
RECIPE, RECORD, LOG, WORK = "recipe.yaml", "record.json", "log.jsonl", ".work"


class Workspace:
    """A run's folder: what is kept there, and who is told about the progress.

    ``folder`` None keeps nothing: the facade works in memory.
    """

    def __init__(self, folder: Path | None, listener: Listener = silent) -> None:
        self.folder = folder
        self.listener = listener
        self._seconds: dict[str, float] = {}
        self._states: dict[str, dict[str, torch.Tensor]] = {}

    @property
    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds per stage of this process (a resumed run knows only its own)."""
        return dict(self._seconds)

    def emit(self, event: Event) -> None:
        """Tell the listener, and keep all but the progress ticks in ``log.jsonl``."""
        if self.folder is not None and event.kind != "progress":
            line = {"time": round(time.time(), 3), "kind": event.kind, "stage": event.stage, "message": event.message}
            try:
                with (self.folder / LOG).open("a", encoding="utf-8") as log:
                    log.write(json.dumps({**line, **dict(event.facts)}, default=str) + "\n")
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
        self.emit(Event("start", name, message))
        start = time.perf_counter()
        yield
        self._seconds[name] = round(time.perf_counter() - start, 3)
        self.emit(Event("end", name, message, facts={"seconds": self._seconds[name]}))

    def path(self, *parts: str) -> Path | None:
        """Return a path below ``.work``, or None when nothing is kept."""
        return None if self.folder is None else self.folder / WORK / Path(*(part.replace("/", "_") for part in parts))

    def trained(self, name: str, model: nn.Module, fit: Callable[[Path | None], dict[str, Any]]) -> dict[str, Any]:
        """Train ``model`` in place by ``fit(checkpoint)``, or load what an earlier process trained; return the facts."""
        done, checkpoint = self.path(name), self.path(f"{name}.checkpoint")
        if done is not None and done.exists():
            model.load_state_dict(load_file(done / "model.safetensors"))
            return _read_json(done / "facts.json")
        if checkpoint is not None:
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
        facts = fit(checkpoint)
        if done is not None:
            with atomic_folder(done) as temporary:
                state = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
                save_tensors(state, temporary / "model.safetensors")
                write_json(temporary / "facts.json", facts)
            assert checkpoint is not None
            checkpoint.unlink(missing_ok=True)
        return facts

    def decided(self, name: str, decide: Callable[[], tuple[Step, ...]]) -> tuple[Step, ...]:
        """Return the steps that ``decide()`` gives, or those that an earlier process decided."""
        done = self.path(name)
        if done is not None and done.exists():
            return load_plan(done).steps
        steps = decide()
        if done is not None:
            save_plan(Plan(steps, 0, {}, {}), done)
        return steps

    def kept(self, name: str, compute: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Return the tensors that ``compute()`` gives, or those that an earlier process computed."""
        done = self.path(f"{name}.safetensors")
        if done is not None and done.exists():
            loaded: dict[str, torch.Tensor] = load_file(done)
            return loaded
        tensors = {key: value.detach().cpu().contiguous() for key, value in compute().items()}
        if done is not None:
            with atomic_path(done) as temporary:
                save_tensors(tensors, temporary)
        return tensors

    def keep_state(self, name: str, model: nn.Module) -> None:
        """Keep the weights that ``model`` has now; without a folder, in memory."""
        state = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
        path = self.path(f"{name}.safetensors")
        if path is None:
            self._states[name] = state
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            save_tensors(state, temporary)

    def kept_state(self, name: str) -> dict[str, torch.Tensor] | None:
        """Return the weights that were kept under a name, or None."""
        path = self.path(f"{name}.safetensors")
        if path is None or not path.exists():
            return self._states.get(name)
        loaded: dict[str, torch.Tensor] = load_file(path)
        return loaded

    def remembered(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the plain values that ``compute()`` gives, or those that an earlier process measured."""
        done = self.path(f"{name}.json")
        if done is not None and done.exists():
            return _read_json(done)
        facts = compute()
        if done is not None:
            done.parent.mkdir(parents=True, exist_ok=True)
            write_json(done, facts)
        return facts

    def forget(self) -> None:
        """Remove what was only kept for a resume."""
        if self.folder is not None:
            shutil.rmtree(self.folder / WORK, ignore_errors=True)


@contextmanager
def open_workspace(
    recipe: Recipe, folder: Path, *, resume: bool, overwrite: bool, listener: Listener
) -> Iterator[Workspace]:
    """Yield the workspace of one run, locked against a second one.

    Raises:
        OutputError: another run holds the folder, or it holds a run already and neither ``resume`` nor ``overwrite`` is given,
            or ``resume`` meets the run of another recipe.
    """
    with folder_lock(folder):
        held = folder / RECIPE
        text = recipe_text(recipe)
        if held.exists():
            if overwrite:
                _clear(folder)
            elif not resume:
                raise OutputError(
                    f"{folder} holds a run already: add --resume to go on with it, --overwrite to start anew"
                )
            elif held.read_text(encoding="utf-8") != text:
                raise OutputError(
                    f"{folder} holds a run of another recipe (see {held}): choose another output folder, or add --overwrite"
                )
        elif any(child.name not in (".lock", LOG) for child in folder.iterdir()):
            raise OutputError(f"{folder} holds files that are no run of prunus: choose an empty or new output folder")
        write_text(held, text)
        yield Workspace(folder, listener)


def recipe_text(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML that reads back to the same recipe."""
    import yaml

    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _clear(folder: Path) -> None:
    for name in (RECIPE, RECORD, LOG, "report.html"):
        (folder / name).unlink(missing_ok=True)
    for name in (WORK, "plan", "bundle"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
