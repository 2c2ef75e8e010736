"""Which layers should keep more than others: by their shape, their saliencies, their outliers, or by what was measured?

Each is an allocation like those of ``select.allocate``: the budget is spent exactly, and a larger one keeps a superset. In later
rounds the shares are those of what there was before the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from prunus.core.errors import RecipeError
from prunus.core.types import Floats, Ints, Stratum
from prunus.select.allocate import allocation, global_ranking
from prunus.select.apportion import apportion, whole

__all__ = ["erk", "lamp", "lamp_scores", "owl", "sensitivity"]


@allocation("erk")
def erk(strata: Sequence[Stratum], keep_fraction: float) -> Ints:
    """Return counts whose densities are proportional to ``sum(shape) / prod(shape)``: large layers keep a smaller share.

    A layer that would keep more than all keeps all, and the others share what is left. Where units are no weights, a stratum
    counts as a matrix of units x parameters per unit.

    References:
        Evci et al., ICML 2020, arXiv:1911.11134 (the Erdős–Rényi kernel).

    >>> wide, narrow = Stratum("wide", np.zeros(100), shape=(10, 10)), Stratum("narrow", np.zeros(8), shape=(2, 4))
    >>> erk([wide, narrow], 0.25)  # 20 / 100 against 6 / 8
    array([21,  6])
    """
    shapes = [s.shape or (float(n), max(s.cost, 1.0)) for s, n in zip(strata, whole(strata).tolist(), strict=True)]
    density = np.array([sum(shape) / float(np.prod(shape)) for shape in shapes])
    return apportion(strata, keep_fraction, level=lambda i, shares: shares / density[i])


@allocation("lamp")
def lamp(strata: Sequence[Stratum], keep_fraction: float) -> Ints:
    """Return counts that keep the best of one ranking over all strata by LAMP scores.

    References:
        Lee et al., ICLR 2021, arXiv:2010.07611: a score for single weights by their magnitude, which here goes for any
        saliency of any unit. A saliency below zero counts as zero.

    >>> even, one = Stratum("even", np.array([1.0, 1.0, 1.0, 1.0])), Stratum("one", np.array([4.0, 0.1, 0.1, 0.1]))
    >>> lamp([even, one], 0.5)
    array([3, 1])
    """
    return global_ranking([replace(s, saliency=lamp_scores(s.saliency)) for s in strata], keep_fraction)


def lamp_scores(saliency: Floats) -> Floats:
    """Return each unit's square over the sum of the squares of all units that are no worse: ``(units,)``.

    Of equals, the later one counts as better. The best unit's score is 1 in every stratum, so no stratum is emptied.

    >>> lamp_scores(np.array([3.0, 1.0, 2.0])).round(3).tolist()
    [1.0, 0.071, 0.308]
    """
    order = np.argsort(saliency, kind="stable")
    positive = np.maximum(saliency[order], 0.0)
    squares = (positive / max(positive.max(initial=0.0), np.finfo(np.float64).tiny)) ** 2
    no_worse = np.cumsum(squares[::-1])[::-1]
    scores: Floats = np.empty_like(squares)
    scores[order] = np.divide(squares, no_worse, out=np.zeros_like(squares), where=no_worse > 0)
    return scores


@allocation("owl")
def owl(strata: Sequence[Stratum], keep_fraction: float, *, multiple: float = 5.0, spread: float = 0.08) -> Ints:
    """Return counts that give more to strata with more outliers.

    Args:
        multiple: an outlier's saliency is above this many times its stratum's mean (the paper's M).
        spread: the shares lie within this of their middle (the paper's lambda).

    References:
        Yin et al., ICML 2024, arXiv:2310.05175, who score by Wanda; any saliency goes here. The mean over layers of equal size is
        an exact budget over all units here.

    >>> flat, spiky = Stratum("flat", np.ones(50)), Stratum("spiky", np.array([9.0] + [0.1] * 49))
    >>> owl([flat, spiky], 0.5, spread=0.1)
    array([20, 30])
    """
    outliers = np.array([_outlier_share(stratum.saliency, multiple) for stratum in strata])
    more = 2 * spread * outliers / (float(np.ptp(outliers)) or 1.0)  # the least is taken up by the level
    return apportion(strata, keep_fraction, level=lambda i, shares: shares - more[i])


def _outlier_share(saliency: Floats, multiple: float) -> float:
    return float(np.mean(saliency > multiple * saliency.mean())) if len(saliency) else 0.0


@allocation("sensitivity")
def sensitivity(strata: Sequence[Stratum], keep_fraction: float) -> Ints:
    """Return counts at which every stratum's own loss, pruned alone, is the same: the lowest such loss that the budget allows.

    Between the shares that were measured, a loss is interpolated; it counts as no lower than at any larger share. Where it
    doesn't tell strata apart, they keep equal shares.

    Raises:
        RecipeError: a stratum has no measured losses.

    >>> tough = Stratum("tough", np.zeros(10), losses=np.array([[1.0, 0.0], [0.5, 0.1]]))
    >>> frail = Stratum("frail", np.zeros(10), losses=np.array([[1.0, 0.0], [0.5, 0.4]]))
    >>> sensitivity([tough, frail], 0.5)
    array([2, 8])
    """
    curves = [_curve(stratum) for stratum in strata]
    # A slope too small to matter, so that flat stretches of all curves are climbed side by side.
    tilt = 1e-6 * (max(float(np.ptp(losses)) for _, losses in curves) or 1.0)
    curves = [(shares, losses - tilt * shares) for shares, losses in curves]
    return apportion(strata, keep_fraction, level=lambda i, shares: -np.interp(shares, *curves[i]))


def _curve(stratum: Stratum) -> tuple[Floats, Floats]:
    """Return rising shares from 0 to 1, and the losses at them, which never rise."""
    if stratum.losses is None or len(stratum.losses) < 2:
        raise RecipeError(
            f"allocation sensitivity needs the loss of {stratum.name!r} at two shares or more: got "
            f"{0 if stratum.losses is None else len(stratum.losses)}; choose another allocation where nothing was measured"
        )
    shares, losses = stratum.losses[:, 0], np.maximum.accumulate(stratum.losses[:, 1])
    # Down to nothing the loss goes on rising as it did last.
    slope = (losses[-1] - losses[-2]) / (shares[-2] - shares[-1])
    shares, losses = np.append(shares, 0.0), np.append(losses, losses[-1] + slope * shares[-1])
    return shares[::-1], losses[::-1]
