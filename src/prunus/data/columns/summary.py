"""What must be known of a table's rows to fit its columns, from chunks of them that pass by?

Everything adds up, so that a table that doesn't fit into memory is summed as one that does; the middle of a column is found by
counting where there are too many rows to sort (``order_statistics``). Both give the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prunus.data.columns.cells import Kind
from prunus.data.columns.order_statistics import order_statistics

__all__ = ["ColumnSummary", "Read", "summarise"]

Array = np.ndarray[Any, Any]

Read = Callable[[], Iterable[Array]]
"""Yields the rows of a part, ``(n, columns)``, a few at a time, from the first on whenever it is called."""

_SORTED, _SORTED_ROWS = 1 << 23, 1 << 15
"""So many numbers, of so many rows, are sorted in memory; of more rows, counting takes less of it."""

_DAY = 86_400


@dataclass
class ColumnSummary:
    """One column of some rows.

    ``counts`` are those of a category's words; ``hours`` whether a date has a time of the day; ``middle`` the two values around the
    median; ``present`` all values, where they become quantiles; ``unseen`` how many rows have a word that training never has, and
    ``first_unseen`` the first of them.
    """

    n: int = 0
    n_missing: int = 0
    low: float = np.inf
    high: float = -np.inf
    counts: Array | None = None
    hours: bool = False
    middle: tuple[float, float] = (0.0, 0.0)
    present: Array = field(default_factory=lambda: np.empty(0))
    unseen: int = 0
    first_unseen: int = -1

    @property
    def n_present(self) -> int:
        """How many rows have a value."""
        return self.n - self.n_missing

    @property
    def n_words(self) -> int:
        """How many different words a category has here."""
        return 0 if self.counts is None else int((self.counts > 0).sum())

    @property
    def constant(self) -> bool:
        """Whether every row has the same value."""
        return not self.n_missing and not self.low < self.high


def summarise(
    parts: Mapping[str, Read], kinds: Mapping[str, Kind], words: Mapping[str, Sequence[str]], spread: Iterable[str]
) -> dict[str, tuple[ColumnSummary, ...]]:
    """Return what is known of each column in each part, of which ``train`` is one.

    Args:
        parts: how the rows of each are read, in the order in which the first unseen word is looked for.
        kinds: what the columns hold, in their order.
        words: what the numbers of categories stand for.
        spread: the columns whose values are kept, to be made quantiles of.
    """
    found = {"train": _summed(parts["train"], kinds, words, None)}
    for part, read in parts.items():
        if part != "train":
            found[part] = _summed(read, kinds, words, found["train"])
    _find_middles(found["train"], parts["train"], kinds)
    kept = [place for place, name in enumerate(kinds) if name in set(spread)]
    if kept:
        chunks = [values[:, kept] for values in parts["train"]()]
        whole = np.concatenate(chunks).astype(np.float64) if chunks else np.empty((0, len(kept)))
        for number, place in enumerate(kept):
            found["train"][place].present = whole[~np.isnan(whole[:, number]), number]
    return {part: found[part] for part in parts}


def _summed(
    read: Read,
    kinds: Mapping[str, Kind],
    words: Mapping[str, Sequence[str]],
    train: tuple[ColumnSummary, ...] | None,
) -> tuple[ColumnSummary, ...]:
    sums = tuple(ColumnSummary() for _ in kinds)
    for values in read():
        gaps = np.isnan(values)
        for place, (name, kind) in enumerate(kinds.items()):
            one, column = sums[place], values[:, place]
            one.n += len(column)
            n_gaps = int(gaps[:, place].sum())
            one.n_missing += n_gaps
            held = column[~gaps[:, place]] if n_gaps else column
            if not len(held):
                continue
            one.low, one.high = min(one.low, float(held.min())), max(one.high, float(held.max()))
            if kind == "category":
                _count(one, held.astype(np.int64), len(words[name]), None if train is None else train[place])
            elif kind in ("date", "time") and train is None and not one.hours:
                one.hours = bool((held % _DAY != 0).any())
    for place, (name, kind) in enumerate(kinds.items()):
        if kind == "category" and sums[place].counts is None:
            sums[place].counts = np.zeros(len(words[name]), np.int64)
    return sums


def _count(one: ColumnSummary, codes: Array, n_words: int, train: ColumnSummary | None) -> None:
    counts = np.bincount(codes, minlength=n_words)
    one.counts = counts if one.counts is None else one.counts + counts
    if train is None or train.counts is None:
        return
    new = train.counts[codes] == 0
    n_new = int(new.sum())
    if n_new and not one.unseen:
        one.first_unseen = int(codes[new.argmax()])
    one.unseen += n_new


def _find_middles(sums: tuple[ColumnSummary, ...], read: Read, kinds: Mapping[str, Kind]) -> None:
    """Find the two values around the median of each column of numbers and dates."""
    wanted = [place for place, kind in enumerate(kinds.values()) if kind != "category" and sums[place].n_present]
    if not wanted:
        return
    places = [((sums[place].n_present - 1) // 2, sums[place].n_present // 2) for place in wanted]
    if sums[wanted[0]].n <= _SORTED_ROWS and sums[wanted[0]].n * len(wanted) <= _SORTED:
        whole = np.concatenate([values[:, wanted] for values in read()])
        for number, (place, pair) in enumerate(zip(wanted, places, strict=True)):
            held = whole[:, number]
            ordered = np.partition(held[~np.isnan(held)], pair)
            sums[place].middle = float(ordered[pair[0]]) + 0.0, float(ordered[pair[1]]) + 0.0  # -0.0 is 0.0
        return

    def chosen() -> Iterator[Array]:
        for values in read():
            yield values[:, wanted]

    for place, (low, high) in zip(wanted, order_statistics(chosen, places), strict=True):
        sums[place].middle = low, high
