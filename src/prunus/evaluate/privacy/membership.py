"""How well can one tell, by a score of each example, which were trained on?

The area under the curve says how often a member's score is above an outsider's: 0.5 is a guess. What harms is the other end:
how many members are found when hardly any outsider may be called one (Carlini et al., arXiv:2112.03570). Members and outsiders
are resampled apart, the same for both models, so that their difference is paired.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from prunus.core.batch import Batched
from prunus.core.calls import call
from prunus.core.runtime import derive_seed
from prunus.core.types import Floats, Measurement
from prunus.evaluate.predict import evaluated
from prunus.evaluate.resample import interval
from prunus.tasks import Task

__all__ = ["FALSE_POSITIVES", "MembershipRow", "losses_of", "measures", "membership"]

FALSE_POSITIVES = (0.01, 0.001)
_BLOCK = 2_000_000


@dataclass(frozen=True)
class MembershipRow:
    """One measure of one attack on each model, and the difference, pruned minus dense (None with one model)."""

    attack: str
    measure: str
    values: dict[str, Measurement]
    difference: Measurement | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "attack": self.attack,
            "measure": self.measure,
            "values": {name: one.to_dict() for name, one in self.values.items()},
            "difference": self.difference and self.difference.to_dict(),
        }


def losses_of(model: nn.Module, examples: Batched, task: Task) -> Floats:
    """Return the loss of each example, ``(n,)``."""
    parts: list[Floats] = []
    with evaluated(model, examples) as batches:
        for batch in batches:
            found = task.losses(call(model, batch.inputs), batch)
            parts.append(found.detach().double().cpu().numpy())
    return np.concatenate(parts)


def membership(
    attack: str,
    members: Mapping[str, Floats],
    outsiders: Mapping[str, Floats],
    *,
    confidence: float,
    bootstrap: int,
    seed: int,
) -> tuple[MembershipRow, ...]:
    """Return how well scores tell members from outsiders, of each model; higher scores mean a member.

    A rate of false positives that the outsiders are too few for (fewer than one of them) is left out.
    """
    models = list(members)
    n_in, n_out = len(members[models[0]]), len(outsiders[models[0]])
    rates = [rate for rate in FALSE_POSITIVES if rate * n_out >= 1]
    rng = np.random.default_rng(derive_seed(seed, "membership"))
    found: dict[str, list[Floats]] = {
        name: [measures(members[name], outsiders[name], np.ones((1, n_in)), np.ones((1, n_out)), rates)]
        for name in models
    }
    size = max(1, _BLOCK // (n_in + n_out))
    for start in range(0, bootstrap, size):
        n = min(size, bootstrap - start)
        ours = rng.multinomial(n_in, np.full(n_in, 1 / n_in), size=n).astype(np.float64)
        theirs = rng.multinomial(n_out, np.full(n_out, 1 / n_out), size=n).astype(np.float64)
        for name in models:
            found[name].append(measures(members[name], outsiders[name], ours, theirs, rates))
    values = {name: np.concatenate(parts) for name, parts in found.items()}
    rows = []
    for column, measure in enumerate(["auc", *(f"tpr_at_{rate:g}" for rate in rates)]):
        one = {name: _measured(measure, values[name][:, column], confidence) for name in models}
        apart = None
        if "dense" in values and "pruned" in values:
            apart = _measured(measure, values["pruned"][:, column] - values["dense"][:, column], confidence)
        rows.append(MembershipRow(attack, measure, one, apart))
    return tuple(rows)


def measures(members: Floats, outsiders: Floats, ours: Floats, theirs: Floats, rates: list[float]) -> Floats:
    """Return the area under the curve and the share of members found at each rate of false positives.

    Shapes:
        ``ours`` and ``theirs`` are weights, ``(resamples, members)`` and ``(resamples, outsiders)``; the result has a row for each.
    """
    levels, place = np.unique(np.concatenate([members, outsiders]), return_inverse=True)
    n_in = len(members)

    def by_level(weights: Floats, at: Any) -> Floats:
        order = np.argsort(at, kind="stable")
        there, starts = np.unique(at[order], return_index=True)
        sums = np.zeros((len(weights), len(levels)))
        sums[:, there] = np.add.reduceat(weights[:, order], starts, axis=1)
        return sums

    inside, outside = by_level(ours, place[:n_in]), by_level(theirs, place[n_in:])
    total_in, total_out = inside.sum(axis=1), outside.sum(axis=1)
    below = np.cumsum(outside, axis=1) - outside / 2
    columns = [(inside * below).sum(axis=1) / (total_in * total_out)]
    # From the highest score down: what is called a member at each threshold.
    false = np.cumsum(outside[:, ::-1], axis=1) / total_out[:, None]
    true = np.cumsum(inside[:, ::-1], axis=1) / total_in[:, None]
    for rate in rates:
        allowed = false <= rate + 1e-12
        columns.append(np.where(allowed, true, 0.0).max(axis=1))
    return np.stack(columns, axis=1)


def _measured(name: str, values: Floats, confidence: float) -> Measurement:
    low, high = interval(values[1:], confidence)
    value = float(values[0])
    return Measurement(name, value, min(low, value), max(high, value), "share", False)
