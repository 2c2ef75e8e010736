"""Where does it stay how safe a model is: ``safety.json`` and a page, in a run's folder or in one of the user's?"""

from __future__ import annotations

from pathlib import Path

from prunus.core.files.plain_files import write_text
from prunus.pipeline.jobs.run_folder import RECORD, SAFETY
from prunus.report import SafetyFacts, load_record, load_safety, render_safety, write_html

__all__ = ["keep_safety"]

_PARTS = ("harm", "robustness", "privacy")


def keep_safety(found: SafetyFacts, folder: Path, *, is_run: bool) -> SafetyFacts:
    """Write what was found, with what an earlier call found of the same models on the same data, and return all of it."""
    path = folder / SAFETY
    if path.is_file():
        before = load_safety(path)
        same = all(getattr(before, key) == getattr(found, key) for key in ("hashes", "data", "task"))
        if same:
            older = {part: getattr(before, part) for part in _PARTS if getattr(found, part) is None}
            found = found.model_copy(update=older)
    write_text(path, found.model_dump_json(indent=1) + "\n")
    if is_run:
        write_html(load_record(folder / RECORD), folder / "report.html", found)
    else:
        write_text(folder / "safety.html", render_safety(found))
    return found
