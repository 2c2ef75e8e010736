"""Which values of a regression are another example's, or a slip? Those that lie where the model's errors don't reach.

A target is right and off by an error like those of the others, or it is wrong: any of the data's values, whatever the example looks
like. How many are wrong, how wide the errors are and how heavy their tails, is what makes the targets at hand the likeliest.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lgamma, log, pi
from typing import Literal

import numpy as np

from prunus.core.errors import DataError, ShapeError
from prunus.core.types import Bools, Floats, Ints
from prunus.score.examples.precision import Precision, WrongLabels
from prunus.score.labels.label_verdicts import FLAGGED, LabelVerdicts

__all__ = ["judge_targets"]

_FREEDOMS = (2.5, 3.0, 4.0, 6.0, 10.0, 30.0)
"""Degrees of freedom of the errors: with few they are often far off, with many they are normal."""
_STEPS = 60
_AT_ONCE = 10
_RESAMPLES = 100
_GRID = 512


def judge_targets(
    predicted: Floats,
    target: Floats,
    *,
    wrong: Literal["flag", "drop"] = "flag",
    drop_probability: float = 0.7,
    confidence: float = 0.95,
    seed: int = 0,
    words: Sequence[tuple[str, str]] | None = None,
) -> LabelVerdicts:
    """Return which targets are wrong, with a probability; no value takes the place of one.

    Args:
        predicted: by models that didn't learn from the example.
        target: as it is given.
        wrong: what becomes of examples with a wrong one.
        drop_probability: the least probability of that, for the example to go.
        confidence: of the intervals.
        seed: of the resamples behind them.
        words: target and prediction of each example as one reads them; default: the numbers.

    Shapes:
        ``(n,)`` each.
    Raises:
        ShapeError: not one prediction per target.
        DataError: a number isn't finite, or all targets are one.
    """
    if predicted.shape != target.shape or target.ndim != 1:
        raise ShapeError(f"expected one prediction per target, (n,): got {predicted.shape} and {target.shape}")
    if not bool(np.isfinite(predicted).all() and np.isfinite(target).all()):
        raise DataError("expected finite targets and predictions: got NaN or infinity")
    n = len(target)
    if n < 2 or float(np.ptp(target)) == 0.0:
        raise DataError(f"outlying targets are looked for where targets differ: got {n}, all alike")
    error, elsewhere = target - predicted, _density(target)
    whole = np.ones((1, n))
    freedom = max(_FREEDOMS, key=lambda one: float(_fit(error, elsewhere, one, whole)[2][0]))
    share, scale, _ = _fit(error, elsewhere, freedom, whole)
    chance = _chance(error, elsewhere, freedom, share[:, None], scale)[0][0]
    draw = np.random.default_rng(seed)
    # A few weightings at a time, and chances only of the rows that are asked for: never all resamples of all examples.
    fitted = [
        _fit(error, elsewhere, freedom, np.stack([_drawn(draw, n) for _ in range(_AT_ONCE)]))
        for _ in range(_RESAMPLES // _AT_ONCE)
    ]
    shares, scales = np.concatenate([one[0] for one in fitted]), np.concatenate([one[1] for one in fitted])

    def resample(rows: Bools | Ints) -> Floats:
        return _chance(error[rows], elsewhere[rows], freedom, shares[:, None], scales)[0]

    told = WrongLabels(float(share[0]), chance, shares, resample)
    listed = told.chance >= drop_probability
    drop = listed if wrong == "drop" else listed & False
    flagged = listed & ~drop
    reason = np.full(n, "kept", object)
    for row in np.flatnonzero(listed).tolist():
        given, said = (f"{target[row]:.4g}", f"{predicted[row]:.4g}") if words is None else words[row]
        reason[row] = (
            f"{FLAGGED if flagged[row] else ''}value wrong ({told.chance[row]:.2f}): given {given}, models that didn't see it say "
            f"{said}"
        )

    def precision(rows: Bools) -> Precision | None:
        return told.precision(rows, confidence=confidence, seed=seed)

    return LabelVerdicts(
        decision=np.where(drop, "drop", "keep").astype(object),
        probability=told.chance,
        new_label=np.full(n, -1, np.int64),
        reason=reason,
        noise=told.share(confidence=confidence),
        dropped=precision(drop),
        relabelled=None,
        flagged=precision(flagged),
        repaired=None,
        n_spared=0,
    )


def _drawn(draw: np.random.Generator, n: int) -> Floats:
    """Return how often each example comes in a resample."""
    return np.bincount(draw.integers(n, size=n), minlength=n).astype(np.float64)


def _density(target: Floats) -> Floats:
    """Return how dense the targets lie around each of them: counts on a grid, smoothed by a normal kernel (Silverman's width)."""
    low, high = float(target.min()), float(target.max())
    quartiles = np.quantile(target, [0.25, 0.75])
    spread = min(float(target.std()), float(quartiles[1] - quartiles[0]) / 1.34) or float(target.std())
    width = 0.9 * spread * len(target) ** -0.2
    low, high = low - 3 * width, high + 3 * width
    counts, edges = np.histogram(target, _GRID, (low, high))
    step = float(edges[1] - edges[0])
    reach = np.arange(-_GRID, _GRID + 1) * step
    kernel = np.exp(-0.5 * (reach / max(width, step / 2)) ** 2)
    smooth = np.convolve(counts, kernel / kernel.sum())[_GRID : 2 * _GRID]
    middles = (edges[:-1] + edges[1:]) / 2
    found: Floats = np.maximum(np.interp(target, middles, smooth / (len(target) * step)), 1e-12 / (high - low))
    return found


def _fit(error: Floats, elsewhere: Floats, freedom: float, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Return for each weighting the likeliest share of wrong targets, the errors' scale ``(.., 1)``, and the log-likelihood.

    References:
        Lange, Little and Taylor, JASA 84, 1989: the scale of t-distributed errors by expectation and maximisation.
    """
    total = weights.sum(axis=1, keepdims=True)
    share = np.full((len(weights), 1), 0.05)
    scale = np.full((len(weights), 1), max(1.4826 * float(np.median(np.abs(error))), 1e-9))
    for _ in range(_STEPS):
        chance, _ = _chance(error, elsewhere, freedom, share, scale)
        right = weights * (1 - chance)
        far = (freedom + 1) / (freedom + (error / scale) ** 2)
        scale = np.sqrt(
            np.maximum((right * far * error**2).sum(axis=1, keepdims=True) / right.sum(axis=1, keepdims=True), 1e-18)
        )
        share = np.clip((weights * chance).sum(axis=1, keepdims=True) / total, 1e-6, 0.5)
    _, mixed = _chance(error, elsewhere, freedom, share, scale)
    return share[:, 0], scale, (weights * np.log(mixed)).sum(axis=1)


def _chance(error: Floats, elsewhere: Floats, freedom: float, share: Floats, scale: Floats) -> tuple[Floats, Floats]:
    constant = lgamma((freedom + 1) / 2) - lgamma(freedom / 2) - 0.5 * log(freedom * pi)
    right = np.exp(constant - (freedom + 1) / 2 * np.log1p((error / scale) ** 2 / freedom)) / scale
    wrong = share * elsewhere
    mixed = np.maximum((1 - share) * right + wrong, 1e-300)
    return wrong / mixed, mixed
