"""In which order are kept rows read in an epoch, so that ranks and workers share them out, and a stopped one goes on exactly?

The groups that hold a kept row are put in a random order, and their kept rows, laid end to end, are cut into equal spans: one for
each rank, and in it one for each *lane*. A lane reads several places of its span at once, into a window that it shuffles. Batches
come from the lanes in turns. A worker takes whole lanes, so that the order doesn't hang on how many workers there are, and every
row is read once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import NamedTuple

import numpy as np
import torch

from prunus.core.errors import RecipeError
from prunus.core.runtime import generator
from prunus.core.types import Ints

__all__ = ["EpochPlan", "Piece", "Window", "batch_sizes", "plan_epoch"]

MOST_PLACES = 2
"""A lane reads from so many places at once, as far as there are groups."""


class Piece(NamedTuple):
    """Some kept rows of a group, in their order: ``n_taken`` of them after ``n_skipped``."""

    group: int
    n_skipped: int
    n_taken: int


@dataclass(frozen=True)
class Window:
    """What a lane reads at once: from each of its places some rows; its rows are numbered ``start`` to ``stop`` in the lane."""

    number: int
    start: int
    stop: int
    takes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """What one rank reads in an epoch.

    Args:
        order: the groups that hold kept rows, in the epoch's order.
        ends: how many kept rows there are up to the end of each.
        sizes: how many rows each batch of this rank has.
        first: where its rows begin among all kept ones.
        n_lanes: how many lanes there are.
        n_places: from how many places a lane reads at once.
        window_rows: how many rows a lane shuffles at once.
    """

    order: Ints
    ends: Ints
    sizes: Ints
    first: int
    n_lanes: int
    n_places: int
    window_rows: int

    def lane_rows(self, lane: int) -> int:
        """Return how many rows a lane has."""
        return int(self.sizes[lane :: self.n_lanes].sum())

    def lane_start(self, lane: int) -> int:
        """Return where a lane's rows begin among all kept ones."""
        return self.first + sum(self.lane_rows(before) for before in range(lane))

    def places(self, lane: int) -> list[tuple[int, int]]:
        """Return the spans of kept rows that a lane reads from side by side."""
        start, n = self.lane_start(lane), self.lane_rows(lane)
        edges = [start + n * place // self.n_places for place in range(self.n_places + 1)]
        return list(pairwise(edges))

    def windows(self, lane: int) -> Iterator[Window]:
        """Yield what a lane reads, one window after the other."""
        lengths = [stop - start for start, stop in self.places(lane)]
        each = max(self.window_rows // self.n_places, 1)
        place = 0
        for number in range(ceil(max(lengths) / each)):
            takes = tuple(min(max(length - number * each, 0), each) for length in lengths)
            yield Window(number, place, place + sum(takes), takes)
            place += sum(takes)

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield where the kept rows from ``start`` to ``stop`` lie."""
        number = int(np.searchsorted(self.ends, start, side="right"))
        while start < stop:
            begins = int(self.ends[number - 1]) if number else 0
            upto = min(stop, int(self.ends[number]))
            yield Piece(int(self.order[number]), start - begins, upto - start)
            start, number = upto, number + 1


def batch_sizes(n_rows: int, batch_size: int, n_ranks: int, rank: int, *, drop_last: bool = False) -> Ints:
    """Return how many rows each batch of a rank has; every rank has as many batches, none of which is empty.

    Raises:
        RecipeError: there are too few rows for that.

    >>> [batch_sizes(9, 4, 2, rank).tolist() for rank in (0, 1)]
    [[2, 2], [4, 1]]
    """
    own = n_rows * (rank + 1) // n_ranks - n_rows * rank // n_ranks
    if drop_last:
        n_batches = n_rows // n_ranks // batch_size
        if not n_batches:
            raise RecipeError(f"{n_rows} kept rows give no full batch of {batch_size} for each of {n_ranks} ranks")
        return np.full(n_batches, batch_size, np.int64)
    n_batches = ceil(ceil(n_rows / n_ranks) / batch_size)
    if own < n_batches or not own:
        raise RecipeError(
            f"{n_rows} kept rows in batches of at most {batch_size} don't give each of {n_ranks} ranks as many steps: take larger "
            "batches, fewer ranks, or drop_last"
        )
    sizes = np.full(n_batches, batch_size, np.int64)
    sizes[-1] = own - batch_size * (n_batches - 1)
    if sizes[-1] <= 0:  # it has a row less than others, whose last batch is that row
        together = int(sizes[-2:].sum())
        sizes[-2:] = together - together // 2, together // 2
    return sizes


def plan_epoch(
    counts: Ints,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    rank: int = 0,
    n_ranks: int = 1,
    n_lanes: int = 4,
    window_rows: int = 1 << 14,
    drop_last: bool = False,
) -> EpochPlan:
    """Return what a rank reads in an epoch.

    Args:
        counts: how many kept rows each group has.

    Raises:
        RecipeError: there are too few rows for so many ranks.
    """
    held = np.flatnonzero(counts)
    draw = generator(seed, "kept rows", epoch)
    order = held[torch.randperm(len(held), generator=draw).numpy()]
    n_rows = int(counts.sum())
    return EpochPlan(
        order=order.astype(np.int64),
        ends=np.cumsum(counts[order], dtype=np.int64),
        sizes=batch_sizes(n_rows, batch_size, n_ranks, rank, drop_last=drop_last),
        first=n_rows * rank // n_ranks,
        n_lanes=n_lanes,
        # A place that begins within a group decodes what lies before it, so there are few where groups are.
        n_places=int(np.clip(len(held) // (2 * n_lanes * n_ranks), 1, MOST_PLACES)),
        window_rows=window_rows,
    )
