"""Which classes, and which groups of examples, lose by pruning: the change of each, told so that all of it holds together?

Where an answer is right or wrong the test is exact (McNemar's, with Holm's step-down over the parts) and the intervals are Tango's,
each as wide as all of them need to hold together (Bonferroni). Where an example holds several things that are counted, or a metric
is no share of examples, both come from one paired bootstrap of all parts together (the largest studentised difference).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from prunus.core.types import Bools, Floats, Ints, Measurement
from prunus.evaluate.by_group import group_rows
from prunus.evaluate.compare import Verdict
from prunus.evaluate.harm.multiplicity import holm, max_t
from prunus.evaluate.harm.paired_shares import mcnemar, score_interval
from prunus.evaluate.pairs import Pairs
from prunus.evaluate.resample import patterns, plain_totals
from prunus.tasks import Observed, Tally, class_parts, columns_read, measured, metrics, pooling, rows_of

__all__ = ["PartChange", "PartChanges", "change_by_class", "change_by_group"]

EXACT = "McNemar's exact test, Holm over the parts; Tango's intervals, which hold together (Bonferroni)"
RESAMPLED = (
    "paired bootstrap of all parts together; intervals and p-values by the largest studentised difference (max-T)"
)


@dataclass(frozen=True)
class PartChange:
    """One class or group: the metric of both models there, and the change, pruned minus dense.

    ``n_lost`` examples only the dense model gets right, ``n_gained`` only the pruned one; None where they aren't counted.
    """

    name: str
    n: int
    dense: float
    pruned: float
    change: Measurement
    p_value: float
    verdict: Verdict
    n_lost: int | None = None
    n_gained: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; a number that isn't finite becomes None."""
        plain = {key: _finite(getattr(self, key)) for key in ("dense", "pruned", "p_value")}
        return {**vars(self), **plain, "change": self.change.to_dict()}


@dataclass(frozen=True)
class PartChanges:
    """The change in every part: of what (``by``), in which metric, and how its chances were told."""

    by: str
    metric: str
    method: str
    changes: tuple[PartChange, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**vars(self), "changes": [item.to_dict() for item in self.changes]}


def change_by_class(pairs: Pairs) -> PartChanges | None:
    """Return how each class's recall changes; None of a task that counts no classes. Classes without examples are left out.

    Args:
        pairs: of one seed.
    """
    task, dense, pruned = pairs.task, pairs.dense[0], pairs.pruned[0]
    if task.exclusive:
        found = _by_class(dense, pruned, task.class_names)
        return PartChanges("class", "recall", EXACT, _exact(found, pairs.confidence))
    total = plain_totals(task, dense)
    if not isinstance(total, Tally):
        return None
    n_classes = total.support.shape[1]
    present = np.flatnonzero(total.support[0] > 0)

    def recalls(seen: Observed, weights: Floats) -> Floats:
        counts = task.totals(seen, weights)
        return np.where(counts.support > 0, class_parts(counts)[1], np.nan)[:, :n_classes]

    values = pairs.resampled(recalls, task.reads, None, None)[:, 0][:, :, present]
    names = [_named(task.counted_names, int(c)) for c in present]
    sizes = [int(total.support[0, c]) for c in present]
    return PartChanges("class", "recall", RESAMPLED, _resampled(names, sizes, values, pairs, higher=True))


def change_by_group(pairs: Pairs, groups: Sequence[str], metric: str, *, by: str) -> PartChanges:
    """Return how ``metric`` changes in each group of examples, the largest group first; small groups are taken together.

    Args:
        pairs: of one seed.
        groups: the group of each example, empty where it has none.
        by: the column that the groups are of.
    """
    task, one = pairs.task, metrics[metric]
    parts = group_rows(groups)
    if one.exact_test:
        right = pairs.dense[0]["right"], pairs.pruned[0]["right"]
        counts = {name: _Counts.of(*(one[rows] for one in right)) for name, rows in parts.items()}
        return PartChanges(by, metric, EXACT, _exact(counts, pairs.confidence))
    number = np.empty(len(groups), dtype=np.int64)
    for place, rows in enumerate(parts.values()):
        number[rows] = place

    def by_part(seen: Observed, weights: Floats) -> Floats:
        columns = []
        for place in range(len(parts)):
            here = np.flatnonzero(seen["part"] == place)
            drawn = weights[:, here]
            value = measured(task, [metric], rows_of(seen, here), drawn)[:, 0]
            columns.append(np.where(drawn.sum(axis=1) > 0, value, np.nan))
        return np.stack(columns, axis=1)

    dense, pruned = ([{**models[0], "part": number}] for models in (pairs.dense, pairs.pruned))
    joined = Pairs(dense, pruned, task, pairs.confidence, pairs.bootstrap, pairs.seed)
    pool = pooling(task, (metric,))

    def of_groups(seen: Observed, groups: Ints, n_groups: int) -> Observed | None:
        found = None if pool is None else pool(seen, groups, n_groups)
        return None if found is None else {**found, "part": np.arange(n_groups) // (n_groups // len(parts))}

    read = (*columns_read(task, (metric,)), "part")
    values = joined.resampled(by_part, read, None, None, of_groups, number)[:, 0]
    sizes = [len(rows) for rows in parts.values()]
    found = _resampled(list(parts), sizes, values, pairs, higher=one.higher_is_better)
    return PartChanges(by, metric, RESAMPLED, found)


class _Counts(NamedTuple):
    """How many examples a part has, and how many of them both models get right, or one of the two alone."""

    n: int
    both: int
    lost: int
    gained: int

    @classmethod
    def of(cls, dense: Bools, pruned: Bools) -> _Counts:
        return cls(len(dense), *(int(one.sum()) for one in (dense & pruned, dense & ~pruned, pruned & ~dense)))


def _by_class(dense: Observed, pruned: Observed, names: Sequence[str]) -> dict[str, _Counts]:
    """Return the counts of each class that is there, a few examples at a time."""
    read = {"true": dense["true"], "dense": dense["right"], "pruned": pruned["right"]}
    first, counts = patterns([read])
    assert first is not None, "class numbers and truth values have patterns"
    numbers, one, other = (column[first] for column in read.values())
    kinds = np.ones_like(one), one & other, one & ~other, other & ~one
    every = {int(number): numbers == number for number in np.unique(numbers)}
    return {
        _named(names, number): _Counts(*(int(counts[here & kind].sum()) for kind in kinds))
        for number, here in every.items()
    }


def _exact(parts: Mapping[str, _Counts], confidence: float) -> tuple[PartChange, ...]:
    adjusted = holm([mcnemar(part.lost, part.gained) for part in parts.values()])
    each = 1 - (1 - confidence) / max(len(parts), 1)
    found = []
    for (name, (n, both, lost, gained)), p_value in zip(parts.items(), adjusted, strict=True):
        low, high = score_interval(lost, gained, n, each)
        means = (both + lost) / n, (both + gained) / n
        # The difference of the two rounded means would say -0.0001 of what is nothing.
        change = Measurement(name, (gained - lost) / n, -high, -low, "share", True)
        verdict = _verdict(p_value, change.value, confidence, higher=True)
        found.append(PartChange(name, n, *means, change, p_value, verdict, lost, gained))
    return tuple(found)


def _resampled(
    names: Sequence[str], sizes: Sequence[int], values: Floats, pairs: Pairs, *, higher: bool
) -> tuple[PartChange, ...]:
    """Return the changes of values ``(dense or pruned, 1 + resamples, parts)``."""
    joint = max_t(values[1] - values[0], pairs.confidence)
    found = []
    for i, (name, n) in enumerate(zip(names, sizes, strict=True)):
        value, low, high = (float(x[i]) for x in (joint.value, joint.low, joint.high))
        change = Measurement(name, value, low, high, "", higher)
        verdict = _verdict(float(joint.p_value[i]), change.value, pairs.confidence, higher=higher)
        means = float(values[0, 0, i]), float(values[1, 0, i])
        found.append(PartChange(name, n, *means, change, float(joint.p_value[i]), verdict))
    return tuple(found)


def _verdict(p_value: float, change: float, confidence: float, *, higher: bool) -> Verdict:
    if not p_value <= 1 - confidence:
        return "no measurable difference"
    return "better" if (change > 0) == higher else "worse"


def _named(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else str(number)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
