"""Which units stay?

Inside a stratum it is always the best: the top of its saliencies, and on a tie the lower unit number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from prunus.core.errors import RecipeError, RunError
from prunus.core.types import Bools, Floats, Ints, Stratum
from prunus.select.allocate import Allocation, allocations
from prunus.select.amount import Ladder, check_keep_fraction
from prunus.select.joint_strata import Merged
from prunus.select.normalize import normalizations

__all__ = ["select", "top"]


def select(
    strata: Sequence[Stratum],
    *,
    keep_fraction: float | None = None,
    cutoff: float | None = None,
    allocation: str | Allocation = "uniform",
    normalize: str = "none",
) -> list[Bools]:
    """Return, per stratum, which units stay.

    Args:
        strata: what to choose from; higher saliency means keep. Those of one ``joint`` keep the same share, and count as one.
        keep_fraction: share of all units that stays, in (0, 1]; 1 keeps everything.
        cutoff: instead of ``keep_fraction``: units whose saliency (as it is, not normalised) is at least this stay, and as many
            more as ``min_units`` and ``multiple`` ask for.
        allocation: how the budget is shared among the strata (a name in ``allocations``, or a function like those); a cutoff needs
            none.
        normalize: how saliencies of different strata are made comparable (a name in ``normalizations``).

    Shapes:
        One ``(units,)`` array per stratum, in the order of the strata.

    Raises:
        RecipeError: not exactly one of ``keep_fraction`` and ``cutoff``, one of them out of range, or an unknown name.
        RunError: a saliency isn't finite, or nothing would stay.

    >>> layers = [Stratum("a", np.array([3.0, 1.0, 2.0, 0.0])), Stratum("b", np.array([0.5, 0.6]))]
    >>> [keep.tolist() for keep in select(layers, keep_fraction=0.5)]
    [[True, False, True, False], [False, True]]
    >>> [keep.tolist() for keep in select(layers, cutoff=2.0)]
    [[True, False, True, False], [False, True]]
    """
    if (keep_fraction is None) == (cutoff is None):
        raise RecipeError(f"give exactly one of keep_fraction and cutoff: got {keep_fraction=} and {cutoff=}")
    if not strata:
        return []
    for stratum in strata:
        _check_finite(stratum)
    if cutoff is not None:
        merged = Merged.of(strata)
        counts = merged.expand(_above(merged.strata, cutoff))
        strata = [replace(stratum, row=None) for stratum in strata]  # a cutoff compares with itself alone
    else:
        assert keep_fraction is not None
        share = check_keep_fraction(keep_fraction)
        rescale = normalizations[normalize]
        scaled = [replace(stratum, saliency=rescale(stratum.saliency)) for stratum in strata]
        share_out = allocations[allocation] if isinstance(allocation, str) else allocation
        merged = Merged.of(scaled)
        counts = merged.expand(share_out(merged.strata, share))
        n_units = sum(len(stratum.saliency) for stratum in strata)
        if n_units and not counts.any():
            raise RunError(f"keep_fraction {share:.6g} of {n_units} units keeps none: use at least {1 / n_units:.3g}")
    return [_best(stratum, count) for stratum, count in zip(strata, counts.tolist(), strict=True)]


def top(saliency: Floats, units: Ints, count: int) -> Bools:
    """Return which ``count`` units have the highest saliency; on a tie the lower unit number stays.

    >>> top(np.array([1.0, 2.0, 1.0, 1.0]), np.array([7, 8, 5, 6]), 2).tolist()
    [False, True, True, False]
    """
    n = len(saliency)
    if count >= n:
        return np.ones(n, np.bool_)
    if count <= 0:
        return np.zeros(n, np.bool_)
    threshold = np.partition(saliency, n - count)[n - count]
    keep: Bools = saliency > threshold
    ties = np.flatnonzero(saliency == threshold)
    ties = ties[np.argsort(units[ties], kind="stable")]
    keep[ties[: count - np.count_nonzero(keep)]] = True
    return keep


def _best(stratum: Stratum, count: int) -> Bools:
    """Return which ``count`` units of a stratum stay: its best, or the best of each of its rows.

    Units stand in line by their place inside their row, from the first to the last as a share of the row. So every row keeps the
    same share as nearly as whole units allow, exactly ``count`` stay, and a larger count keeps a superset.
    """
    if stratum.row is None:
        return top(stratum.saliency, stratum.units, count)
    order = np.lexsort((stratum.units, -stratum.saliency, stratum.row))
    _, first, row, size = np.unique(stratum.row[order], return_index=True, return_inverse=True, return_counts=True)
    place = (np.arange(len(order)) - first[row] + 0.5) / size[row]
    line = order[np.lexsort((stratum.units[order], -stratum.saliency[order], place))]
    keep = np.zeros(len(order), np.bool_)
    keep[line[:count]] = True
    return keep


def _above(strata: Sequence[Stratum], cutoff: float) -> Ints:
    if not np.isfinite(cutoff):
        raise RecipeError(f"cutoff must be a finite number, below which units go: got {cutoff!r}")
    counts = np.array([np.count_nonzero(stratum.saliency >= cutoff) for stratum in strata], np.int64)
    kept = Ladder.of(strata).at_least(counts)
    everything = np.concatenate([stratum.saliency for stratum in strata])
    if len(everything) and not kept.any():
        highest = everything.max()
        raise RunError(f"cutoff {cutoff:g} keeps nothing: the highest saliency is {highest:g}; lower the cutoff")
    return kept


def _check_finite(stratum: Stratum) -> None:
    bad = np.flatnonzero(~np.isfinite(stratum.saliency))
    if len(bad):
        raise RunError(
            f"stratum {stratum.name!r}: every saliency must be finite, got {stratum.saliency[bad[0]]} "
            f"for unit {stratum.units[bad[0]]} ({len(bad)} of {len(stratum.saliency)} are not); "
            "look for NaN in the weights, or for a loss that diverged"
        )
