"""Which rows does a column of the user's own put into which part: one that names the part, groups that stay together, or the time?

A column of parts is taken as it is. Groups are dealt out whole, so that the classes come out as evenly as they can. By time, the
latest rows are for the test, those before them for validation, and calibration is drawn from the earlier ones, as training is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from prunus.core.errors import DataError, near
from prunus.core.runtime import generator

__all__ = ["by_groups", "by_time", "named_parts"]

Rows = np.ndarray[Any, np.dtype[np.int64]]

_SPELLINGS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "calibration": "calibration",
    "calib": "calibration",
    "test": "test",
}


def named_parts(values: Sequence[str], ids: Sequence[str], where: str) -> dict[str, Rows]:
    """Return the rows of each part that a column names; ``train`` is always among them.

    Raises:
        DataError: a value is no part, or no row is for training.

    >>> {part: rows.tolist() for part, rows in named_parts(["Train", "test", "train"], "abc", "t.csv").items()}
    {'train': [0, 2], 'test': [1]}
    """
    parts: dict[str, list[int]] = {"train": []}
    for row, value in enumerate(values):
        part = _SPELLINGS.get(value.strip().lower())
        if part is None:
            raise DataError(
                f"{where}: sample {ids[row]!r}: expected train, validation, calibration or test, got {value[:40]!r}; "
                f"{near(value.strip().lower(), _SPELLINGS)}"
            )
        parts.setdefault(part, []).append(row)
    if not parts["train"]:
        raise DataError(f"{where}: expected some rows for train, got none of {len(values)}")
    return {part: np.asarray(rows, dtype=np.int64) for part, rows in parts.items()}


def by_groups(
    groups: Sequence[str], strata: Rows, shares: Mapping[str, float], seed: int, where: str
) -> dict[str, Rows]:
    """Deal whole groups out: each, the largest first, to the part that lacks most of what it holds.

    Args:
        groups: one name per row; a row without a name is a group of its own.
        strata: one number per row; every part should have its share of each.
        shares: how much of the rows each part should have.

    Raises:
        DataError: there are fewer groups than parts.
    """
    names = [name or f"\0{row}" for row, name in enumerate(groups)]
    _, numbers = np.unique(names, return_inverse=True)
    n_groups, parts = int(numbers.max()) + 1, list(shares)
    if n_groups < len(parts):
        raise DataError(f"{where}: {n_groups} groups can't stay whole in {len(parts)} parts ({', '.join(parts)})")
    _, strata = np.unique(strata, return_inverse=True)
    held = np.zeros((n_groups, int(strata.max()) + 1))
    np.add.at(held, (numbers, strata), 1)
    wanted = np.outer([shares[part] for part in parts], held.sum(axis=0))
    weight = 1 / held.sum(axis=0)
    has = np.zeros_like(wanted)
    shuffled = torch.randperm(n_groups, generator=generator(seed, "split")).numpy()
    order = shuffled[np.argsort(-held[shuffled].sum(axis=1), kind="stable")]
    chosen = np.empty(n_groups, dtype=np.int64)
    for place, group in enumerate(order):
        # By how much the squared distance from what is wanted grows.
        growth = ((2 * (has - wanted) + held[group]) * held[group] * weight).sum(axis=1)
        empty = has.sum(axis=1) == 0
        if empty.sum() >= n_groups - place:
            growth[~empty] = np.inf
        chosen[group] = int(growth.argmin())
        has[chosen[group]] += held[group]
    return {part: np.flatnonzero(chosen[numbers] == number) for number, part in enumerate(parts)}


def by_time(moments: Sequence[float], sizes: Mapping[str, int], seed: int, where: str) -> dict[str, Rows]:
    """Return the latest rows as test, those before them as validation, and draw calibration from the earlier ones.

    Rows of one moment stay together: a border is moved to the nearer end of a moment that it would cut.

    Raises:
        DataError: a row has no time, or too few moments differ.
    """
    times = np.asarray(moments, dtype=np.float64)
    if np.isnan(times).any():
        row = int(np.flatnonzero(np.isnan(times))[0])
        raise DataError(f"{where}: row {row} of those with a label has no time; correct it or remove such rows")
    order = np.argsort(times, kind="stable")
    ends: dict[str, Rows] = {}
    later = [part for part in ("test", "validation") if part in sizes]
    for part in later:
        n_before = len(later) - len(ends)  # a moment for each part that isn't cut off yet, and one to train on
        border = _between_moments(times[order], len(order) - sizes[part], n_before)
        if border is None:
            n = len(np.unique(times))
            raise DataError(f"{where}: {n} different times are too few to part {', '.join(sizes)} by; expected more")
        ends[part], order = np.sort(order[border:]), order[:border]
    earlier = np.sort(order)
    drawn = earlier[torch.randperm(len(earlier), generator=generator(seed, "split")).numpy()]
    n_calibration = min(sizes.get("calibration", 0), len(drawn) - 1)
    found = {**ends, "train": np.sort(drawn[n_calibration:])}
    return {**found, "calibration": np.sort(drawn[:n_calibration])} if "calibration" in sizes else found


def _between_moments(times: np.ndarray[Any, Any], wanted: int, n_before: int) -> int | None:
    """Return the place nearest to ``wanted`` where a later moment begins, with so many before it; None: there is none."""
    begins = (np.flatnonzero(times[1:] > times[:-1]) + 1)[n_before - 1 :]
    return int(begins[np.abs(begins - wanted).argmin()]) if len(begins) else None
