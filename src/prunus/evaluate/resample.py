"""What would the numbers be on other examples of the same kind? The bootstrap, for many models on the same resamples.

Examples that no model tells apart (the same observation of each) are drawn together: a resample says how often each such
*pattern* occurs, so its cost follows the number of patterns, which is small when there are few classes and the models are good.
Resamples come in blocks of bounded memory.

Very many examples that all differ (a regression's errors) are drawn in groups, to which each belongs by chance, where totals are
sums over examples: the sums of groups scatter as those of examples do. The plain value is that of the examples themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.core.runtime import derive_seed
from prunus.core.types import Floats, Ints
from prunus.tasks import Imagined, Observed, Pooling, Task, n_observed, rows_of

__all__ = ["Drawn", "in_blocks", "interval", "patterns", "plain_totals", "resample"]

_FEW_CODES, _MOST_CODES, _AT_ONCE = 1 << 16, 1 << 63, 1 << 16
_BLOCK = 4_000_000
"""Numbers in one block of resamples (32 MB)."""
_MOST_APART, _GROUPS = 1 << 18, 1 << 16
"""So many patterns are drawn one by one at most; more of them in so many groups."""

Drawn = tuple[Sequence[Sequence[bool]], Imagined, Floats]
"""Imagined examples that are drawn, too: for each kind, which models are right on it; what either answer gives; and how many.

Without them a bootstrap of models that never err, or never differ, has no width."""


def in_blocks(n: int) -> Iterator[slice]:
    """Yield where some of ``n`` examples lie at a time, so that what is made of them is small."""
    for start in range(0, n, _AT_ONCE):
        yield slice(start, min(start + _AT_ONCE, n))


def plain_totals(task: Task, observed: Observed) -> Any:
    """Return a task's totals where every example counts once."""
    read = {name: observed[name] for name in task.reads}
    first, counts = patterns([read]) if read else (None, np.ones(n_observed(observed), np.int64))
    return task.totals(observed if first is None else rows_of(read, first), counts.astype(np.float64)[None])


def resample(
    observed: Sequence[Observed],
    statistic: Callable[[Observed, Floats], Floats],
    *,
    reads: Sequence[str],
    imagined: Drawn | None = None,
    pool: Pooling | None = None,
    within: Ints | None = None,
    resamples: int,
    seed: int,
) -> Floats:
    """Return a statistic of each model's observations: plain first, then on each resample of the examples, the same for all models.

    Args:
        observed: of one model each, on the same examples.
        statistic: takes observations and weights ``(rows, n)``, how often each example counts, and returns ``(rows, values)``.
        reads: the columns that it reads.
        pool: makes observations of groups of examples, where the statistic hangs on sums over examples alone.
        within: which part (0, 1, ...) an example belongs to, where the statistic tells parts apart: no group is of two.

    Shapes:
        The result is ``(models, 1 + resamples, values)``.
    """
    seen: list[Observed] = [{name: one[name] for name in reads} for one in observed]
    first, counts = patterns(seen)
    if first is not None:
        seen = [rows_of(one, first) for one in seen]
    n_seen = len(counts)
    shares = counts.astype(np.float64)
    if imagined is not None:
        kinds, made, how_many = imagined
        for kind in kinds:
            seen = [_beside(one, made.right if ok else made.wrong) for one, ok in zip(seen, kind, strict=True)]
            shares = np.concatenate([shares, how_many])
    plain = np.where(np.arange(len(shares)) < n_seen, shares, 0.0)[None]
    found: list[list[Floats]] = [[statistic(one, plain)] for one in seen]
    blocks = _blocks(shares, resamples, seed)
    if first is None and imagined is None and pool is not None and n_seen > _MOST_APART:
        grouped = _grouped(seen, pool, np.zeros(n_seen, np.int64) if within is None else within, seed)
        if grouped is not None:
            seen, sizes = grouped
            blocks = _blocks_of_groups(sizes, resamples, seed)
    for weights in blocks:
        for model, one in enumerate(seen):
            found[model].append(statistic(one, weights.astype(np.float64)))
    return np.stack([np.concatenate(parts) for parts in found])


def _grouped(
    observed: Sequence[Observed], pool: Pooling, within: Ints, seed: int
) -> tuple[list[Observed], Ints] | None:
    """Return what was observed of groups, the same for all models, and how many examples each has; None where it can't be said.

    Which group an example belongs to hangs on chance alone: rows that lie in an order would scatter less between groups that each
    have some of all, or more between groups of neighbours.
    """
    n_parts = int(within.max()) + 1
    each = max(1, _GROUPS // n_parts)
    rng = np.random.default_rng(derive_seed(seed, "bootstrap", "groups"))
    groups = within * each + rng.integers(0, each, len(within))
    found = []
    for one in observed:
        pooled = pool(one, groups, n_parts * each)
        if pooled is None:
            return None
        found.append(pooled)
    return found, np.bincount(groups, minlength=n_parts * each)


def _blocks_of_groups(sizes: Ints, resamples: int, seed: int) -> Iterator[Ints]:
    """Yield how many examples are drawn with each group, ``(resamples of the block, groups)``; groups are drawn alike."""
    rng = np.random.default_rng(derive_seed(seed, "bootstrap"))
    size = max(1, _BLOCK // len(sizes))
    for start in range(0, resamples, size):
        drawn = rng.integers(0, len(sizes), (min(size, resamples - start), len(sizes)))
        yield np.stack([np.bincount(one, minlength=len(sizes)) for one in drawn]) * sizes


def patterns(observed: Sequence[Observed]) -> tuple[npt.NDArray[np.intp] | None, Ints]:
    """Return the first example of each pattern and how many have it; None and ones where nearly every example is its own."""
    columns = [column for one in observed for column in one.values()]
    n = len(columns[0])
    distinct = {id(column): column for column in columns}.values()
    if any(column.ndim > 1 or column.dtype.kind not in "biu" for column in distinct):
        return None, np.ones(n, dtype=np.int64)
    bounds = [(int(column.min()), int(column.max())) for column in distinct]
    n_codes = math.prod(high - low + 1 for low, high in bounds)
    if n_codes <= _FEW_CODES:
        return _numbered(list(distinct), bounds, n_codes)
    if n_codes < _MOST_CODES:
        return _merged(list(distinct), bounds)
    table = np.stack([column.astype(np.int64) for column in distinct], axis=1)
    _, first, counts = np.unique(table, axis=0, return_index=True, return_counts=True)
    return first, counts


def _numbered(
    columns: Sequence[npt.NDArray[Any]], bounds: Sequence[tuple[int, int]], n_codes: int
) -> tuple[npt.NDArray[np.intp], Ints]:
    """Return the same of columns of few different numbers, without a sort of all examples."""
    first, counts = np.full(n_codes, len(columns[0]), np.intp), np.zeros(n_codes, np.int64)
    for seen, at, how_many in _codes(columns, bounds):
        counts[seen] += how_many
        first[seen] = np.minimum(first[seen], at)
    held = np.flatnonzero(counts)
    return first[held], counts[held]


def _merged(
    columns: Sequence[npt.NDArray[Any]], bounds: Sequence[tuple[int, int]]
) -> tuple[npt.NDArray[np.intp], Ints]:
    """Return the same of columns of many numbers: memory follows the patterns that there are."""
    held = (np.zeros(0, np.int64), np.zeros(0, np.intp), np.zeros(0, np.int64))
    pending: list[tuple[Ints, npt.NDArray[np.intp], Ints]] = []
    n_pending = 0
    for found in _codes(columns, bounds):
        pending.append(found)
        n_pending += len(found[0])
        if n_pending > max(len(held[0]), _AT_ONCE):  # so each pattern is merged a few times only
            held, pending, n_pending = _joined([held, *pending]), [], 0
    _, first, counts = _joined([held, *pending])
    return first, counts


def _joined(parts: Sequence[tuple[Ints, npt.NDArray[np.intp], Ints]]) -> tuple[Ints, npt.NDArray[np.intp], Ints]:
    codes, first, counts = (np.concatenate(one) for one in zip(*parts, strict=True))
    order = np.argsort(codes, kind="stable")  # of one code, that of the earlier examples comes first
    starts = np.flatnonzero(np.append(True, codes[order][1:] != codes[order][:-1]))
    return codes[order][starts], first[order][starts], np.add.reduceat(counts[order], starts)


def _codes(
    columns: Sequence[npt.NDArray[Any]], bounds: Sequence[tuple[int, int]]
) -> Iterator[tuple[Ints, npt.NDArray[np.intp], Ints]]:
    """Yield, of some examples at a time, the numbers of their patterns in order, where each is first, and how often it is there."""
    for part in in_blocks(len(columns[0])):
        code = np.zeros(part.stop - part.start, np.int64)
        for column, (low, high) in zip(columns, bounds, strict=True):
            code = code * (high - low + 1) + (column[part].astype(np.int64) - low)
        seen, at, how_many = np.unique(code, return_index=True, return_counts=True)
        yield seen, at + part.start, how_many


def _beside(one: Observed, more: Observed) -> Observed:
    return {name: np.concatenate([column, more[name].astype(column.dtype)]) for name, column in one.items()}


def _blocks(shares: Floats, resamples: int, seed: int) -> Iterator[Ints]:
    """Yield how often each pattern is drawn, ``(resamples of the block, patterns)``."""
    rng = np.random.default_rng(derive_seed(seed, "bootstrap"))
    n, size = round(float(shares.sum())), max(1, _BLOCK // len(shares))
    for start in range(0, resamples, size):
        yield rng.multinomial(n, shares / shares.sum(), size=min(size, resamples - start))


def interval(values: Sequence[float] | Floats, confidence: float, *, value: float | None = None) -> tuple[float, float]:
    """Return the percentile interval of resampled values.

    With the plain ``value``, what it is off the middle of the resampled ones is taken to be what the truth is off it, and the
    percentiles move by so much: an average precision, say, is too high on few examples, and higher again on a resample of them.

    References:
        Efron, The Annals of Statistics 9(2), 1981: the bias-corrected percentile method.
    """
    found, shares = np.asarray(values), [(1 - confidence) / 2, (1 + confidence) / 2]
    if value is not None:
        below = float(np.mean(found < value) + np.mean(found == value) / 2)
        normal, least = NormalDist(), 1 / (2 * len(found))
        bias = normal.inv_cdf(min(max(below, least), 1 - least))
        shares = [normal.cdf(2 * bias + normal.inv_cdf(share)) for share in shares]
    low, high = np.quantile(found, shares)
    return float(low), float(high)
