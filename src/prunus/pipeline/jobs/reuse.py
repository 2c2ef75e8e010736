"""What does carrying out a plan take over from the making of it?

The dense model was trained to decide; it stays beside the plan, and its hash stands in the plan. Where it is there, and data, model
and training are the plan's, it isn't trained again; where it isn't, training it again gives the same.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from prunus.core.errors import PlanError
from prunus.core.files.file_hash import sha256_file
from prunus.core.recipes.recipe import Recipe
from prunus.core.recipes.recipe_file import make_recipe
from prunus.core.types import Plan
from prunus.pipeline.jobs.workspace import LOAD_DATA, WORK, Workspace

__all__ = ["dense_fingerprint", "take_over", "training_stage"]

_SECTIONS = ("data", "model", "train", "runtime")


def training_stage(seed: int) -> str:
    """Return what the training of a seed's dense model is called."""
    return f"seed {seed} / train"


def dense_fingerprint(workspace: Workspace, seed: int) -> dict[str, str]:
    """Return the hash of the dense model that was trained for a plan; nothing where none was."""
    kept = workspace.path(training_stage(seed))
    weights = None if kept is None else kept / "model.safetensors"
    return {"dense": sha256_file(weights)} if weights is not None and weights.is_file() else {}


def take_over(plan: Plan, run: Path, recipe: Recipe, workspace: Workspace) -> None:
    """Copy the dense model that lies beside a plan into the workspace of the run that carries it out.

    Args:
        run: the folder in which the plan was made.

    Raises:
        PlanError: the dense model isn't the one that the plan was made with.
    """
    stage = training_stage(plan.seed)
    source = Workspace(run).path(stage)
    target = workspace.path(stage)
    assert source is not None
    if target is None or target.exists() or "dense" not in plan.fingerprints or not _same_training(plan, recipe):
        return
    if not (source / "model.safetensors").is_file():
        workspace.note(LOAD_DATA, f"the dense model of the plan isn't in {run / WORK}, so it is trained again")
        return
    if sha256_file(source / "model.safetensors") != plan.fingerprints["dense"]:
        raise PlanError(
            f"{source} was changed after the plan was made (its SHA-256 differs from plan.json): remove that folder to have the "
            "dense model trained again"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    for kept in sorted(source.parent.glob(f"{source.name}*"), reverse=True):  # states to rewind to first, the sign last
        if kept.is_symlink():
            continue
        if kept.is_dir():
            shutil.copytree(kept, target.parent / kept.name, dirs_exist_ok=True)
        else:
            shutil.copy2(kept, target.parent / kept.name)
    workspace.note(LOAD_DATA, "the dense model is the one that the plan was made with")


def _same_training(plan: Plan, recipe: Recipe) -> bool:
    made_with = make_recipe(plan.recipe, "the plan's recipe")
    same = all(getattr(made_with, name) == getattr(recipe, name) for name in _SECTIONS)
    return same and _rewind(recipe) in (None, _rewind(made_with))


def _rewind(recipe: Recipe) -> int | None:
    return None if recipe.strategy is None else recipe.strategy.schedule.rewind_to
