"""How does a command get its recipe, and find out that what it names isn't there, before anything heavy is imported?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunus.core.recipes.recipe import Recipe

__all__ = ["check_there", "load"]


def load(recipe: Path, overrides: list[str] | None, resume: bool = False) -> Recipe:
    """Return the recipe at a path, with overrides."""
    from prunus.core.files.urls.url_path import refuse_url
    from prunus.core.recipes.recipe_file import load_recipe

    refuse_url(recipe, "a recipe", "copy it to this machine, and give that file")
    config = load_recipe(recipe, overrides or ())
    check_there(config, resume)
    return config


def check_there(config: Recipe, resume: bool) -> None:
    """Check that what a recipe names is there, before torch is imported; a run that is done needs none of it any more."""
    from prunus.core.recipes.named_places import check_recipe

    if not (resume and (Path(config.output) / "record.json").is_file()):
        check_recipe(config)
