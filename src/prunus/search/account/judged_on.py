"""On which examples are the settings of a search judged, and does every trial have the same ones?

A search lasts, and goes on after a stop: files may be changed meanwhile, a node may have other ones, and a key of the space may
change which examples there are. What was measured on one set of examples says nothing beside what was measured on another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from prunus.core.errors import DataError, OutputError, RecipeError
from prunus.core.files.file_hash import sha256_file
from prunus.core.files.plain_files import open_plain, write_json
from prunus.core.files.sealed import sealed_tree, unsealed_tree
from prunus.data import Examples
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.same_ranks import check_data, check_weights

__all__ = ["JudgedOn", "check_begun", "check_judged", "judged_on", "read_begun"]


@dataclass(frozen=True)
class JudgedOn:
    """What tells one set of examples, and the weights that settings begin with, from another."""

    data: str
    examples: str
    weights: Mapping[str, str] = field(default_factory=dict)


def judged_on(job: Job, weights: tuple[str, ...] = ()) -> JudgedOn:
    """Return what a job's settings are judged on; ``weights`` are the files that they may begin with."""
    digest = hashlib.sha256()
    for part in (job.data.validation, job.data.test):
        _add(digest, part)
    found = {name: sha256_file(Path(name)) for name in weights if Path(name).is_file()}
    return JudgedOn(job.data.fingerprint, digest.hexdigest(), found)


def _add(digest: hashlib._Hash, part: Examples) -> None:
    """Add which rows a part has, of how many, and what they are labelled as, in their own units."""
    digest.update(f"{len(part)} of {len(part.source.ids)} {part.identity} ".encode())
    digest.update(part.rows.cpu().numpy().tobytes())
    if part.known_targets is not None:
        digest.update(part.source.targets[part.rows].cpu().numpy().tobytes())


def check_judged(expected: JudgedOn, job: Job, *, same_data: bool) -> None:
    """Refuse a trial that would be judged on other examples than the search.

    Args:
        same_data: its section ``data`` is the search's own.

    Raises:
        DataError: the files were changed since, or are others on this machine.
        RecipeError: its settings change which examples there are.
    """
    if same_data and job.data.fingerprint != expected.data:
        raise DataError(
            f"the data aren't those that the search was begun on (fingerprint {expected.data[:12]}, got "
            f"{job.data.fingerprint[:12]}): put the files back, which all workers must have"
        )
    if judged_on(job).examples != expected.examples:
        raise RecipeError(
            "these settings change which validation or test examples there are, or their labels, and settings that are judged on "
            "different ones can't be compared: say in data.split, data.validation and data.test which they are, or let another "
            "key vary"
        )


def check_begun(path: Path, here: JudgedOn) -> None:
    """Keep at ``path`` what a search is judged on; refuse to go on with a search that was judged on something else.

    Raises:
        DataError: the data were changed since it was begun.
        OutputError: the weights were, or what is kept is damaged.
    """
    begun = read_begun(path)
    if begun is not None:
        check_data(path.parent, begun.data, here.data)
        for name, sha256 in here.weights.items():
            check_weights(path.parent, name, begun.weights.get(name), sha256)
    write_json(path, sealed_tree(asdict(here)))


def read_begun(path: Path) -> JudgedOn | None:
    """Return on what the search in a folder was begun; None where an older prunus began it, and didn't say.

    Raises:
        OutputError: what is kept is damaged.
    """
    if not path.exists():
        return None
    try:
        with open_plain(path) as file:
            tree = unsealed_tree(file.read())
        weights = {str(name): str(sha256) for name, sha256 in tree["weights"].items()}
        return JudgedOn(str(tree["data"]), str(tree["examples"]), weights)
    except (OSError, ValueError, LookupError, AttributeError) as error:
        raise OutputError(f"{path} is damaged or was changed: choose another folder, or add --overwrite") from error
