"""What lies in the folder of a run, and may this run have it?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prunus.core.code.place import place
from prunus.core.errors import OutputError
from prunus.core.events import Listener
from prunus.core.files.plain_files import (
    clear_leftovers,
    explain_os_error,
    folder_lock,
    open_plain,
    remove,
    write_text,
)
from prunus.core.recipes.recipe import Recipe
from prunus.pipeline.jobs.replaced_run import ASIDE, forget_aside, put_back, set_aside
from prunus.pipeline.jobs.same_ranks import DATA, RANKS, check_ranks
from prunus.pipeline.jobs.workspace import LOG, WORK, Workspace
from prunus.ship.formats import FORMATS
from prunus.ship.quantize.int8_formats import INT8_RUNTIMES

__all__ = ["is_of", "open_workspace", "recipe_text"]

RECIPE, RECORD, TRACKING = "recipe.yaml", "record.json", "tracking"
SAFETY = "safety.json"
"""What was measured of a run's models afterwards: harm, robustness, privacy."""
_SIZES = ("sizes", "sizes.json")
_EXPORTS = (
    *(form.beside_bundle for form in FORMATS.values()),
    *(runtime.beside_bundle for runtime in INT8_RUNTIMES.values()),
)
OURS = (RECIPE, RECORD, LOG, WORK, TRACKING, "report.html", "plan", "bundle", "dense", SAFETY, *_EXPORTS, *_SIZES)
TABLE, EXAMPLES_PAGE, EXAMPLES_WORK, RECORDING = "examples.parquet", "examples.html", ".examples", "recording"
"""What the commands about examples leave beside a run: it is no part of one, and no run throws it away."""
_BESIDE = (".lock", LOG, TABLE, EXAMPLES_PAGE, EXAMPLES_WORK, RECORDING)


@contextmanager
def open_workspace(
    recipe: Recipe, folder: Path, *, resume: bool, overwrite: bool, listener: Listener
) -> Iterator[Workspace]:
    """Yield the workspace of one run, locked against a second one.

    A folder that was moved since is still that of its run: where it lies is no part of what was asked.
    A run that is overwritten is there again if the new one ends before its data are read and fit its recipe.

    Raises:
        OutputError: another run holds the folder, or it holds a run already and neither ``resume`` nor ``overwrite`` is given,
            or ``resume`` meets the run of another recipe, or one that was begun on another number of processes.
    """
    with folder_lock(folder):
        clear_leftovers(folder, (*OURS, ASIDE))
        put_back(folder, OURS)
        if (folder / WORK).is_symlink():
            raise OutputError(f"{folder / WORK} is a link, expected a folder of this run: remove it")
        if (folder / WORK).is_dir():
            clear_leftovers(folder / WORK)
        held = folder / RECIPE
        text = recipe_text(recipe)
        if held.exists():
            if not _is_begun(folder):
                _clear(folder)
            elif overwrite:
                set_aside(folder, OURS)
            elif not resume:
                raise OutputError(
                    f"{folder} holds a run already: add --resume to go on with it, --overwrite to start anew"
                )
            elif not is_of(held, recipe):
                raise OutputError(
                    f"{folder} holds a run of another recipe (see {held}): choose another output folder, or add --overwrite"
                )
        elif any(child.name not in _BESIDE for child in folder.iterdir()):
            raise OutputError(f"{folder} holds files that are no run of prunus: choose an empty or new output folder")
        try:
            write_text(held, text)
            made = Workspace(folder, listener)
            if (folder / WORK / f"{RANKS}.json").exists():
                check_ranks(folder, made.n_ranks(), place().n_ranks)
            yield made
        except BaseException:
            put_back(folder, OURS)
            raise
        forget_aside(folder)


def _is_begun(folder: Path) -> bool:
    """Return whether a run left more than its recipe and its log: one that failed before its first stage was done didn't."""
    return any(
        child.name not in (*_BESIDE, RECIPE, TRACKING)
        and not (child.name == WORK and child.is_dir() and all(kept.stem in (RANKS, DATA) for kept in child.iterdir()))
        for child in folder.iterdir()
    )


def recipe_text(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML that reads back to the same recipe."""
    import yaml

    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _clear(folder: Path) -> None:
    for name in OURS:
        try:
            remove(folder / name)
        except OSError as error:
            raise explain_os_error(error, folder / name) from error


def is_of(path: Path, recipe: Recipe) -> bool:
    """Return whether a folder's recipe asks the same, wherever it was to be written then."""
    import yaml

    try:
        with open_plain(path) as file:
            held = yaml.safe_load(file.read().decode("utf-8", "replace"))
    except OSError as error:
        raise OutputError(f"can't read {path}: {error.strerror}; choose another output folder") from error
    except yaml.YAMLError:
        return False
    asked = recipe.model_dump(mode="json")
    return isinstance(held, dict) and {**held, "output": None} == {**asked, "output": None}
