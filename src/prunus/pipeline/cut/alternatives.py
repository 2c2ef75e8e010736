"""Would another allocation have lost less, at the same cost?

No allocation wins everywhere, and a wrong one can lose a model that another leaves almost whole. So when a cut is chosen, the
others are tried on calibration examples that are held out: units are set to zero where they would be cut out (and what reads them
refitted, where that belongs to the criterion), and the distance of the outputs to those of the model before the cut is what counts.
What is adjusted or trained later isn't in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from prunus.core.types import Bools, Ints, Stratum
from prunus.graph.tracing.states import duplicate
from prunus.pipeline.costing.cost_targets import masks_of
from prunus.pipeline.jobs.job import Job
from prunus.recover import FEWEST, Answers, distance, split_off
from prunus.select import Cost, cost_aware, floor_counts, select

__all__ = ["Weights", "by_cost", "compare_allocations", "lost_less", "within"]

_CALLED = {"macs": "MACs", "params": "parameters"}
_CLEARLY = 0.9
"""Below this share of the chosen one's distance, another allocation would have lost less."""

_BISECTIONS = 20
_RUNGS = 1024
"""The cost-aware allocation is tried in so many widths of all strata: single units would take seconds in a large model."""


class Weights:
    """The cost of single weights and blocks of them: so many numbers that aren't zero."""

    def __init__(self, strata: Sequence[Stratum]) -> None:
        self.each = np.array([stratum.cost for stratum in strata])

    def total(self, counts: Sequence[int] | Ints) -> float:
        """Return the whole cost."""
        return float(self.each @ np.asarray(counts))


def compare_allocations(
    job: Job,
    model: nn.Module,
    strata: Sequence[Stratum],
    keep: Sequence[Bools],
    *,
    chosen: str,
    cost: Cost | Weights,
    kind: str,
    trial: Callable[[Sequence[Bools]], AbstractContextManager[None]],
    normalize: str,
    note: Callable[[str], None],
) -> dict[str, Any] | None:
    """Return how far each allocation would take the outputs, at no more than the cost of ``keep``; None where all are the same.

    Args:
        keep: which units stay, as ``chosen`` has it.
        cost: what counts of the strata cost, in ``kind``.
        trial: from which units stay to the model without the others, for as long as the context lasts.
    """
    counts = [int(mask.sum()) for mask in keep]
    if len(strata) < 2 or sum(counts) == sum(map(len, keep)):
        return None
    if len(job.data.calibration) < FEWEST:
        note(
            f"allocations aren't compared: that takes at least {FEWEST} calibration examples, got {len(job.data.calibration)}"
        )
        return None
    limit, whole = cost.total(counts), cost.total([len(mask) for mask in keep])
    tried = {chosen: list(keep)} | dict(_others(strata, cost, limit, chosen, normalize))
    if all(_same(masks, keep) for masks in tried.values()):
        return None
    _, held_out = split_off(job.data.calibration)
    was_training, dense = model.training, Answers(duplicate(model))
    rows: list[dict[str, Any]] = []
    for name, masks in tried.items():
        same = next((row for row, before in zip(rows, tried.values(), strict=False) if _same(masks, before)), None)
        if same is None:
            with trial(masks):
                lost = distance(model, dense, held_out, measure=job.measure)
        else:
            lost = math.inf if same["distance"] is None else same["distance"]
        rows.append(
            {
                "allocation": name,
                "distance": lost if math.isfinite(lost) else None,
                "share": cost.total([int(mask.sum()) for mask in masks]) / whole,
                "chosen": name == chosen,
            }
        )
    model.train(was_training)
    said = lost_less(chosen, {row["allocation"]: row["distance"] for row in rows}, kind)
    if said is not None:
        note(said)
    return {"cost": kind, "measure": job.measure, "n_held_out": len(held_out), "rows": rows}


def lost_less(chosen: str, far: Mapping[str, float | None], cost: str) -> str | None:
    """Say which allocation would have lost clearly less than the chosen one, of those whose distances are given; None: none.

    >>> lost_less("cost", {"cost": 0.4, "uniform": 0.1}, "macs")
    'allocation: uniform would have lost less than cost at the same MACs (0.1 against 0.4 by units set to zero, held out)'
    """
    known = {name: math.inf if one is None or not math.isfinite(one) else one for name, one in far.items()}
    best = min(known, key=lambda name: (known[name], name != chosen))
    if not known[best] < _CLEARLY * known[chosen]:
        return None
    return (
        f"allocation: {best} would have lost less than {chosen} at the same {_CALLED.get(cost, cost)} ({known[best]:.3g} against "
        f"{known[chosen]:.3g} by units set to zero, held out)"
    )


def _others(
    strata: Sequence[Stratum], cost: Cost | Weights, limit: float, chosen: str, normalize: str
) -> Iterator[tuple[str, list[Bools]]]:
    """Yield the simple allocations at no more than ``limit``; zeros have no costs that depend on each other."""
    for name in ("uniform", "global"):
        if name != chosen:
            masks = within(strata, cost, limit, name, normalize)
            if masks is not None:
                yield name, masks
    if chosen != "cost" and not isinstance(cost, Weights):
        masks = by_cost(strata, cost, limit)
        if masks is not None:
            yield "cost", masks


def by_cost(strata: Sequence[Stratum], cost: Cost, limit: float) -> list[Bools] | None:
    """Return what the cost-aware allocation keeps at no more than ``limit``, in coarse steps; None if their floors cost more."""
    rungs = min(max(_RUNGS // len(strata), 4), 32)
    coarse = [replace(s, multiple=s.multiple * -(-len(s.saliency) // (rungs * s.multiple))) for s in strata]
    return None if cost.total(floor_counts(coarse)) > limit else masks_of(coarse, cost_aware(coarse, cost, limit))


def within(
    strata: Sequence[Stratum], cost: Cost | Weights, limit: float, allocation: str, normalize: str
) -> list[Bools] | None:
    """Return what an allocation keeps at the largest keep fraction that doesn't cost more than ``limit``; None if all do."""
    if isinstance(cost, Weights):
        share = limit / cost.total([len(stratum.saliency) for stratum in strata])
        return select(strata, keep_fraction=share, allocation=allocation, normalize=normalize) if share > 0 else None
    low, high, best = 0.0, 1.0, None
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        masks = select(strata, keep_fraction=middle, allocation=allocation, normalize=normalize)
        if cost.total([int(mask.sum()) for mask in masks]) <= limit * (1 + 1e-9):
            low, best = middle, masks
        else:
            high = middle
    return best


def _same(first: Sequence[Bools], second: Sequence[Bools]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
