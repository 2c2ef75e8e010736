"""Which values does a plan replace: labels here, input features in ``apply.input_features``?

The plan keeps the old label beside the new one, so a repair can be reviewed and is only applied to the data that it was made for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from prunus.apply.input_features import SelectInputs, replace_features
from prunus.apply.subset import positions_by_id
from prunus.core.errors import PlanError
from prunus.core.types import Step

if TYPE_CHECKING:
    from prunus.data import Examples

__all__ = ["SelectInputs", "relabel_examples", "replace_features"]


def relabel_examples(examples: Examples, step: Step) -> Examples:
    """Return ``examples`` with the labels that ``step`` replaces; everything else stays as it is.

    Raises:
        PlanError: an example isn't there, has another label than the plan says, or would get a class that isn't there.
    """
    targets = examples.targets.clone()
    changed = False
    for decision, rows in zip(step.decisions, positions_by_id(examples, step), strict=True):
        if decision.before is None or decision.after is None:
            raise PlanError(
                f"a relabelling must say the labels before and after: {decision.stratum!r} doesn't; make the plan anew"
            )
        for i in np.flatnonzero(np.isfinite(decision.after)).tolist():
            row, before, after = int(rows[i]), float(decision.before[i]), float(decision.after[i])
            if float(targets[row]) != before:
                raise PlanError(
                    f"example {examples.ids[row]!r} should have label {before:g} before the repair, got {float(targets[row]):g}: "
                    "use the data that the plan was made for"
                )
            if examples.task.exclusive and not (after.is_integer() and 0 <= after < examples.n_outputs):
                raise PlanError(
                    f"example {examples.ids[row]!r} would get label {after:g}, expected a class number in "
                    f"0 ... {examples.n_outputs - 1}: make the plan anew"
                )
            targets[row] = torch.tensor(after, dtype=targets.dtype)
            changed = True
    return examples.with_targets(targets) if changed else examples
