"""How is a finished run copied to a URL, so that it is there whole, or not as a run at all?

Its folder is locked and written bit by bit, and so lies on this machine; what is finished is copied. ``record.json`` comes last:
where it is, all the rest is. Beside it, ``.prunus-copied.json`` holds what each object weighs: a copy that was stopped goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunus.core.errors import OutputError, RecipeError
from prunus.core.events import Event, Listener, silent
from prunus.core.files.file_hash import sha256_file
from prunus.core.files.plain_files import write_json
from prunus.core.files.sealed import sealed_tree, unsealed_tree
from prunus.core.files.urls.copies import send_folder
from prunus.core.files.urls.store import refused_as
from prunus.core.files.urls.url_path import is_url, path_at
from prunus.pipeline.jobs.run_folder import RECORD

__all__ = ["Copy", "open_copy"]

STATE = ".prunus-copied.json"
_LAST = ("manifest.json", RECORD)


class Copy:
    """The place that a run is copied to; what it holds of an earlier copy is known."""

    def __init__(self, url: Path, done: dict[str, dict[str, Any]]) -> None:
        self.url, self.done = url, done

    def send(self, folder: Path, *, overwrite: bool = False, listener: Listener = silent) -> int:
        """Copy a finished run; return how many objects were sent.

        Raises:
            OutputError: another run lies there, or it can't be written.
            RunError: the connection broke; what was sent stays for the next time.
        """
        held = self.done.get(RECORD, {}).get("sha256")
        if held is not None and held != sha256_file(folder / RECORD) and not overwrite:
            raise OutputError(f"{self.url} holds another run: add --overwrite to replace it, or copy to another place")
        listener(Event("start", "copy", str(self.url)))
        with refused_as(OutputError):
            n_sent = send_folder(folder, str(self.url), last=_LAST, done=self.done, note=self.write)
        listener(Event("end", "copy", str(self.url), facts={"objects": n_sent}))
        return n_sent

    def write(self, done: dict[str, dict[str, Any]]) -> None:
        """Write what was sent."""
        write_json(self.url / STATE, sealed_tree({"done": done}))


def open_copy(given: str, *, overwrite: bool = False) -> Copy:
    """Return the place that a run is going to be copied to, after writing to it: who may not learns that before the run, not after.

    Raises:
        RecipeError: it is no URL that may be written.
        OutputError: something else lies there, or it can't be written.
    """
    url = path_at(given)
    if not is_url(url):
        raise RecipeError(
            f"--copy-to {given}: expected a URL like s3://bucket/runs/a; a run's own folder is its output"
        )
    with refused_as(OutputError):
        there = {child.name: child for child in url.iterdir()} if url.exists() else {}
        held = there[STATE].read_bytes() if STATE in there else None
    done: dict[str, dict[str, Any]] = {}
    if held is not None:
        try:
            done = {name: dict(sent) for name, sent in unsealed_tree(held)["done"].items()}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise OutputError(
                f"{url / STATE}: this state is damaged or was changed; empty {url}, or copy to another place"
            ) from error
    elif there and not overwrite:
        raise OutputError(f"{url} isn't empty ({min(there)}): choose another place, or add --overwrite")
    copy = Copy(url, done)
    with refused_as(OutputError):
        copy.write(done)
    return copy
