"""How does a small model learn from the outputs of the big one?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.core.calls import call
from prunus.core.errors import ShapeError
from prunus.core.recipes.recipe import Distil
from prunus.recover.feature_distillation import FeatureMatch
from prunus.recover.training.losses import Loss

if TYPE_CHECKING:
    from prunus.data import Batch, Examples

__all__ = ["distillation_loss", "teacher_outputs"]


def distillation_loss(
    teacher: nn.Module,
    config: Distil,
    base: Loss,
    *,
    examples: Examples | None = None,
    features: FeatureMatch | None = None,
) -> Loss:
    """Return ``(1 - weight) * base + weight * (distance to the teacher's outputs)``; the teacher is set to evaluation mode.

    For classes the distance is ``T² KL(teacher || student)`` of the outputs softened by the temperature ``T`` (the factor keeps
    the size of the gradient when ``T`` changes); for float targets it is the mean squared error to the teacher's output, without
    temperature. With ``examples`` the teacher is asked once per example instead of once per epoch: pass the very
    ``Examples`` that will be trained on, since ``batch.index`` looks its outputs up.

    With ``features``, which must be attached while the student trains, ``config.features`` times their distance is added; then the
    teacher runs at every step.

    Raises:
        ShapeError: (when called) teacher and student have outputs of different shapes.

    References:
        Hinton, Vinyals and Dean, 2015, arXiv:1503.02531.
    """
    teacher.eval()
    known = None if examples is None or features is not None else teacher_outputs(teacher, examples)

    def loss(outputs: Tensor, batch: Batch) -> Tensor:
        if known is None:
            with torch.no_grad():
                goal = call(teacher, batch.inputs).to(outputs.dtype)
        else:
            goal = known[batch.index]
        # Before the base loss, which may run the student anew.
        near = None if features is None else features.distance()
        if goal.shape != outputs.shape:
            raise ShapeError(
                f"distillation needs outputs of one shape: got teacher {tuple(goal.shape)} and student {tuple(outputs.shape)}"
            )
        if batch.targets.is_floating_point():
            distance = functional.mse_loss(outputs, goal)
        else:
            distance = soft_divergence(outputs, goal, config.temperature)
        value = (
            distance if config.weight == 1 else (1 - config.weight) * base(outputs, batch) + config.weight * distance
        )
        return value if near is None else value + config.features * near

    return loss


def soft_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return ``T² KL(teacher || student)`` in nats, the mean over the rows of logits ``(n, classes)``."""
    soft_student = functional.log_softmax(student / temperature, dim=1)
    soft_teacher = functional.log_softmax(teacher / temperature, dim=1)
    return functional.kl_div(soft_student, soft_teacher, reduction="batchmean", log_target=True) * temperature**2


def teacher_outputs(teacher: nn.Module, examples: Examples, *, batch_size: int = 256) -> Tensor:
    """Return what ``teacher`` says in evaluation mode about every example, in their order: ``(n, outputs)``."""
    teacher.eval()
    with torch.no_grad():
        return torch.cat([call(teacher, batch.inputs) for batch in examples.batches(batch_size)])
