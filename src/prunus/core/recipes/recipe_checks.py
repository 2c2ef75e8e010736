"""Which sections of a recipe can't hold together?

Each check takes the sections that it compares, and raises a ValueError that names both; the recipe calls it.
"""

from __future__ import annotations

from prunus.core.recipes.strategy import Schedule, Strategy
from prunus.core.recipes.target_contract import Contract, Target
from prunus.core.recipes.train_sections import Recovery, Train
from prunus.core.units import is_mask

__all__ = ["check_amounts", "check_gap_margin", "check_rewind_and_during"]


def check_rewind_and_during(schedule: Schedule | None, train: Train, recovery: Recovery, *, has_weights: bool) -> None:
    """Refuse a schedule that needs the dense training where there is none, and rewinding without training anew."""
    if schedule is None or (schedule.rewind_to is None and schedule.during == "recovery"):
        return
    key = "strategy.schedule.during: train" if schedule.rewind_to is None else "strategy.schedule.rewind_to"
    if has_weights and schedule.rewind_to != 0:
        raise ValueError(f"{key} needs the dense training, and model.weights skips it: leave one of them out")
    if schedule.rewind_to is None:
        return
    if schedule.rewind_to > train.epochs:
        raise ValueError(
            f"{key} must be an epoch of the dense training, 0 to train.epochs = {train.epochs}: got {schedule.rewind_to}"
        )
    if recovery.method == "none" or recovery.epochs == 0:
        raise ValueError(
            f"{key} takes the training back, so recovery must train anew: got method {recovery.method}, "
            f"{recovery.epochs} epochs"
        )


def check_gap_margin(
    recovery: Recovery, strategy: Strategy | None, contract: Contract | None, *, features: bool
) -> None:
    """Refuse to stop by the validation examples where they must show something else, or where a stop would have no meaning."""
    if recovery.gap_margin is None:
        return
    if contract is not None or features:
        other = "contract" if contract is not None else "features"
        raise ValueError(
            f"recovery.gap_margin and {other} both decide on the validation examples, so that {other} would show too much: "
            "got both; drop one of them"
        )
    if recovery.method == "lora":
        raise ValueError("recovery.gap_margin goes with fine_tune and distil: adapters are merged at the end; got lora")
    if strategy is not None and strategy.schedule.rewind_to is not None:
        raise ValueError(
            "recovery.gap_margin and strategy.schedule.rewind_to: what goes back is trained anew; drop one of them"
        )


def check_amounts(strategy: Strategy | None, target: Target | None, contract: Contract | None) -> None:
    """Refuse two answers to how much goes, and a target that nothing can meet."""
    if target is None:
        if strategy is not None and strategy.allocation == "cost":
            raise ValueError("strategy.allocation cost needs a target: give one, like target: {macs: 0.5}")
        return
    if target.share is None and contract is None:
        raise ValueError("target: smallest is as small as the contract allows: give a contract, or a share")
    if strategy is None:
        raise ValueError("a target or contract needs a strategy, which says what may go: got none; give one")
    for name in ("keep_fraction", "cutoff"):
        if getattr(strategy, name) is not None or any(
            getattr(rule, name, None) is not None for rule in strategy.layers
        ):
            said = "target" if target.share is not None else "contract"
            raise ValueError(f"{said} and strategy.{name} both say how much goes: give one of them")
    if (
        len(strategy.granularity) > 1
        or strategy.granularity[0] in ("block", "expert")
        or is_mask(strategy.granularity[0])
    ):
        why = "zeros save no time, and no MACs" if is_mask(strategy.granularity[-1]) else "costs follow from widths"
        raise ValueError(
            f"target {target.kind} needs one granularity of widths, channel for all of them: "
            f"got {list(strategy.granularity)}; {why}"
        )
