"""What must be known of a recording before anything is added to it or read from it?"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from prunus.core.errors import DataError, OutputError, RecipeError
from prunus.core.files.plain_files import explain_os_error, open_plain
from prunus.core.text import shown
from prunus.score.examples.recording.record_layout import Layout
from prunus.tasks import Task, options_of, task_of_options, tasks

__all__ = ["HEADER", "Header", "publish", "read_header", "write_header"]

HEADER = "header.json"
_FORMAT = 1
_MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class Header:
    """Of what a recording is: so many examples, the task, the layout of its records, and the data set's fingerprint."""

    n_examples: int
    layout: Layout
    task: str = "classification"
    options: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, n_examples: int, task: Task, layout: Layout, fingerprint: str) -> Header:
        """Return the header of a new recording."""
        options = options_of(task) if task.name in tasks and type(task) is tasks[task.name] else {}
        versions = {"prunus": import_module("prunus").__version__, "torch": torch.__version__}
        return cls(n_examples, layout, task.name, options, fingerprint, versions)

    def make_task(self) -> Task:
        """Return the task that was recorded.

        Raises:
            RecipeError: it isn't one of prunus's: only its own code makes it.
        """
        if self.task not in tasks:
            raise RecipeError(f"the recording is of the task {shown(self.task)}, which isn't known here: give task=...")
        return task_of_options(self.task, self.options)

    def check_same(self, other: Header, folder: Path) -> None:
        """See that what is to be recorded is what the folder holds.

        Raises:
            OutputError: it is something else; the first difference is named.
        """
        here, there = asdict(self.layout), asdict(other.layout)
        pairs = [("n_examples", self.n_examples, other.n_examples), ("task", self.task, other.task)]
        pairs += [(key, here[key], there[key]) for key in ("n_classes", "kind", "top", "own_loss")]
        if self.fingerprint and other.fingerprint:
            pairs.append(("fingerprint", self.fingerprint, other.fingerprint))
        for name, held, given in pairs:
            if held != given:
                raise OutputError(
                    f"{folder} holds a recording with {name} {shown(held)}: got {shown(given)}; choose another folder, or "
                    "overwrite=True"
                )


def write_header(header: Header, folder: Path) -> Header:
    """Write the header, if no other rank did before, and return the one that the folder has.

    Raises:
        OutputError: the folder can't be written.
    """
    facts = {"format": _FORMAT, **asdict(header)}
    text = json.dumps(facts, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    publish(folder / HEADER, lambda path: path.write_text(text, encoding="utf-8"))
    found = read_header(folder)
    assert found is not None
    return found


def read_header(folder: Path) -> Header | None:
    """Return the header of the recording in a folder; None where there is none.

    Raises:
        DataError: it is damaged, or of a newer prunus.
    """
    try:
        with open_plain(folder / HEADER) as file:
            facts = json.loads(file.read(_MOST_BYTES).decode("utf-8"))
        if facts.pop("format") != _FORMAT:
            raise DataError(
                f"{folder / HEADER}: expected format {_FORMAT}: it was written by another version of prunus"
            )
        layout = Layout(**facts.pop("layout"))
        header = Header(layout=layout, **facts)
        if not _is_sound(header):
            raise ValueError("a value is none that a header has")
        return header
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"can't read {folder / HEADER}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{folder / HEADER} is damaged ({type(error).__name__}): record anew in another folder"
        ) from error


def _is_sound(header: Header) -> bool:
    layout = header.layout
    counts = (header.n_examples, layout.n_classes, layout.top)
    if not all(type(count) is int and 0 <= count < 1 << 40 for count in counts) or header.n_examples == 0:
        return False
    if layout.kind not in ("logits", "top", "margin", "loss") or type(layout.own_loss) is not bool:
        return False
    classes = layout.kind in ("logits", "top")
    fits = layout.n_classes >= 2 and layout.top <= layout.n_classes and (layout.kind == "logits" or layout.top >= 2)
    texts = isinstance(header.task, str) and isinstance(header.fingerprint, str) and isinstance(header.options, dict)
    return texts and (fits if classes else layout.n_classes == layout.top == 0)


def publish(path: Path, fill: Any) -> None:
    """Make a file that others find whole or not at all: ``fill(temporary)`` writes it, and the first of several makers wins.

    Raises:
        OutputError: the disk is full, or the folder can't be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            return
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        fill(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links, so without ranks that share a map
            temporary.replace(path)
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)
