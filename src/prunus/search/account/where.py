"""Where does a search keep what it finds, and may this one go on there?"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from prunus.core.errors import OutputError
from prunus.core.files.plain_files import clear_leftovers
from prunus.core.files.sealed import canonical_json
from prunus.core.recipes.recipe import Recipe
from prunus.core.recipes.recipe_file import load_recipe
from prunus.search.space import Space
from prunus.search.study import JOURNAL

__all__ = ["Where", "check_folder"]


@dataclass(frozen=True)
class Where:
    """The places below the output folder."""

    folder: Path

    @property
    def trials(self) -> Path:
        """A folder for each setting."""
        return self.folder / "trials"

    @property
    def shared(self) -> Path:
        """Dense models that trials have in common."""
        return self.folder / ".dense"

    @property
    def confirmed(self) -> Path:
        """The runs of the best settings."""
        return self.folder / "confirmed"

    @property
    def sizes(self) -> Path:
        """Several sizes of one setting's plan."""
        return self.folder / "sizes"

    @property
    def record(self) -> Path:
        """All that was found."""
        return self.folder / "search.json"

    @property
    def page(self) -> Path:
        """To look at."""
        return self.folder / "search.html"

    @property
    def begun(self) -> Path:
        """On which data."""
        return self.folder / ".begun.json"

    @property
    def recipe(self) -> Path:
        """What was asked."""
        return self.folder / "recipe.yaml"


def check_folder(where: Where, space: Space, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that holds something else, and empty it where that is asked.

    Raises:
        OutputError: it holds a search and neither ``resume`` nor ``overwrite`` is given, one of another recipe, or something else.
    """
    clear_leftovers(where.folder)
    for place in (where.trials, where.shared, where.confirmed, where.sizes):
        if place.is_symlink():
            raise OutputError(f"{place} is a link, expected a folder of this search: remove it")
    held = sorted(path.name for path in where.folder.iterdir() if path.name != ".lock")
    if not held:
        return
    if not (
        where.recipe.exists() and (where.trials.is_dir() or where.record.exists() or (where.folder / JOURNAL).exists())
    ):
        raise OutputError(
            f"{where.folder} isn't empty and holds no search ({held[0]}): choose another folder (-o output=...)"
        )
    if overwrite:
        for name in (where.trials, where.shared, where.confirmed, where.sizes):
            shutil.rmtree(name, ignore_errors=True)
        for name in (where.record, where.page, where.recipe, where.begun, where.folder / JOURNAL):
            name.unlink(missing_ok=True)
        return
    if not resume:
        raise OutputError(
            f"{where.folder} holds a search already: add --resume to go on with it, --overwrite to start anew"
        )
    before = load_recipe(where.recipe)
    odd = _difference(before, space)
    if odd:
        raise OutputError(
            f"{where.folder} holds the search of another recipe ({odd} differs): choose another folder, or --overwrite"
        )


def _difference(before: Recipe, space: Space) -> str:
    """Return which section of the recipe isn't as it was: what is searched, and what is aimed at, may differ."""
    was = before.model_dump(mode="json", exclude={"search"})
    now = {key: value for key, value in space.base.items() if key not in ("output", "target", "contract")}
    return next((key for key, value in now.items() if canonical_json(was[key]) != canonical_json(value)), "")
