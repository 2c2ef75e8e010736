"""A work of three parts that workers can open: some of them hurt themselves."""

import os
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from prunus.core.errors import DataError, RunError
from prunus.core.events import Event
from prunus.pipeline.jobs.parts import Parts
from prunus.pipeline.jobs.workspace import Workspace


@dataclass(frozen=True)
class Work:
    """What is opened: ``hurts`` says of a part's name what happens in it, in workers."""

    workspace: Workspace
    parts: Parts
    hurts: dict

    def squares(self, names, *, together=False, lost=False):
        """Return the square of each name's length, each kept as a part of its own."""
        by = self.parts.by(partial(_squares, names=names, together=together, lost=lost))

        def do(place):
            found = self.workspace.kept(names[place], lambda: self.square(names[place]))
            return float(found["square"])

        if lost and self.parts.mine is not None:
            return []
        return by.each(self.workspace, "squares", names, do, together=together)

    def square(self, name):
        with self.workspace.stage(name):
            self.workspace.note(name, "a square")
            hurt, mark = self.hurts.get(name, ""), Path(self.workspace.folder, f"hurt {name}")
            with Path(self.workspace.folder, "done").open("a") as file:
                file.write(f"{os.getpid()} {name}\n")
            if self.parts.mine is not None:
                if hurt == "die" or (hurt == "die once" and not mark.exists()):
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                if hurt == "wrong":
                    raise DataError("wrong data")
                if hurt == "fails":
                    raise RunError("it fails")
                if hurt == "takes long":
                    mark.write_text(str(os.getpid()))
                    time.sleep(600)
        return {"square": torch.tensor(len(name) ** 2)}


def _squares(work, **options):
    return work.squares(**options)


@dataclass(frozen=True)
class OpenWork:
    """Opens the work in a worker; counts how often."""

    folder: str
    hurts: dict

    @contextmanager
    def __call__(self):
        folder = Path(self.folder)
        with (folder / "opened").open("a") as file:
            file.write(f"{os.getpid()}\n")
        yield lambda parts, listener: Work(Workspace(folder, listener, logs=False), parts, self.hurts)


def told(events: list[Event]) -> list[tuple[str, str, str]]:
    """Return what lasts of what was told."""
    return [(event.kind, event.stage, event.message) for event in events if event.kind in ("note", "warning")]
