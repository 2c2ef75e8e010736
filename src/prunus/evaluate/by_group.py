"""Whom does pruning cost more than others: how does a metric change for each group of examples, seen all at once?

Who looks at twenty groups finds one that changed by chance. Every interval is therefore as wide as it has to be for all of them to
hold together with the confidence that was asked for (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from statistics import NormalDist
from typing import Any

import numpy as np

from prunus.core.types import Ints, Measurement
from prunus.evaluate.compare import Verdict, compare
from prunus.evaluate.pairs import Pairs
from prunus.tasks import value_of

__all__ = ["FEWEST", "MOST_GROUPS", "GroupChange", "at_once", "group_changes", "group_rows", "rows_by_name"]

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
        if not all(isfinite(value_of(pairs.task, metric, seen)) for seen in (*here.dense, *here.pruned)):
            nothing = Measurement(metric, np.nan, np.nan, np.nan)
            found.append(GroupChange(name, len(rows), np.nan, np.nan, nothing, "no measurable difference"))
            continue
        (one,) = compare(here, (metric,))
        difference = at_once(one.difference, len(parts), pairs.confidence)
        surely = difference.low > 0 or difference.high < 0
        verdict: Verdict = one.verdict if surely else "no measurable difference"
        found.append(GroupChange(name, len(rows), one.dense, one.pruned, difference, verdict))
    return tuple(found)


def group_rows(groups: Sequence[str]) -> dict[str, Ints]:
    """Return the rows of each group, the largest first; small ones, and those beyond the most, together and last."""
    every = sorted(rows_by_name(groups).items(), key=lambda part: -len(part[1]))
    single = [part for part in every if len(part[1]) >= FEWEST][:MOST_GROUPS]
    parts, rest = {name or "(none)": rows for name, rows in single}, every[len(single) :]
    if rest:
        together = np.sort(np.concatenate([rows for _, rows in rest]))
        parts[f"({len(rest)} other{'s' if len(rest) > 1 else ''} together)"] = together
    return parts


def rows_by_name(names: Sequence[str]) -> dict[str, Ints]:
    """Return the rows of each name, in their order; the names in theirs.

    >>> {name: rows.tolist() for name, rows in rows_by_name(["b", "", "b", "a"]).items()}
    {'': [1], 'a': [3], 'b': [0, 2]}
    """
    found, numbers, counts = np.unique(np.asarray(names, dtype=str), return_inverse=True, return_counts=True)
    parts = np.split(np.argsort(numbers, kind="stable"), np.cumsum(counts))[: len(found)]
    return {str(name): rows for name, rows in zip(found, parts, strict=True)}
