"""Prune a trained PyTorch model and the data it learns from, and prove that what is left still works.

The public names load when they are first used, so ``import prunus`` costs nothing and doesn't import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunus.apply import shrink
    from prunus.core.errors import PrunusError
    from prunus.core.files.plan_file import load_plan, save_plan
    from prunus.core.recipes.recipe import Recipe
    from prunus.core.recipes.recipe_file import load_recipe
    from prunus.core.types import Plan
    from prunus.data import EpochSampler
    from prunus.graph import analyze, certify
    from prunus.optimizer import ModelOptimizer
    from prunus.pipeline import apply_plan, make_plan, prune, run
    from prunus.pipeline.sharding.open_kept_rows import kept_rows
    from prunus.score import Recording, near_duplicate_texts
    from prunus.ship import load_bundle, save_bundle

__version__ = "0.1.0"

_HOME = {
    "EpochSampler": "prunus.data",
    "ModelOptimizer": "prunus.optimizer",
    "Plan": "prunus.core.types",
    "PrunusError": "prunus.core.errors",
    "Recipe": "prunus.core.recipes.recipe",
    "Recording": "prunus.score",
    "analyze": "prunus.graph",
    "apply_plan": "prunus.pipeline",
    "certify": "prunus.graph",
    "kept_rows": "prunus.pipeline.sharding.open_kept_rows",
    "load_bundle": "prunus.ship",
    "load_plan": "prunus.core.files.plan_file",
    "load_recipe": "prunus.core.recipes.recipe_file",
    "make_plan": "prunus.pipeline",
    "near_duplicate_texts": "prunus.score",
    "prune": "prunus.pipeline",
    "run": "prunus.pipeline",
    "save_bundle": "prunus.ship",
    "save_plan": "prunus.core.files.plan_file",
    "shrink": "prunus.apply",
}

__all__ = [
    "EpochSampler",
    "ModelOptimizer",
    "Plan",
    "PrunusError",
    "Recipe",
    "Recording",
    "analyze",
    "apply_plan",
    "certify",
    "kept_rows",
    "load_bundle",
    "load_plan",
    "load_recipe",
    "make_plan",
    "near_duplicate_texts",
    "prune",
    "run",
    "save_bundle",
    "save_plan",
    "shrink",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'prunus' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
