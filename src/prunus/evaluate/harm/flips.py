"""On which examples does the pruned model decide otherwise than the dense one, and which of these are the worst?

A mean hides them: two models that are right equally often may be right on different examples (Hooker et al., arXiv:1911.05248).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from prunus.core.types import Bools, Floats
from prunus.evaluate.pairs import Pairs
from prunus.tasks import Observed, Task, measured, n_observed, rows_of

__all__ = ["Flip", "Flips", "Kind", "flips"]

Kind = Literal["right to wrong", "wrong to right", "wrong otherwise", "changed most"]


@dataclass(frozen=True)
class Flip:
    """One example: ``row`` is its place, ``worse`` by how much the pruned model's answer to it is (in ``Flips.measure``)."""

    row: int
    kind: Kind
    worse: float


@dataclass(frozen=True)
class Flips:
    """How many examples flip, by kind, of ``n``, and some of them, the worst of each kind first.

    ``n_by_kind`` is empty for a task whose answers aren't right or wrong: then ``shown`` are those that changed most.
    """

    n: int
    n_by_kind: dict[Kind, int]
    shown: tuple[Flip, ...]
    measure: str


def flips(pairs: Pairs, metric: str, *, most: int = 24) -> Flips:
    """Return the examples on which the two models of the first seed decide differently.

    Args:
        metric: what an example is judged by where nothing tells how likely its answer was; one that is finite for one example.
        most: so many are shown.
    """
    dense, pruned, task = pairs.dense[0], pairs.pruned[0], pairs.task
    worse, measure = _worse(dense, pruned, task, metric)
    n = n_observed(dense)
    if "right" not in dense:
        changed = [int(row) for row in np.argsort(-np.abs(worse), kind="stable") if worse[row] != 0][:most]
        return Flips(n, {}, tuple(Flip(row, "changed most", float(worse[row])) for row in changed), measure)
    one, other = dense["right"].astype(bool), pruned["right"].astype(bool)
    kinds: dict[Kind, Bools] = {"right to wrong": one & ~other, "wrong to right": other & ~one}
    if "predicted" in dense:
        kinds["wrong otherwise"] = ~one & ~other & (dense["predicted"] != pruned["predicted"])
    shown: list[Flip] = []
    for kind, which in kinds.items():
        rows = np.flatnonzero(which)
        order = rows[np.argsort(-np.abs(worse[rows]), kind="stable")]
        share = most // 2 if kind == "right to wrong" else most // 4
        shown += [Flip(int(row), kind, float(worse[row])) for row in order[:share]]
    return Flips(n, {kind: int(which.sum()) for kind, which in kinds.items()}, tuple(shown), measure)


def _worse(dense: Observed, pruned: Observed, task: Task, metric: str) -> tuple[Floats, str]:
    """Return how much worse each example's answer is, and in what."""
    if "nll" in dense:
        return pruned["nll"].astype(np.float64) - dense["nll"], "surprise at the target, nats"
    values = [_each(task, metric, seen) for seen in (dense, pruned)]
    found = np.nan_to_num(values[1] - values[0])
    return found, metric


def _each(task: Task, metric: str, seen: Observed) -> Floats:
    """Return a metric of every example by itself."""
    n, parts = n_observed(seen), []
    for start in range(0, n, 256):
        here = np.arange(start, min(start + 256, n))
        parts.append(measured(task, [metric], rows_of(seen, here), np.eye(len(here)))[:, 0])
    return np.concatenate(parts)
