"""Which training examples are left after a plan's removals?

Examples are found by their stable ids, so a plan holds for the same data in another order or on another machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunus.core.errors import PlanError, RunError
from prunus.core.types import Decision, Ints, Step

if TYPE_CHECKING:
    from prunus.data import Examples

__all__ = ["positions_by_id", "remove_examples"]


def remove_examples(examples: Examples, step: Step) -> Examples:
    """Return ``examples`` without those that ``step`` doesn't keep; examples that it doesn't judge stay.

    Raises:
        PlanError: the step judges an example that isn't there, or judges one twice.
        RunError: no example would be left.
    """
    keep = np.ones(len(examples), np.bool_)
    for decision, rows in zip(step.decisions, positions_by_id(examples, step), strict=True):
        keep[rows] = decision.keep
    if len(keep) and not keep.any():
        raise RunError(f"the plan removes all {len(keep)} examples: raise examples.remove.keep_fraction")
    return examples if keep.all() else examples.select(keep)


def positions_by_id(examples: Examples, step: Step) -> list[Ints]:
    """Return, per decision of ``step``, where its units are in ``examples``.

    Raises:
        PlanError: ids are missing from the plan or from the data, or stand there twice.
    """
    where = {name: position for position, name in enumerate(examples.ids)}
    seen: set[str] = set()
    found = []
    for decision in step.decisions:
        names = _labels(decision, step)
        missing = [name for name in names if name not in where]
        if missing:
            raise PlanError(
                f"the plan would {step.operation} {len(missing)} examples that aren't in the data (the first is {missing[0]!r} of "
                f"{decision.stratum!r}): use the data, the split and the order of steps that the plan was made for"
            )
        if len(set(names)) != len(names) or not seen.isdisjoint(names):
            raise PlanError(f"the plan judges an example of {decision.stratum!r} twice in one step: make the plan anew")
        seen.update(names)
        found.append(np.array([where[name] for name in names], np.int64))
    return found


def _labels(decision: Decision, step: Step) -> list[str]:
    if decision.label is None:
        raise PlanError(
            f"a plan must name the examples it would {step.operation}: {decision.stratum!r} has no labels; make the plan anew"
        )
    return [str(label) for label in decision.label]
