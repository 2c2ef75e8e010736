"""Numbers for each example, of any shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prunus.core.batch import Batch
from prunus.core.calls import described
from prunus.core.errors import DataError, ModelError, ShapeError
from prunus.core.predictions import Prediction, check_outputs_finite
from prunus.core.types import Floats, Ints
from prunus.tasks.metric import metric, ratio
from prunus.tasks.one_tensor import one_tensor
from prunus.tasks.task import Observed, Task, group_means, task

__all__ = ["Moments", "Regression", "like_targets"]


class Moments(NamedTuple):
    """Means over the examples, each ``(resamples, outputs)``; the targets are counted from any fixed point."""

    absolute_error: Floats
    square_error: Floats
    target: Floats
    square_target: Floats


@task("regression")
@dataclass(frozen=True)
class Regression(Task):
    """Targets are numbers, ``(n,)``, ``(n, outputs)`` or of any further shape, and so are outputs, but for a last dimension of one.

    Of one or several outputs, metrics are means over the outputs. Of arrays (images, sequences) all that an example holds counts as
    so many values of one output. The model gives, and learns, ``(target - mean) / deviation``; metrics and answers are in the
    targets' own units.
    """

    reads: ClassVar[tuple[str, ...]] = ("absolute_error", "square_error", "target", "spread")
    mean: float = 0.0
    deviation: float = 1.0

    def check(self, outputs: Any, batch: Batch) -> None:
        """See that there is a number for each number."""
        targets = batch.targets
        if not isinstance(targets, Tensor) or not targets.is_floating_point():
            raise DataError(f"regression: expected numbers as targets: got {described(targets)}")
        try:
            like_targets(one_tensor(outputs), targets)
        except ShapeError as error:
            raise ModelError(
                f"the model's outputs don't fit the labels: expected {tuple(targets.shape)}, got "
                f"{tuple(one_tensor(outputs).shape)}; regression needs one output per target"
            ) from error

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the mean squared error of each example."""
        found = like_targets(one_tensor(outputs), batch.targets)
        errors: Tensor = (found - batch.targets).square().reshape(len(found), -1).mean(dim=1)
        return errors

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the mean squared error."""
        return functional.mse_loss(like_targets(one_tensor(outputs), batch.targets), batch.targets)

    def observe(self, outputs: Any, batch: Batch) -> Observed:
        """Return error and target of each output, or their means over an array: ``spread`` is the variance inside it."""
        wanted = self._in_units(batch.targets)
        error = self._in_units(like_targets(one_tensor(outputs), batch.targets)) - wanted
        n = len(wanted)
        if wanted.ndim <= 2:
            wanted, error = wanted.reshape(n, -1), error.reshape(n, -1)
            spread = torch.zeros_like(wanted)
            columns = {"absolute_error": error.abs(), "square_error": error.square(), "target": wanted}
        else:
            wanted, error = wanted.reshape(n, 1, -1), error.reshape(n, 1, -1)
            spread = wanted.var(dim=2, correction=0)
            columns = {
                "absolute_error": error.abs().mean(dim=2),
                "square_error": error.square().mean(dim=2),
                "target": wanted.mean(dim=2),
            }
        return {name: column.numpy() for name, column in (*columns.items(), ("spread", spread))}

    def totals(self, observed: Observed, weights: Floats) -> Moments:
        """Return the means."""
        centred = observed["target"] - observed["target"].mean(axis=0)
        columns = (
            observed["absolute_error"],
            observed["square_error"],
            centred,
            np.square(centred) + observed["spread"],
        )
        n = weights.sum(axis=1, keepdims=True)
        return Moments(*(weights @ column / n for column in columns))

    def pooled(self, observed: Observed, groups: Ints, n_groups: int) -> Observed:
        """Return means: a group is an example with an array of values, whose spread is that between its members, too."""
        middle = observed["target"].mean(axis=0)
        centred = observed["target"] - middle
        target, square, spread, absolute_error, square_error = (
            group_means(column, groups, n_groups)
            for column in (
                centred,
                np.square(centred),
                observed["spread"],
                observed["absolute_error"],
                observed["square_error"],
            )
        )
        return {
            "absolute_error": absolute_error,
            "square_error": square_error,
            "target": target + middle,
            "spread": spread + np.maximum(square - np.square(target), 0),
        }

    def decode(self, outputs: Any) -> Prediction:
        """Return the values: one number per example, or as many as it has outputs."""
        found = one_tensor(outputs)
        check_outputs_finite(found)
        values = self._in_units(found)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        return Prediction(tuple(values.tolist()))

    def _in_units(self, values: Tensor) -> Tensor:
        return values.detach().double().cpu() * self.deviation + self.mean


def like_targets(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return regression outputs in the shape of ``targets``: a last dimension of one goes.

    Raises:
        ShapeError: they don't fit. (Broadcasting ``(n, 1)`` against ``(n,)`` would silently compare everything with everything.)
    """
    if outputs.ndim == targets.ndim + 1 and outputs.shape[-1] == 1:
        outputs = outputs.squeeze(-1)
    if outputs.ndim + 1 == targets.ndim and targets.shape[-1] == 1:
        outputs = outputs.unsqueeze(-1)
    if outputs.shape != targets.shape:
        raise ShapeError(
            f"a regression model's outputs must have the targets' shape {tuple(targets.shape)}: got {tuple(outputs.shape)}"
        )
    return outputs


@metric("mae", task="regression", higher_is_better=False, label="MAE", unit="target units", default=1)
def mae(moments: Moments) -> Floats:
    """Return the mean absolute error."""
    return moments.absolute_error


@metric("rmse", task="regression", higher_is_better=False, label="RMSE", unit="target units", default=1)
def rmse(moments: Moments) -> Floats:
    """Return the root of the mean squared error."""
    value: Floats = np.sqrt(moments.square_error)
    return value


@metric("r2", task="regression", higher_is_better=True, label="R²", default=0)
def r2(moments: Moments) -> Floats:
    """Return the share of the targets' variance that is explained; of constant targets 1 when all are met, else 0."""
    spread = moments.square_target - np.square(moments.target)
    # What rounding leaves of a variance of zero is no variance.
    varied = spread > 1e-12 * moments.square_target
    exact = np.where(moments.square_error == 0, 1.0, 0.0)
    return np.where(varied, 1 - ratio(moments.square_error, np.where(varied, spread, 0.0)), exact)
