"""Which recipe holds for a plan or a bundle, which may have come from elsewhere?

The user's own if they give one. Else the one that came along, as far as ``core.recipes.trust`` lets it name things outside of
prunus.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from prunus.core.errors import BundleError, PlanError, RecipeError
from prunus.core.recipes.recipe import Data, Recipe
from prunus.core.recipes.recipe_file import make_recipe, override
from prunus.core.recipes.trust import Permission, check_reach, reaches
from prunus.core.text import shown
from prunus.core.types import Plan
from prunus.ship import Bundle

__all__ = ["applied_folder", "data_of_bundle", "needs_permission", "recipe_of_plan"]


def recipe_of_plan(
    plan: Plan, path: Path, *, overrides: Sequence[str] = (), trust_code: bool = False, own: Recipe | None = None
) -> Recipe:
    """Return the recipe to carry out ``plan`` with; its output lies beside the plan unless the user says where.

    Args:
        path: where the plan was found.
        overrides: ``key=value`` of the user: what they set is their word.
        trust_code: allow the plan's recipe to name functions to call and files to read.
        own: the user's recipe, instead of the plan's; ``overrides`` are in it already.

    Raises:
        PlanError: the plan's recipe is no recipe, or names something outside of prunus that the user didn't allow.
        RecipeError: an override is wrong.
    """
    if own is not None:
        return own if _sets_output(overrides) else own.model_copy(update={"output": str(applied_folder(path))})
    if not isinstance(plan.recipe, dict) or not plan.recipe:
        raise PlanError(f"{path}: the plan holds no recipe, got {shown(plan.recipe)}; give your own (--recipe)")
    tree = override({**plan.recipe, "output": str(applied_folder(path))}, overrides)
    try:
        recipe = make_recipe(tree, f"{path}: recipe")
    except RecipeError as error:
        if overrides:
            raise
        raise PlanError(f"{error}; the plan is damaged or of another version of prunus: make it anew") from error
    given = ("output", *(assignment.partition("=")[0].strip() for assignment in overrides))
    check_reach(
        recipe,
        Permission(everything=trust_code, given=given),
        where=str(path),
        way="give your own recipe (--recipe RECIPE), your own value (-o KEY=VALUE), or trust the plan (--trust-code)",
    )
    return recipe


def applied_folder(path: Path) -> Path:
    """Return where a plan is carried out if nobody says where: beside the run, or the folder, that holds it.

    >>> str(applied_folder(Path("runs/a/plan"))), str(applied_folder(Path("runs/a"))), str(applied_folder(Path("b/c.plan")))
    ('runs/a-applied', 'runs/a-applied', 'b/c.plan-applied')
    """
    folder = path.parent if path.name == "plan.json" else path
    if folder.name in ("", ".."):
        folder = folder.resolve()
    if folder.name == "plan":
        folder = folder.parent if folder.parent.name not in ("", "..") else folder.resolve().parent
    return folder.with_name(f"{folder.name}-applied")


def needs_permission(recipe: Recipe) -> bool:
    """Return whether a plan of ``recipe`` can be carried out only with a permission."""
    return any(reach.key != "output" for reach in reaches(recipe))


def data_of_bundle(bundle: Bundle, folder: Path, *, trust_code: bool) -> Data:
    """Return which data a bundle was made of, as it says itself.

    Raises:
        PlanError: it doesn't say, or names data outside of prunus that the user didn't allow.
    """
    facts = bundle.manifest.facts.get("data")
    if facts is None or (isinstance(facts, dict) and facts.get("source") == "memory"):
        raise PlanError(f"{folder}: this bundle doesn't say on which data it was made: give --source")
    try:
        config = Data.model_validate(facts)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, ("facts.data", *first["loc"])))
        raise BundleError(
            f"{folder}: manifest.json: {key}: {first['msg']}, got {shown(first['input'])}; make the bundle anew"
        ) from error
    check_reach(
        config,
        Permission(everything=trust_code),
        where=str(folder),
        way="say yourself on what to measure (--source DATA, or --recipe RECIPE for its data and split), "
        "or trust the bundle (--trust-code)",
        prefix="facts.data.",
    )
    return config


def _sets_output(overrides: Sequence[str]) -> bool:
    return any(assignment.partition("=")[0].strip() == "output" for assignment in overrides)
