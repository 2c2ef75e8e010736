"""Which random cuts put rows that are nearly alike into the same bucket, often enough?

A table of buckets is a few cuts through the middle of the rows: those on the same side of all meet. What a table does is measured
on *simulated* pairs, which lie exactly at the threshold around a sample of the rows; so tables are drawn from a sample alone, and
are the same wherever the rest of the rows lies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["N_SIMULATED", "Cuts", "Sketch", "Table", "codes_of", "draw_tables", "sketches_of"]

N_SIMULATED = 1024
_OFTEN_ENOUGH = 0.2
"""The least share of pairs at the threshold that meets in one table."""
_ROUNDING = 1e-5
"""Projections that differ by less may be on either side of a cut."""
_MOST_TABLES = 512
_SKETCH = 64


@dataclass(frozen=True)
class Cuts:
    """Directions ``(features, cuts)``, and where each is cut ``(cuts,)``."""

    directions: Tensor
    at: Tensor


@dataclass(frozen=True)
class Sketch:
    """64 cuts: rows that are on other sides of more than ``most`` of them are no pair."""

    cuts: Cuts
    most: int


Table = tuple[Cuts, float]
"""The cuts of a table, and the share of simulated pairs that has met in it or one before."""


def draw_tables(
    here: Tensor, cosine: float, recall: float, n_rows: int, random: torch.Generator
) -> tuple[Sketch, Iterator[Table]]:
    """Return a sketch, and tables, drawn as they are asked for, until the share ``recall`` of pairs at the threshold has met.

    Args:
        here: a sample of the rows, of length one, ``(sample, features)``.
        cosine: the threshold.
        n_rows: so many rows will be put into buckets.
        random: what is drawn from.
    """
    there = _at_cosine(here, cosine, random)
    directions = _directions(here.shape[1], _SKETCH, random)
    differ = (~_same_side(here, there, directions)).sum(dim=1)
    most = int(differ.double().quantile(0.999).ceil())
    sketch = Sketch(Cuts(directions, _middle(here @ directions)), most)
    n_cuts = _n_cuts(here, there, n_rows, random)

    def each() -> Iterator[Table]:
        have_met, met = torch.zeros(len(here), dtype=torch.bool), 0.0
        for _ in range(_MOST_TABLES):
            drawn = _directions(here.shape[1], n_cuts, random)
            have_met |= _same_side(here, there, drawn).all(dim=1) & (differ <= most)
            met = float(have_met.double().mean())
            yield Cuts(drawn, _middle(here @ drawn)), met
            if met >= recall:
                return

    return sketch, each()


def codes_of(rows: Tensor, scale: Tensor, cuts: Cuts) -> npt.NDArray[np.int32]:
    """Return the bucket of each row, ``(n,)``: a bit for each of at most 24 cuts; ``scale`` is one over each row's norm."""
    weights = torch.pow(2.0, torch.arange(cuts.directions.shape[1]))  # sums below 2**24 are exact
    side = (rows @ cuts.directions) * scale[:, None] > cuts.at
    return (side.float() @ weights).to(torch.int32).numpy()


def sketches_of(rows: Tensor, scale: Tensor, sketch: Sketch) -> npt.NDArray[np.uint64]:
    """Return the sides of a sketch's cuts that each row is on, a bit for each, ``(n,)``."""
    found = np.zeros(len(rows), np.uint64)
    for start in range(0, _SKETCH, 16):
        part = Cuts(sketch.cuts.directions[:, start : start + 16], sketch.cuts.at[start : start + 16])
        found |= codes_of(rows, scale, part).astype(np.uint64) << np.uint64(start)
    return found


def _n_cuts(here: Tensor, there: Tensor, n_rows: int, random: torch.Generator) -> int:
    """Return how many cuts make a table: for about one row per bucket, but fewer where pairs at the threshold would hardly meet."""
    most = min(max(math.ceil(math.log2(n_rows)), 1), 24)
    least = min(max(math.ceil(math.log2(n_rows / 2048)), 1), most)
    same = torch.stack([_same_side(here, there, _directions(here.shape[1], most, random)) for _ in range(4)])
    meet = same.cummin(dim=2).values.double().mean(dim=(0, 1))
    return max(int((meet >= _OFTEN_ENOUGH).sum()), least)


def _same_side(here: Tensor, there: Tensor, directions: Tensor) -> Tensor:
    """Return which pairs each cut leaves together: ``(pairs, cuts)``."""
    at = _middle(here @ directions)
    return (here @ directions > at) == (there @ directions > at)


def _directions(n_features: int, n_cuts: int, random: torch.Generator) -> Tensor:
    """Return directions ``(features, cuts)``, orthogonal as far as there are dimensions: their buckets are more even."""
    drawn = torch.randn(n_features, n_cuts, generator=random)
    parts = [torch.linalg.qr(drawn[:, start : start + n_features]).Q for start in range(0, n_cuts, n_features)]
    return torch.cat(parts, dim=1)


def _middle(projections: Tensor) -> Tensor:
    """Return where each column is cut: beside its median, since equal rows on the cut itself would be parted by rounding."""
    median = projections.median(dim=0).values
    above = torch.where(projections > median + _ROUNDING, projections, math.inf).amin(dim=0)
    below = torch.where(projections < median - _ROUNDING, projections, -math.inf).amax(dim=0)
    beside = torch.where(above.isfinite(), above, below)
    middle: Tensor = torch.where(beside.isfinite(), (median + beside) / 2, median - 1)
    return middle


def _at_cosine(rows: Tensor, cosine: float, random: torch.Generator) -> Tensor:
    """Return a unit vector at that cosine of each unit row, in a random direction."""
    aside = torch.randn(rows.shape, generator=random)
    aside = aside - (aside * rows).sum(dim=1, keepdim=True) * rows
    aside = aside / aside.norm(dim=1, keepdim=True).clamp(min=1e-12)
    there = cosine * rows + math.sqrt(1 - cosine**2) * aside
    return torch.nn.functional.normalize(there, dim=1)
