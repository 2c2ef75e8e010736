"""How is the same function called on many shards or trials, by workers of which any may die, with one and the same result?"""

from prunus.core.recipes.execution.dispatch_section import Dispatch
from prunus.scale.dispatch.attempt import Failure
from prunus.scale.dispatch.open_workers import Workers, open_workers, reach_workers
from prunus.scale.dispatch.same_files import Files
from prunus.scale.dispatch.shards_and_trials import AskTell, map_shards, run_trials

__all__ = [
    "AskTell",
    "Dispatch",
    "Failure",
    "Files",
    "Workers",
    "map_shards",
    "open_workers",
    "reach_workers",
    "run_trials",
]
