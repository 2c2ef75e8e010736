"""How much stays, and which units are it? Numbers only: no module here knows a model or a data set.

The same code prunes weights, channels and training examples.
"""

from prunus.select.allocate import Allocation, allocation, allocations
from prunus.select.amount import budget, check_keep_fraction
from prunus.select.choose import select, top
from prunus.select.knapsack import Cost, climb, cost_aware, floor_counts, one_less, predicted_loss
from prunus.select.layer_shares import lamp_scores, owl
from prunus.select.normalize import normalization, normalizations
from prunus.select.schedule import keep_fractions, schedules
from prunus.select.tile_choice import best_of_each, tile

__all__ = [
    "Allocation",
    "Cost",
    "allocation",
    "allocations",
    "best_of_each",
    "budget",
    "check_keep_fraction",
    "climb",
    "cost_aware",
    "floor_counts",
    "keep_fractions",
    "lamp_scores",
    "normalization",
    "normalizations",
    "one_less",
    "owl",
    "predicted_loss",
    "schedules",
    "select",
    "tile",
    "top",
]
