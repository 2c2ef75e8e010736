"""Of the labels that are called wrong, how many are? An estimate, where nobody knows the truth.

It reads what models say of examples that they didn't learn from. A label that such a model hardly believes is wrong, or the model
is: how often labels that are believed at 1 % occur among all examples tells which. Two numbers say it for all of them, how sure a
model may be (a temperature) and which share of the labels is wrong: those under which the given labels are the likeliest.

It holds for labels that are wrong by chance: any other class, whatever the example looks like. Where people confuse what looks
alike, the model does, too, and more of the list is wrong than is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunus.core.errors import DataError, ShapeError
from prunus.core.types import Bools, Floats, Ints

__all__ = ["Precision", "WrongLabels", "wrong_labels"]

_TEMPERATURES = np.geomspace(0.4, 6.0, 28)
_RESAMPLES = 100
_STEPS = 20
_ENOUGH, _CLEAR = 0.01, 0.7
_BINS = 420
"""What resamples believe of labels is counted in bins of a tenth of a logit: their fit doesn't get slower with the examples."""


@dataclass(frozen=True)
class Precision:
    """Which share of ``n`` labels that are called wrong is estimated to be wrong, with an interval."""

    n: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class WrongLabels:
    """How likely each label is to be wrong.

    ``noise`` is the share of all labels that is estimated to be wrong, ``noises`` the same from resamples of the examples;
    ``resample`` gives the chances of some rows by each of these. ``sharpness`` is the inverse temperature: by so much the
    logarithms of the probabilities are too small.

    Shapes:
        ``chance`` is ``(n,)``, ``noises`` ``(resamples,)``, what ``resample`` gives ``(resamples, rows)``.
    """

    noise: float
    chance: Floats
    noises: Floats
    resample: Callable[[Bools | Ints], Floats]
    sharpness: float = 1.0

    def doubted(self) -> Bools:
        """Return which labels other models had better not learn from, to judge all again: those more likely wrong than right.

        None are where they'd leave no mark on a model (fewer than one in a hundred), and none where most of them are close
        calls: models that can't tell would only become surer of themselves without what they contradict.

        Shapes:
            ``(n,)``.
        """
        likely = self.chance > 0.5
        enough = likely.sum() >= _ENOUGH * len(likely)
        clear = 2 * (self.chance > _CLEAR).sum() >= likely.sum()
        return likely if enough and clear else np.zeros_like(likely)

    def share(self, *, confidence: float = 0.95) -> Precision:
        """Return ``noise`` with an interval, by the resamples."""
        low, high = np.quantile(self.noises, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Precision(len(self.chance), self.noise, min(float(low), self.noise), max(float(high), self.noise))

    def precision(self, listed: Bools, *, confidence: float = 0.95, seed: int = 0) -> Precision | None:
        """Return which share of what is ``listed`` is wrong; None where nothing is.

        The interval counts in that the estimate hangs on the examples, and that of so many labels more or fewer are wrong by
        chance.
        """
        n = int(listed.sum())
        if n == 0:
            return None
        chances = self.resample(listed)
        shares = (np.random.default_rng(seed).random(chances.shape) < chances).mean(axis=1)
        value = float(self.chance[listed].mean())
        low, high = np.quantile(shares, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Precision(n, value, min(float(low), value), max(float(high), value))


def wrong_labels(probability: Floats, given: Ints, *, seed: int = 0) -> WrongLabels:
    """Return how likely each given label is to be wrong.

    Args:
        probability: of each class, by models that didn't learn from the example.
        given: the class numbers.

    Shapes:
        ``probability`` is ``(n, classes)``, ``given`` ``(n,)``.
    Raises:
        ShapeError: not one row per label, or a single class.
        DataError: a probability isn't a number.
    References:
        Patrini et al., CVPR 2017, arXiv:1609.03683 (the forward correction: given labels as the true ones, changed by chance); Guo
        et al., ICML 2017, arXiv:1706.04599 (temperatures). Both are fitted together here, on labels that the models didn't see.
    """
    if probability.ndim != 2 or len(probability) != len(given) or probability.shape[1] < 2:
        raise ShapeError(
            f"expected a probability of each of at least two classes for {len(given)} labels: got {probability.shape}"
        )
    if not bool(np.isfinite(probability).all()):
        raise DataError(
            f"expected probabilities: got NaN or infinity in row {int((~np.isfinite(probability)).any(1).argmax())}"
        )
    n, others = len(given), probability.shape[1] - 1
    scores = np.log(np.clip(probability, 1e-9, None))
    whole, best, at, share = np.ones((1, n)), -np.inf, 0, 0.1
    for number, one in enumerate(_TEMPERATURES):
        found, likelihood = _noise(_believed(scores, given, one), whole, others, 0.1)
        if likelihood[0] > best:
            best, at, share = float(likelihood[0]), number, float(found[0])
    chance = _chance(_believed(scores, given, _TEMPERATURES[at]), others, np.array([[share]]))[0]
    near = [_believed(scores, given, one) for one in _TEMPERATURES[max(at - 3, 0) : at + 4]]
    places, shares = _resampled(near, others, share, seed)

    def resample(rows: Bools | Ints) -> Floats:
        return np.stack([_chance(near[k][rows], others, one) for k, one in zip(places, shares, strict=True)])

    return WrongLabels(share, chance, shares, resample, float(_TEMPERATURES[at]))


def _resampled(near: Sequence[Floats], others: int, start: float, seed: int) -> tuple[list[int], Floats]:
    """Return for each resample of the examples which beliefs are the likeliest, and the share of wrong labels under them."""
    n, draw = len(near[0]), np.random.default_rng(seed)
    places = [_bins(own) for own in near]
    sums = np.zeros((len(near), _RESAMPLES, _BINS))
    for one in range(_RESAMPLES):
        weights = np.bincount(draw.integers(n, size=n), minlength=n)
        for number, place in enumerate(places):
            sums[number, one] = np.bincount(place, weights, minlength=_BINS)
    best, at, shares = np.full(_RESAMPLES, -np.inf), np.zeros(_RESAMPLES, np.int64), np.zeros(_RESAMPLES)
    for number, (own, place) in enumerate(zip(near, places, strict=True)):
        counts = np.bincount(place, minlength=_BINS)
        means = np.bincount(place, own, minlength=_BINS)[counts > 0] / counts[counts > 0]
        share, likelihood = _noise(means, sums[number][:, counts > 0], others, start)
        better = likelihood > best
        best[better], at[better], shares[better] = likelihood[better], number, share[better]
    return at.tolist(), shares


def _believed(scores: Floats, given: Ints, sharpness: float) -> Floats:
    """Return the probability of each given label, at one temperature."""
    return _softmax(scores * sharpness)[np.arange(len(given)), given]


def _bins(own: Floats) -> npt.NDArray[np.int16]:
    """Return the bin of each belief, a tenth of a logit wide."""
    logit = np.log(np.maximum(own, 1e-9)) - np.log(np.maximum(1 - own, 1e-9))
    place: npt.NDArray[np.int16] = np.clip(logit * 10 + _BINS // 2, 0, _BINS - 1).astype(np.int16)
    return place


def _softmax(scores: Floats) -> Floats:
    raised: Floats = np.exp(scores - scores.max(axis=1, keepdims=True))
    raised /= raised.sum(axis=1, keepdims=True)
    return raised


def _noise(own: Floats, weights: Floats, others: int, start: float) -> tuple[Floats, Floats]:
    """Return the likeliest share of wrong labels, by expectation and maximisation, and the log-likelihood, for each weighting."""
    total = weights.sum(axis=1)
    share: Floats = np.full(len(weights), start)
    for _ in range(_STEPS):
        share = np.clip((weights * _chance(own, others, share[:, None])).sum(axis=1) / total, 1e-6, 0.95)
    mixed: npt.NDArray[np.float64] = (1 - share[:, None]) * own + share[:, None] * (1 - own) / others
    return share, (weights * np.log(np.maximum(mixed, 1e-300))).sum(axis=1)


def _chance(own: Floats, others: int, share: Floats | float) -> Floats:
    """Return how likely a label is wrong that a model believes at ``own``."""
    wrong = share * (1 - own) / others
    found: Floats = wrong / np.maximum((1 - share) * own + wrong, 1e-300)
    return found
