"""Which criteria and metrics of other packages does a recipe use?

They are imported here, once the recipe is the user's own word: one that came with a plan has been through ``core.recipes.trust``.
"""

from __future__ import annotations

from prunus.core.code.registry import CRITERIA, METRICS, would_import
from prunus.core.recipes.recipe import Recipe
from prunus.core.recipes.trust import names_registered
from prunus.score import criteria
from prunus.tasks import metrics

__all__ = ["load_offered"]


def load_offered(recipe: Recipe) -> None:
    """Import what a recipe names and another installed package offers; what nobody has is left to the stages, which say more.

    Raises:
        RecipeError: the package can't be imported, or doesn't register what it offers.
    """
    for _, group, name in names_registered(recipe):
        if would_import(group, name):
            {CRITERIA: criteria.load, METRICS: metrics.load}[group](name)
