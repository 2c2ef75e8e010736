"""Which input features hardly matter to a trained model?

A feature matters as much as the model gets worse when its values are shuffled among the validation examples (permutation
importance). Features that stand in for each other each look unimportant, so what would go together is also tested together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prunus.core.errors import DataError, RunError, ShapeError
from prunus.core.runtime import generator
from prunus.core.types import Bools, Decision, Floats

if TYPE_CHECKING:
    from prunus.core.recipes.recipe import Features
    from prunus.data import Examples

__all__ = ["FeatureImportance", "judge_feature_importance"]


@dataclass(frozen=True)
class FeatureImportance:
    """What each feature is worth, and which ones go.

    Shapes:
        ``drop``, ``upper``, ``keep`` and ``reason`` are ``(features,)``.
    Units:
        Loss of accuracy in [-1, 1], or of R²; ``upper`` is the one-sided bound at the asked confidence. ``joint_drop`` and
        ``joint_upper`` are for all removed features together, replaced by their fill.
    """

    drop: Floats
    upper: Floats
    keep: Bools
    reason: npt.NDArray[np.object_]
    joint_drop: float
    joint_upper: float

    def decision(self, names: tuple[str, ...] = (), fill: Tensor | None = None) -> Decision:
        """Return the decision for a plan: ``after`` holds the fill of each feature that goes."""
        n = len(self.keep)
        after = None
        if fill is not None:
            after = np.where(self.keep, np.nan, fill.detach().cpu().double().numpy())
        label = np.array(names if len(names) == n else [str(i) for i in range(n)], object)
        return Decision(
            "input", np.arange(n, dtype=np.int64), self.drop, self.keep, self.reason, label=label, after=after
        )


def judge_feature_importance(
    model: nn.Module, examples: Examples, config: Features, *, fill: Tensor, seed: int = 0, batch_size: int = 1024
) -> FeatureImportance:
    """Return the importance of every feature and which ones hardly matter.

    A feature is a candidate when the upper bound of its permutation importance is within ``config.tolerance``. Then all
    candidates are replaced by their ``fill`` at once; while the upper bound of that joint drop exceeds the tolerance, the most
    important ones come back (found by bisection over the ranking). ``config.min_features`` stay in any case.

    Args:
        model: left as it was.
        examples: the validation set, never the test set. For a classifier the bound is never below about 1.6 / n (at 95 %): with
            fewer examples than ``1.6 / config.tolerance`` no feature goes.
        config: repeats, confidence, tolerance, min_features.
        fill: what replaces a feature, as the model sees it (its training mean), ``(features,)``.
        seed: of the permutations.
        batch_size: how many rows go through the model at once.

    Raises:
        DataError: the inputs are no table, or there are fewer than two examples.
        ShapeError: ``fill`` has another length than the inputs.
        RunError: the model's outputs aren't finite.

    References:
        Breiman, Machine Learning 45, 2001; Fisher et al., JMLR 20(177), 2019 (model reliance). The bound is for the paired
        difference per example, averaged over the repeats: for a classifier by Agresti & Min, Statistics in Medicine 24, 2005
        (matched proportions), for regression by the normal approximation.
    """
    n = len(examples)
    if len(examples.input_shape) != 1:
        raise DataError(f"features: only tables have features to judge, got inputs of shape {examples.input_shape}")
    if n < 2:
        raise DataError(f"features: at least two validation examples are needed, got {n}; raise data.split.validation")
    n_features = examples.input_shape[0]
    if fill.shape != (n_features,):
        raise ShapeError(f"fill must be ({n_features},), one value per feature: got {tuple(fill.shape)}")
    batches = list(examples.batches(n))
    inputs, targets = torch.cat([b.inputs for b in batches]), torch.cat([b.targets for b in batches])
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        judge = _Judge(model, targets, examples.task.exclusive, config.confidence, batch_size, inputs)
        drop, upper = _permuted(judge, inputs, config.repeats, seed)
        gone, joint = _jointly(judge, inputs, fill.to(inputs), drop, upper, config)
    finally:
        for module, training in modes.items():
            module.training = training
    keep = np.ones(n_features, np.bool_)
    keep[gone] = False
    reason = np.full(n_features, "", object)
    for i in range(n_features):
        if not keep[i]:
            reason[i] = f"importance at most {upper[i]:.4g}, within {config.tolerance:g}"
        elif upper[i] > config.tolerance:
            reason[i] = f"kept: importance up to {upper[i]:.4g}"
        else:
            reason[i] = f"kept: {n} examples don't show that it may go with all the others"
    return FeatureImportance(drop, upper, keep, reason, *joint)


class _Judge:
    """Measure by how much changed inputs make each prediction worse, and bound the mean."""

    def __init__(
        self, model: nn.Module, targets: Tensor, classes: bool, confidence: float, batch_size: int, inputs: Tensor
    ) -> None:
        self.model, self.targets, self.classes, self.batch_size = model, targets, classes, batch_size
        self.quantile = NormalDist().inv_cdf(confidence)
        self.spread = targets.double().var(correction=0)
        if not classes and not self.spread > 0:
            raise DataError("features: the validation targets are all the same, so R² has no meaning")
        self.badness = self._badness(inputs)

    def worse(self, inputs: Tensor) -> Tensor:
        """Return by how much each example is predicted worse than with its own inputs, ``(n,)``."""
        return self._badness(inputs) - self.badness

    def bound(self, worse: Tensor) -> tuple[float, float]:
        """Return the mean of ``worse`` and its one-sided upper bound."""
        mean, n = float(worse.mean()), len(worse)
        if not self.classes:
            return mean, mean + self.quantile * float(worse.std()) / n**0.5
        # Half a prediction more that gets worse and half a one that gets better: no change among n examples proves no zero.
        centre = float(worse.sum()) / (n + 2)
        variance = (float(worse.square().sum()) + 1) / (n + 2) - centre**2
        return mean, max(mean, centre + self.quantile * (variance / (n + 2)) ** 0.5)

    @torch.no_grad()
    def _badness(self, inputs: Tensor) -> Tensor:
        outputs = torch.cat([self.model(part) for part in torch.split(inputs, self.batch_size)])
        if not torch.isfinite(outputs).all():
            raise RunError(
                "features: the model's outputs on the validation examples must be finite: got NaN or infinity"
            )
        if not self.classes:
            return (outputs.double().reshape(-1) - self.targets.double().reshape(-1)).square() / self.spread
        return (outputs.argmax(dim=1) != self.targets).double()


def _permuted(judge: _Judge, inputs: Tensor, repeats: int, seed: int) -> tuple[Floats, Floats]:
    """Return the mean drop and its upper bound for each feature alone, shuffled ``repeats`` times."""
    n, n_features = inputs.shape
    drop, upper = np.zeros(n_features), np.zeros(n_features)
    changed = inputs.clone()
    for feature in range(n_features):
        draw = generator(seed, "feature importance", feature)
        worse = torch.zeros(n, dtype=torch.float64, device=inputs.device)
        for _ in range(repeats):
            changed[:, feature] = inputs[torch.randperm(n, generator=draw).to(inputs.device), feature]
            worse += judge.worse(changed)
        changed[:, feature] = inputs[:, feature]
        drop[feature], upper[feature] = judge.bound(worse / repeats)
    return drop, upper


def _jointly(
    judge: _Judge, inputs: Tensor, fill: Tensor, drop: Floats, upper: Floats, config: Features
) -> tuple[npt.NDArray[np.int64], tuple[float, float]]:
    """Return as many of the least important candidates as may go together, and what that costs."""
    ranking = np.argsort(drop, kind="stable")
    candidates = ranking[upper[ranking] <= config.tolerance]
    candidates = candidates[: max(0, len(drop) - config.min_features)]

    def joint(count: int) -> tuple[float, float]:
        columns = torch.from_numpy(candidates[:count]).to(inputs.device)
        return judge.bound(judge.worse(inputs.index_copy(1, columns, fill[columns].expand(len(inputs), -1))))

    count = _largest(len(candidates), lambda k: joint(k)[1] <= config.tolerance)
    return candidates[:count], joint(count) if count else (0.0, 0.0)


def _largest(n: int, holds: Callable[[int], bool]) -> int:
    """Return a count in [0, n] that ``holds``, by bisection: n itself if it does, 0 without a test."""
    if n == 0 or holds(n):
        return n
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
