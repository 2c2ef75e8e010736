"""Which training examples help these target examples, and which harm them?

An example helps where its gradient lies along the target's. As the target is known, its gradient is one direction, and the inner
product of every training gradient with it is exact at the price of about one pass: nothing is projected at random, as it must be
where gradients are stored before anyone knows the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from prunus.core.batch import Batch, Batched
from prunus.core.errors import DataError, RecipeError
from prunus.core.types import Floats
from prunus.score.influence.checkpoint_mean import CheckpointScores, over_checkpoints
from prunus.score.influence.directions import Direction, along, mean_gradient, sample, solve_curvature
from prunus.score.influence.gradient_norms import SquareNorms
from prunus.score.influence.layer_gradients import LayerWatch, in_evaluation, last_layers, parameters_of
from prunus.tasks import Task

__all__ = ["Influence", "influence"]

Kind = Literal["leave_out", "gradient", "cosine"]


@dataclass(frozen=True, eq=False)
class Influence(CheckpointScores):
    """How much each training example helps the target; higher means keep.

    ``layers`` are those whose weights were looked at, () for all; ``residual`` is the share of the target's gradient that the
    solution for ``leave_out`` leaves unexplained, at the worst checkpoint, 0 for the other kinds.
    """

    layers: tuple[str, ...] = ()
    residual: float = 0.0


def influence(
    checkpoints: nn.Module | Iterable[nn.Module],
    training: Batched,
    target: Batched,
    task: Task,
    *,
    kind: Kind = "leave_out",
    layers: int | None = 2,
    learning_rates: Sequence[float] | None = None,
    damping: float = 0.1,
    sample_size: int = 8192,
    tolerance: float = 0.01,
    batch_size: int = 2048,
    seed: int = 0,
) -> Influence:
    """Return how much each training example helps the mean loss of the target examples.

    Args:
        checkpoints: a trained model or several; each is used before the next is asked for. They are in evaluation mode.
        kind: ``leave_out``: the curvature of the training loss is divided out; ``gradient``: plain inner products of gradients;
            ``cosine``: of gradients of length one, so that no example counts for its loss being large.
        layers: the last so many linear and convolutional layers; None: all weights.
        learning_rates: one for each checkpoint, which its scores are multiplied by. TracIn is the kind ``gradient`` with these,
            times the number of checkpoints.
        damping: what is added to the curvature, as a share of its mean diagonal.
        sample_size: by so many random training examples the curvature is known.
        tolerance: what share of the target's gradient the solution may leave unexplained.

    Units:
        ``leave_out``: by how much the mean target loss rises when the example is left out and the model trained anew, to first
        order. ``gradient``: by how much it falls for a small step on the example alone, over the length of the step. Positive
        helps.
    Raises:
        ModelError: fewer layers run, or the task has no loss of each example.
        RecipeError: an unknown kind, or not one learning rate for each checkpoint.
        DataError: there are no examples.
        NotFiniteError: a loss isn't finite.
    References:
        Koh and Liang, ICML 2017, arXiv:1703.04730; Pruthi et al. (TracIn), NeurIPS 2020, arXiv:2002.08484; Park et al. (TRAK),
        ICML 2023, arXiv:2303.14186; Xia et al. (LESS), ICML 2024, arXiv:2402.04333. TRAK and LESS store projected gradients
        and then ask for targets; here the target comes first and nothing is projected.
    """
    if kind not in ("leave_out", "gradient", "cosine"):
        raise RecipeError(f"expected the kind leave_out, gradient or cosine: got {kind!r}")
    if damping < 0 or sample_size < 1 or not 0 < tolerance < 1:
        raise RecipeError(
            f"expected damping >= 0, sample_size >= 1 and tolerance between 0 and 1: got {damping}, {sample_size}, {tolerance}"
        )
    for part, examples in (("training", training), ("target", target)):
        if not len(examples):
            raise DataError(f"influence needs {part} examples: got none")
    names: list[str] = []
    residuals = [0.0]

    def score(model: nn.Module) -> Floats:
        with in_evaluation(model):
            asked = list(target.batches(batch_size))
            chosen = None if layers is None else last_layers(model, asked[0], layers)
            names[:] = chosen or ()
            weights = parameters_of(model, chosen)
            direction = mean_gradient(model, weights, asked, task)
            if kind == "leave_out":
                solved = solve_curvature(
                    model,
                    direction,
                    weights,
                    sample(training, sample_size, batch_size, seed),
                    task,
                    damping=damping,
                    tolerance=tolerance,
                    seed=seed,
                )
                direction = {name: value / len(training) for name, value in solved.direction.items()}
                residuals.append(solved.residual)
            elif kind == "cosine":
                length = sum(float(value.double().square().sum()) for value in direction.values()) ** 0.5
                direction = {name: value / (length or 1.0) for name, value in direction.items()}
            passing = _Passing(model, chosen, weights, direction, task, cosine=kind == "cosine")
            found = [passing.of(batch).double().cpu().numpy() for batch in training.batches(batch_size)]
        return np.concatenate(found)

    scores = over_checkpoints(checkpoints, score, learning_rates)
    return Influence(scores.value, scores.error, scores.n_checkpoints, tuple(names), max(residuals))


class _Passing:
    """Tells the derivative of each example's loss along one direction, of some layers or of all weights."""

    def __init__(
        self,
        model: nn.Module,
        layers: tuple[str, ...] | None,
        weights: dict[str, Tensor],
        direction: Direction,
        task: Task,
        *,
        cosine: bool,
    ) -> None:
        self._model, self._weights, self._direction, self._task = model, weights, direction, task
        self._watch = None if layers is None else LayerWatch(model, layers, task)
        self._norms = SquareNorms(model, layers, task) if cosine else None

    def of(self, batch: Batch) -> Tensor:
        """Return ``(n,)``."""
        if self._watch is None:
            found = along(self._model, self._direction, self._weights, batch, self._task)
        else:
            calls = self._watch.at(batch)
            with torch.no_grad():
                found = calls[0][1].errors.new_zeros(len(batch.index))
                for name, gradients in calls:
                    found += gradients.along(self._direction[f"{name}.weight"], self._direction.get(f"{name}.bias"))
        if self._norms is None:
            return found
        length = self._norms.of(batch).sqrt()
        return torch.where(length > 0, found / length, 0.0)
