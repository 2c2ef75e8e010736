"""On which examples does the pruned model decide otherwise than the dense one, and which of these are the worst?

A mean hides them: two models that are right equally often may be right on different examples (Hooker et al., arXiv:1911.05248).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from prunus.core.types import Bools, Floats, Ints
from prunus.evaluate.pairs import Pairs
from prunus.evaluate.resample import in_blocks
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
    shares: dict[Kind, int] = {"changed most": most, "right to wrong": most // 2}
    n_by_kind: dict[Kind, int] = {}
    worst: dict[Kind, tuple[Ints, Floats]] = {}
    for part in in_blocks(n_observed(dense)):
        one, other = ({name: column[part] for name, column in seen.items()} for seen in (dense, pruned))
        worse = _worse(one, other, task, metric)
        for kind, which in _kinds(one, other, worse).items():
            rows = np.flatnonzero(which)
            n_by_kind[kind] = n_by_kind.get(kind, 0) + len(rows)
            n_shown = shares.get(kind, most // 4)
            worst[kind] = _largest(worst.get(kind), (rows + part.start, worse[rows]), n_shown)
    shown = [
        Flip(int(row), kind, float(value)) for kind, pair in worst.items() for row, value in zip(*pair, strict=True)
    ]
    n_by_kind.pop("changed most", None)
    measure = "surprise at the target, nats" if "nll" in dense else metric
    return Flips(n_observed(dense), n_by_kind, tuple(shown), measure)


def _kinds(dense: Observed, pruned: Observed, worse: Floats) -> dict[Kind, Bools]:
    """Return which examples flip, by kind; where answers aren't right or wrong, which change."""
    if "right" not in dense:
        return {"changed most": worse != 0}
    one, other = dense["right"].astype(bool), pruned["right"].astype(bool)
    kinds: dict[Kind, Bools] = {"right to wrong": one & ~other, "wrong to right": other & ~one}
    if "predicted" in dense:
        kinds["wrong otherwise"] = ~one & ~other & (dense["predicted"] != pruned["predicted"])
    return kinds


def _largest(held: tuple[Ints, Floats] | None, more: tuple[Ints, Floats], n: int) -> tuple[Ints, Floats]:
    """Return the rows of the ``n`` largest changes, and these: the largest first, of equal ones the first row."""
    rows, values = more if held is None else (np.concatenate(pair) for pair in zip(held, more, strict=True))
    order = np.argsort(-np.abs(values), kind="stable")[:n]
    return rows[order], values[order]


def _worse(dense: Observed, pruned: Observed, task: Task, metric: str) -> Floats:
    """Return how much worse each example's answer is."""
    if "nll" in dense:
        change: Floats = pruned["nll"].astype(np.float64) - dense["nll"]
        return change
    values = [_each(task, metric, seen) for seen in (dense, pruned)]
    return np.nan_to_num(values[1] - values[0])


def _each(task: Task, metric: str, seen: Observed) -> Floats:
    """Return a metric of every example by itself."""
    n, parts = n_observed(seen), []
    for start in range(0, n, 256):
        here = np.arange(start, min(start + 256, n))
        parts.append(measured(task, [metric], rows_of(seen, here), np.eye(len(here)))[:, 0])
    return np.concatenate(parts)
