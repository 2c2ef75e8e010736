"""Which counts meet a cost at the least predicted loss?

The budget is a cost that the counts make together (products of coupled sizes, measured times), so no unit has a price of its
own: from the whole model on, the step with the least loss for what it saves is taken, again and again, at prices that are computed
anew; what the last step saved too much is given back.

Saliencies that are errors of the layers which read a unit add up as they are, over layers and strata. Of others only the order and
the shares within a stratum say something, and a stratum's loss counts by the root of the number of weights that lose a slice with
each unit: a residual stream runs through many layers, and what they miss adds up like noise. Counted once, the stream is cut far
too deep; counted once for each weight, hardly at all (measured: docs/explanation/against-torch-pruning.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from prunus.core.errors import RecipeError
from prunus.core.types import Floats, Ints, Stratum
from prunus.select.amount import Ladder
from prunus.select.joint_strata import Cost, Merged

__all__ = ["Cost", "cost_aware", "error_loss", "floor_counts", "predicted_loss"]

_LEAST_SHARE = 1e-3
"""What is left of a stratum's saliency counts as at least this: the last unit's loss is large, not infinite."""


def predicted_loss(saliency: Floats) -> Floats:
    """Return what a stratum loses when it keeps its best ``k`` units, for k = 0 ... n: noise over signal, ``1 / share**2 - 1``.

    The share is that of the saliency which is left. Saliencies are amplitudes (norms, absolute values), so power is its square.
    The loss grows without bound as a stratum empties, steeply enough that a dear layer isn't emptied to leave a cheap one whole,
    adds up over layers as noise does, and is the same for any scale of the saliencies.

    Shapes:
        ``(units,)`` to ``(units + 1,)``, falling, 0 at the end. Negative saliencies count from the lowest one.

    >>> predicted_loss(np.array([1.0, 3.0])).round(3).tolist()
    [999999.0, 0.778, 0.0]
    """
    ranked = np.sort(saliency)[::-1] - saliency.min(initial=0.0)
    kept = np.concatenate([[0.0], np.cumsum(ranked)])
    # Zeros don't tell units apart.
    share = kept / kept[-1] if kept[-1] > 0 else np.linspace(0.0, 1.0, len(kept))
    lost: Floats = np.maximum(share, _LEAST_SHARE) ** -2.0 - 1
    return lost


def error_loss(errors: Floats) -> Floats:
    """Return what a stratum loses when it keeps its best ``k`` units, for k = 0 ... n, where each unit's error is known.

    Errors are shares of what each reader puts out, summed over the readers, so all units together make about as many as there are
    readers. To a first order the loss is the sum of the errors; it counts by the signal that is left, as in ``predicted_loss``.

    Shapes:
        ``(units,)`` to ``(units + 1,)``, falling, 0 at the end.

    >>> error_loss(np.array([1.0, 3.0])).round(3).tolist()  # four readers: keeping the better unit loses 1 / (3/4)
    [3996.0, 1.333, 0.0]
    """
    kept = np.concatenate([[0.0], np.cumsum(np.sort(np.maximum(errors, 0.0))[::-1])])
    whole = kept[-1]
    if not whole > 0:  # nobody reads what these units say
        return np.zeros_like(kept)
    lost: Floats = whole * (1 / np.maximum(kept / whole, _LEAST_SHARE) - 1)
    return lost


def floor_counts(strata: Sequence[Stratum]) -> Ints:
    """Return the least counts that the strata allow."""
    merged = Merged.of(strata)
    ladder = Ladder.of(merged.strata)
    return merged.expand(ladder.counts(ladder.first))


def cost_aware(strata: Sequence[Stratum], cost: Cost, limit: float) -> Ints:
    """Return the counts whose cost is at most ``limit``, at the least predicted loss.

    Args:
        strata: their floors and multiples hold.
        cost: the price of all counts together.

    Raises:
        RecipeError: the floors alone cost more than ``limit``; it says how much.

    References:
        Greedy for the knapsack by loss per saving (Dantzig 1957); prices are computed anew after every step as in
        NetAdapt (Yang et al., ECCV 2018, arXiv:1804.03230), from a table instead of by trial.
    """
    merged = Merged.of(strata)
    return merged.expand(_cost_aware(merged.strata, merged.cost(cost), limit))


def _cost_aware(strata: Sequence[Stratum], cost: Cost, limit: float) -> Ints:
    ladder = Ladder.of(strata)
    floor, counts = ladder.counts(ladder.first), ladder.counts(ladder.last)
    least = cost.total(floor)
    if least > limit:
        raise RecipeError(f"the floors alone cost {least:.6g}, more than {limit:.6g}")
    losses = _losses(strata)
    rung = ladder.last.copy()
    steps: list[tuple[float, int] | None] = [
        _best_step(i, ladder, rung, counts, losses[i], cost) for i in range(len(strata))
    ]
    total = cost.total(counts)
    while total > limit:
        ways = [(step, i) for i, step in enumerate(steps) if step is not None]
        if not ways:  # no step saves anything any more: what is left of the way saves together
            return floor
        (_, ahead), chosen = min(ways)
        rung[chosen] = _last_rung(chosen, int(rung[chosen]), ahead, ladder, counts, cost, limit)
        counts = ladder.counts(rung)
        total = cost.total(counts)
        for i in cost.neighbours(chosen):
            steps[i] = _best_step(i, ladder, rung, counts, losses[i], cost)
    return _give_back(ladder, rung, losses, cost, limit)


def climb(strata: Sequence[Stratum], cost: Cost, low: Ints, high: Ints, *, most: int = 64) -> list[Ints]:
    """Return counts on the way up from ``low`` to ``high``, without ``low``: what regains the most loss for its cost goes first.

    Args:
        low: counts that the strata allow; where ``high`` is lower, they stay.
        most: so many steps at most, of one or more rungs each.
    """
    merged = Merged.of(strata)
    steps = _climb(merged.strata, merged.cost(cost), merged.gather(low), merged.gather(high), most)
    return [merged.expand(counts) for counts in steps]


def _climb(strata: Sequence[Stratum], cost: Cost, low: Ints, high: Ints, most: int) -> list[Ints]:
    ladder = Ladder.of(strata)
    losses = _losses(strata)
    rung, end = -(-low // ladder.block), -(-np.maximum(low, high) // ladder.block)
    stride = max(1, -(-int((end - rung).sum()) // most))
    found: list[Ints] = []
    while (rung < end).any():
        counts, steps = ladder.counts(rung), []
        for i in np.flatnonzero(rung < end).tolist():
            there = min(int(rung[i]) + stride, int(end[i]))
            trial = _with(ladder, counts, i, there)
            more = max(cost.part(i, trial) - cost.part(i, counts), 1e-12)
            steps.append((float(losses[i][counts[i]] - losses[i][trial[i]]) / more, i, there))
        _, chosen, rung[chosen] = max(steps)
        found.append(ladder.counts(rung))
    return found


def one_less(strata: Sequence[Stratum], counts: Ints) -> list[Ints]:
    """Return the allowed counts that are one step narrower in one stratum."""
    merged = Merged.of(strata)
    ladder = Ladder.of(merged.strata)
    rung, step = -(-merged.gather(counts) // ladder.block), np.eye(len(merged.strata), dtype=np.int64)
    return [merged.expand(ladder.counts(rung - step[i])) for i in np.flatnonzero(rung > ladder.first)]


def _losses(strata: Sequence[Stratum]) -> list[Floats]:
    return [
        error_loss(stratum.saliency) if stratum.additive else sqrt(stratum.n_weights) * predicted_loss(stratum.saliency)
        for stratum in strata
    ]


def _give_back(ladder: Ladder, rung: Ints, losses: Sequence[Floats], cost: Cost, limit: float) -> Ints:
    """Climb again, where the limit allows it, the steps that regain the most loss for what they cost."""
    while True:
        counts, steps = ladder.counts(rung), []
        total = cost.total(counts)
        for i in np.flatnonzero(rung < ladder.last).tolist():
            trial = _with(ladder, counts, i, int(rung[i]) + 1)
            if cost.total(trial) <= limit:
                regained = float(losses[i][counts[i]] - losses[i][trial[i]])
                steps.append((regained / max(cost.total(trial) - total, 1e-12 * total), i))
        if not steps:
            return counts
        rung[max(steps)[1]] += 1


def _with(ladder: Ladder, counts: Ints, stratum: int, rung: int) -> Ints:
    """Return the counts with one stratum on another rung."""
    trial = counts.copy()
    trial[stratum] = min(rung * int(ladder.block[stratum]), int(ladder.size[stratum]))
    return trial


def _best_step(
    i: int, ladder: Ladder, rung: Ints, counts: Ints, losses: Floats, cost: Cost
) -> tuple[float, int] | None:
    """Return the least loss per saving of a step down, and how many rungs it goes; far ones cross flat stretches."""
    here, now, ahead = int(rung[i]), cost.part(i, counts), 1
    steps = []
    while here - ahead >= ladder.first[i]:
        trial = _with(ladder, counts, i, here - ahead)
        saved = now - cost.part(i, trial)
        if saved > 1e-12 * now:
            steps.append((float(losses[trial[i]] - losses[counts[i]]) / saved, ahead))
        ahead *= 2
    return min(steps, default=None)


def _last_rung(i: int, here: int, ahead: int, ladder: Ladder, counts: Ints, cost: Cost, limit: float) -> int:
    """Return the first rung of the way down that meets ``limit``; the end of the way where none does."""
    end = here - ahead
    way = range(here - 1, end, -1)
    return next((rung for rung in way if cost.total(_with(ladder, counts, i, rung)) <= limit), end)
