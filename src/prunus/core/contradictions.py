"""Which settings of a recipe can't hold together?

Each check raises a ValueError that names both of them; the recipe calls it and says where it stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunus.core.units import as_mask

if TYPE_CHECKING:
    from prunus.core.recipe import Recipe, Strategy

__all__ = ["check_n_of_m", "check_rewind_and_during"]


def check_n_of_m(strategy: Strategy) -> None:
    """Refuse an amount, a ranking or rounds beside N:M, which is an amount by itself; they may mean other units of the list."""
    mask = as_mask(strategy.granularity[0])
    if len(strategy.granularity) > 1 or mask is None or mask.kind != "n_m":
        return
    given = {
        "keep_fraction": strategy.keep_fraction is not None,
        "cutoff": strategy.cutoff is not None,
        f"allocation {strategy.allocation}": strategy.allocation != "uniform",
        f"schedule {strategy.schedule.kind}": strategy.schedule.kind != "one_shot",
        "layers.keep_fraction": any(rule.keep_fraction is not None for rule in strategy.layers),
        "min_units or layers.min_units": strategy.min_units != 1 or any(rule.min_units for rule in strategy.layers),
        "round_to or layers.round_to": strategy.round_to not in (1, "auto")
        or any(rule.round_to for rule in strategy.layers),
    }
    for what, is_given in given.items():
        if is_given:
            raise ValueError(
                f"granularity {strategy.granularity[0]} keeps {mask.first} of every {mask.second} weights everywhere, in one "
                f"round: it contradicts {what}; leave that out"
            )


def check_rewind_and_during(recipe: Recipe) -> None:
    """Refuse a schedule that needs the dense training where there is none, and rewinding without training anew."""
    schedule = None if recipe.strategy is None else recipe.strategy.schedule
    if schedule is None or (schedule.rewind_to is None and schedule.during == "recovery"):
        return
    key = "strategy.schedule.during: train" if schedule.rewind_to is None else "strategy.schedule.rewind_to"
    if recipe.model.weights is not None and schedule.rewind_to != 0:
        raise ValueError(f"{key} needs the dense training, and model.weights skips it: leave one of them out")
    if schedule.rewind_to is None:
        return
    if schedule.rewind_to > recipe.train.epochs:
        raise ValueError(
            f"{key} must be an epoch of the dense training, 0 to train.epochs = {recipe.train.epochs}: got {schedule.rewind_to}"
        )
    if recipe.recovery.method == "none" or recipe.recovery.epochs == 0:
        raise ValueError(
            f"{key} takes the training back, so recovery must train anew: got method {recipe.recovery.method}, "
            f"{recipe.recovery.epochs} epochs"
        )
