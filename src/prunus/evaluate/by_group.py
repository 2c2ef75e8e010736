"""Whom does pruning cost more than others: how does a metric change for each group of examples, seen all at once?

Who looks at twenty groups finds one that changed by chance. Every interval is therefore as wide as it has to be for all of them to
hold together with the confidence that was asked for (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from prunus.core.types import Measurement
from prunus.evaluate.compare import Verdict, compare
from prunus.evaluate.pairs import Pairs
from prunus.tasks import Observed, Task, measured, n_observed

__all__ = ["FEWEST", "MOST_GROUPS", "GroupChange", "at_once", "group_changes", "group_rows"]

FEWEST = 10
"""Groups of fewer examples are looked at together."""

MOST_GROUPS = 50
"""So many groups, the largest, are looked at one by one."""


@dataclass(frozen=True)
class GroupChange:
    """A metric of the dense and the pruned models (means over seeds) on one group, and the paired difference."""

    name: str
    n: int
    dense: float
    pruned: float
    difference: Measurement
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; a number that isn't finite becomes None."""
        values = {key: getattr(self, key) for key in ("dense", "pruned")}
        plain = {key: value if np.isfinite(value) else None for key, value in values.items()}
        return {
            "name": self.name,
            "n": self.n,
            **plain,
            "difference": self.difference.to_dict(),
            "verdict": self.verdict,
        }


def at_once(found: Measurement, n: int, confidence: float) -> Measurement:
    """Return an interval widened so that ``n`` of its kind hold together, each of which holds alone with ``confidence``.

    Each side's distance from the value is stretched by the ratio of the normal quantiles: a bootstrap has no resamples as far out
    as hundreds of intervals would need.

    >>> at_once(Measurement("", 0.0, -1.96, 1.96), 10, 0.95).high.__round__(2)
    2.81
    """
    quantile = NormalDist().inv_cdf
    stretch = quantile(1 - (1 - confidence) / (2 * max(n, 1))) / quantile((1 + confidence) / 2)
    low, high = (found.value + stretch * (end - found.value) for end in (found.low, found.high))
    return replace(found, low=low, high=high)


def group_changes(pairs: Pairs, groups: Sequence[str], metric: str) -> tuple[GroupChange, ...]:
    """Return the change of ``metric`` in each group, pruned minus dense, the largest group first.

    Args:
        groups: the group of each example, empty where it has none.
    """
    parts = group_rows(groups)
    found = []
    for name, rows in parts.items():
        here = pairs.of(rows)
        if not all(_is_finite(pairs.task, metric, seen) for seen in (*here.dense, *here.pruned)):
            nothing = Measurement(metric, np.nan, np.nan, np.nan)
            found.append(GroupChange(name, len(rows), np.nan, np.nan, nothing, "no measurable difference"))
            continue
        (one,) = compare(here, (metric,))
        difference = at_once(one.difference, len(parts), pairs.confidence)
        surely = difference.low > 0 or difference.high < 0
        verdict: Verdict = one.verdict if surely else "no measurable difference"
        found.append(GroupChange(name, len(rows), one.dense, one.pruned, difference, verdict))
    return tuple(found)


def group_rows(groups: Sequence[str]) -> dict[str, Any]:
    """Return the rows of each group, the largest first; small ones, and those beyond the most, together and last."""
    names, numbers, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    single = [number for number in order if counts[number] >= FEWEST][:MOST_GROUPS]
    parts = {str(names[number]) or "(none)": np.flatnonzero(numbers == number) for number in single}
    rest = np.flatnonzero(~np.isin(numbers, single))
    n_rest = len(names) - len(single)
    if n_rest:
        parts[f"({n_rest} other{'s' if n_rest > 1 else ''} together)"] = rest
    return parts


def _is_finite(task: Task, metric: str, seen: Observed) -> bool:
    return bool(np.isfinite(measured(task, [metric], seen, np.ones((1, n_observed(seen))))).all())
