"""Is the pruned model's metric lower than the dense one's by less than a margin, and how sure is that?

Both answer the same examples. For accuracy only those count that one of them gets right and the other wrong, and the test is
exact; every other metric has the paired bootstrap. A drop is dense minus pruned, so positive is worse, for errors too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from math import ceil, log, log1p, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from prunus.core.bisection import edge
from prunus.core.errors import DataError
from prunus.core.types import Floats
from prunus.evaluate.compare import compare
from prunus.evaluate.pairs import Pairs
from prunus.tasks import Observed, Task, columns_read, metrics, n_observed

__all__ = [
    "ClassLoss",
    "NonInferiority",
    "WorstClass",
    "WorstGroup",
    "accuracy_bound",
    "examples_needed",
    "no_worse_accuracy",
    "noninferiority",
    "parts_of",
    "promises",
    "tango_z",
]

_LEFT_OUT = 1e-4
"""How much of the error is spent on leaving out shares of gained examples that the data contradict (Berger and Boos)."""
_MOST_PAIRS = 40
"""Up to so many discordant examples the test is exact; beyond, the score test's normal approximation is."""


@dataclass(frozen=True)
class ClassLoss:
    """What one class (of its recall) or group (of a metric) loses: at most ``bound``, told of it alone; counts where there are."""

    name: str
    n: int
    drop: float
    bound: float
    n_lost: int | None
    n_gained: int | None


@dataclass(frozen=True)
class WorstClass:
    """The class of which the least can be promised: no class loses more than ``bound``, with the test's confidence.

    ``left_out`` are classes with too few examples, of which nothing is promised.
    """

    name: str
    drop: float
    bound: float
    max_drop: float
    classes: tuple[ClassLoss, ...]
    left_out: tuple[str, ...]
    kept: bool


@dataclass(frozen=True)
class WorstGroup:
    """The group of which the least can be promised: no group of ``column`` loses more of the metric than ``bound``.

    Nothing is promised of those ``left_out``, which have too few examples, nor of the ``unknown``, where the metric is no number.
    """

    column: str
    name: str
    drop: float
    bound: float
    max_drop: float
    groups: tuple[ClassLoss, ...]
    left_out: tuple[str, ...]
    unknown: tuple[str, ...]
    kept: bool


@dataclass(frozen=True)
class NonInferiority:
    """What the test says: ``drop`` is at most ``bound`` with the asked confidence; ``kept`` if that is within the margin.

    ``worst`` is what it says of the classes and ``worst_group`` of the groups, where a contract speaks of them: then all have to be
    kept. ``n_lost`` examples only
    the dense model gets right, ``n_gained`` only the pruned one (accuracy only).
    """

    metric: str
    dense: float
    pruned: float
    drop: float
    bound: float
    max_drop: float
    confidence: float
    n: int
    n_lost: int | None
    n_gained: int | None
    kept: bool
    method: str
    worst: WorstClass | None = None
    worst_group: WorstGroup | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def noninferiority(
    dense: Observed,
    pruned: Observed,
    task: Task,
    *,
    metric: str,
    max_drop: float,
    confidence: float,
    bootstrap: int = 1000,
    seed: int = 0,
) -> NonInferiority:
    """Return whether ``metric`` drops by less than ``max_drop``, at a one-sided ``confidence``.

    Args:
        dense: what ``task`` observed of the dense model's answers.
        pruned: of the pruned model's, to the same examples.

    Raises:
        RecipeError: an unknown metric.
        DataError: no examples.
    """
    if n_observed(dense) == 0:
        raise DataError("a contract needs validation examples: got none; raise data.split.validation")
    higher = metrics[metric].higher_is_better
    n = n_observed(dense)
    if metrics[metric].exact_test:
        right = [dense["right"], pruned["right"]]
        lost, gained = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
        bound = accuracy_bound(lost, gained, n, confidence)
        means = [float(values.mean()) for values in right]
        method = "exact unconditional test of paired proportions by Tango's score"
        return NonInferiority(
            metric,
            means[0],
            means[1],
            (lost - gained) / n,
            bound,
            max_drop,
            confidence,
            n,
            lost,
            gained,
            no_worse_accuracy(lost, gained, n, max_drop) <= 1 - confidence,
            method,
        )
    enough = max(bootstrap, ceil(20 / (1 - confidence)))
    (found,) = compare(Pairs([dense], [pruned], task, 2 * confidence - 1, enough, seed), (metric,))
    sign = -1.0 if higher else 1.0
    bound = -found.difference.low if higher else found.difference.high
    drop = sign * found.difference.value
    method = "paired bootstrap over examples, one-sided"
    if metrics[metric].is_share and all(
        np.array_equal(dense[name], pruned[name], equal_nan=dense[name].dtype.kind == "f")
        for name in columns_read(task, (metric,))
    ):
        # Resamples of no difference have no width: what is shown is that few examples would be answered otherwise.
        bound = max(bound, 1 - (1 - confidence) ** (1 / n))
        method = "both models answer every example alike: the share that they may not"
    kept = bound <= max_drop
    return NonInferiority(
        metric, found.dense, found.pruned, drop, bound, max_drop, confidence, n, None, None, kept, method
    )


def examples_needed(max_drop: float, confidence: float) -> int:
    """Return how many examples show a drop below ``max_drop`` of accuracy if the two models differ on none of them.

    >>> examples_needed(0.01, 0.95)
    299
    """
    return ceil(log(1 - confidence) / log1p(-max_drop)) if max_drop < 1 else 1


def promises(found: NonInferiority, n: int) -> bool:
    """Tell whether ``n`` other examples would show what these suggest, were they to answer alike."""
    if not all(_promises_each(found, parts, margin, n / found.n) for parts, margin in parts_of(found)):
        return False
    if found.n_lost is not None and found.n_gained is not None:
        scale = n / found.n
        z = tango_z(scale * found.n_lost, scale * found.n_gained, n, found.max_drop)
        return bool(z <= NormalDist().inv_cdf(1 - found.confidence))
    return found.drop + (found.bound - found.drop) * sqrt(found.n / n) <= found.max_drop


def parts_of(found: NonInferiority) -> list[tuple[tuple[ClassLoss, ...], float]]:
    """Return the classes and the groups that a contract speaks of, each with what they may lose."""
    classes = [] if found.worst is None else [(found.worst.classes, found.worst.max_drop)]
    return classes + ([] if found.worst_group is None else [(found.worst_group.groups, found.worst_group.max_drop)])


def _promises_each(found: NonInferiority, parts: tuple[ClassLoss, ...], margin: float, scale: float) -> bool:
    """Tell whether so many times the examples would show of every part that it loses no more than the margin."""
    least = NormalDist().inv_cdf(1 - found.confidence)
    for one in parts:
        if one.n_lost is None or one.n_gained is None:
            if one.drop + (one.bound - one.drop) / sqrt(scale) > margin:
                return False
        elif tango_z(scale * one.n_lost, scale * one.n_gained, scale * one.n, margin) > least:
            return False
    return True


def tango_z(lost: Any, gained: Any, n: float, margin: float) -> Any:
    """Return the score statistic of "the drop is ``margin``": the lower, the less the data fit a drop that large.

    References:
        Tango, Statistics in Medicine 17:891-908, 1998, equations 6 and 7.

    >>> round(float(tango_z(10, 2, 100, 0.0)), 3)  # McNemar's: (b - c) / sqrt(b + c)
    2.309
    """
    lost, gained = np.asarray(lost, np.float64), np.asarray(gained, np.float64)
    # The share of gained examples that fits best, given that the drop is the margin: the root of a quadratic.
    a, b, c = 2.0 * n, margin * (2.0 * n - lost + gained) - lost - gained, -gained * margin * (1 - margin)
    share = (np.sqrt(b * b - 4 * a * c) - b) / (2 * a)
    variance = n * (2 * share + margin * (1 - margin))
    top = lost - gained - n * margin
    return np.divide(top, np.sqrt(np.maximum(variance, 1e-300)), out=np.zeros_like(top + variance), where=variance > 0)


def no_worse_accuracy(lost: float, gained: float, n: int, margin: float) -> float:
    """Return the p-value of "the accuracy drops by ``margin`` or more".

    Exact: the highest chance, over every share of gained examples that the data allow, to see counts that speak as much against
    that hypothesis, by Tango's score.

    References:
        Hsueh, Liu & Chen, Biometrics 57:478-483, 2001 (the unconditional test of paired proportions); Berger & Boos, JASA
        89:1012-1016, 1994 (the shares that are left out, at the price of 1e-4).

    >>> round(no_worse_accuracy(0, 0, 299, 0.01), 4)  # 0.99 ** 299, and the price
    0.0496
    """
    seen = float(tango_z(lost, gained, n, margin))
    if lost + gained > _MOST_PAIRS or lost != int(lost) or gained != int(gained):
        return NormalDist().cdf(seen)
    highest = min(upper_share(int(gained), n, _LEFT_OUT), (1 - margin) / 2)
    shares = np.concatenate([[0.0], np.geomspace(1e-3 / n, max(highest, 2e-3 / n), 24)])
    # What lies beyond so many examples has no weight worth a thought, and counts as speaking against the hypothesis.
    most = ceil(n * (highest + margin) + 8 * sqrt(n * (highest + margin)) + 12)
    b, c = np.meshgrid(np.arange(most + 1), np.arange(most + 1), indexing="ij")
    inside = (b + c <= n) & (tango_z(b, c, n, margin) <= seen + 1e-9)
    b, c = b[inside], c[inside]
    ways = _log_factorials(n)
    count = ways[n] - ways[b] - ways[c] - ways[n - b - c]

    def chance(share: float) -> float:
        rest = 1 - 2 * share - margin
        logs = count + _times_log(b, share + margin) + _times_log(c, share) + _times_log(n - b - c, rest)
        return float(np.exp(logs).sum())

    return min(1.0, max(chance(share) for share in shares if 2 * share + margin <= 1) + _LEFT_OUT)


@cache
def accuracy_bound(lost: int, gained: int, n: int, confidence: float) -> float:
    """Return the least margin that the test excludes: the drop is smaller, with that confidence."""
    return edge(lambda margin: no_worse_accuracy(lost, gained, n, margin) > 1 - confidence, 0.0, 1.0, within=2**-16)[1]


def upper_share(successes: int, n: int, error: float) -> float:
    """Return the Clopper-Pearson upper bound of a share."""
    ways, k = _log_factorials(n), np.arange(successes + 1)
    count = ways[n] - ways[k] - ways[n - k]

    def likelier(share: float) -> bool:
        return float(np.exp(count + _times_log(k, share) + _times_log(n - k, 1 - share)).sum()) > error

    return edge(likelier, successes / n, 1.0)[1]


def _times_log(count: Any, share: float) -> Floats:
    """Return ``count * log(share)``; no count of an impossible thing is no loss."""
    if share <= 0:
        return np.where(count == 0, 0.0, -np.inf)
    value: Floats = count * log(share)
    return value


@cache
def _log_factorials(n: int) -> Floats:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1, dtype=np.float64)))])
