"""How does a small model learn from the outputs of the big one?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.core.calls import answer, answers, call, described
from prunus.core.errors import ShapeError
from prunus.core.recipes.recipe import Distil
from prunus.recover.feature_distillation import FeatureMatch
from prunus.recover.training.losses import Loss, Shares, share_of
from prunus.tasks import Task

if TYPE_CHECKING:
    from prunus.data import Batch, Examples

__all__ = ["distillation_loss", "teacher_outputs"]

_MOST = 1 << 28
"""Numbers of answers that are remembered at most."""


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
    ``Examples`` that will be trained on, since ``batch.index`` looks its outputs up. Of tokens those count that its task asks for.

    With ``features``, which must be attached while the student trains, ``config.features`` times their distance is added; then the
    teacher runs at every step.

    Raises:
        ShapeError: (when called) teacher and student have outputs of different shapes.

    References:
        Hinton, Vinyals and Dean, 2015, arXiv:1503.02531.
    """
    teacher.eval()
    known, task = None, None if examples is None else examples.task
    if examples is not None and features is None and examples.fixed:
        known = teacher_outputs(teacher, examples)

    return _Distillation(teacher if known is None else None, known, config, base, features, task)


@dataclass(frozen=True)
class _Distillation(Shares):
    """The loss itself. No closure: it goes to the other ranks of a training."""

    teacher: nn.Module | None
    known: Tensor | None
    config: Distil
    base: Loss
    features: FeatureMatch | None
    task: Task | None = None

    def __call__(self, outputs: Any, batch: Batch) -> Tensor:
        if self.known is None:
            assert self.teacher is not None
            with torch.no_grad():
                goal = call(self.teacher, batch.inputs)
        else:
            goal = self.known[batch.index]
        config = self.config
        # Before the base loss, which may run the student anew.
        near = None if self.features is None else self.features.distance()
        distance = _distance(outputs, goal, batch, config.temperature, self.task)
        value = (
            distance
            if config.weight == 1
            else (1 - config.weight) * self.base(outputs, batch) + config.weight * distance
        )
        return value if near is None else value + config.features * near

    def share(self, part: Batch, whole: Batch) -> Tensor | float:
        return share_of(self.base, part, whole)


def _distance(outputs: Any, goal: Any, batch: Batch, temperature: float, task: Task | None) -> Tensor:
    """Return how far an answer is from the teacher's: scores of the classes that targets number, or the numbers in both."""
    targets = batch.targets
    if not isinstance(targets, Tensor) or targets.is_floating_point():
        found, wanted = answers(outputs), answers(goal)
        if not found or [one.shape for one in found] != [one.shape for one in wanted]:
            raise ShapeError(
                f"distillation needs outputs of one shape: got teacher {described(goal)} and student {described(outputs)}"
            )
        pairs = zip(found, wanted, strict=True)
        return torch.stack([functional.mse_loss(new, old.to(new.dtype)) for new, old in pairs]).sum()
    student, teacher = answer(outputs), answer(goal)
    if teacher.shape != student.shape:
        raise ShapeError(
            f"distillation needs outputs of one shape: got teacher {tuple(teacher.shape)} and student {tuple(student.shape)}"
        )
    if student.dim() > 2:  # a class at each place: along dimension 1, or along the last one
        dim = 1 if student.shape[2:] == targets.shape[1:] else -1
        asked = [task.choices(one, batch) for one in (outputs, goal)] if task is not None and dim == -1 else [None]
        if None not in asked:  # of tokens those that the task asks for: no teacher has to answer padding
            student, teacher = (one.scores for one in asked if one is not None)
        else:
            student, teacher = (one.movedim(dim, -1).reshape(-1, one.shape[dim]) for one in (student, teacher))
    return soft_divergence(student, teacher.to(student.dtype), temperature)


def soft_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return ``T² KL(teacher || student)`` in nats, the mean over the rows of logits ``(n, classes)``."""
    if len(student) == 0:
        return student.sum() * 0
    soft_student = functional.log_softmax(student / temperature, dim=1)
    soft_teacher = functional.log_softmax(teacher / temperature, dim=1)
    return functional.kl_div(soft_student, soft_teacher, reduction="batchmean", log_target=True) * temperature**2


def teacher_outputs(teacher: nn.Module, examples: Examples, *, batch_size: int = 256) -> Tensor | None:
    """Return what ``teacher`` says in evaluation mode about every example, in their order: ``(n, outputs)``.

    None where an answer is no tensor, or large: then it is asked again at every step.
    """
    teacher.eval()
    found: list[Tensor] = []
    with torch.no_grad():
        for batch in examples.batches(batch_size):
            made = call(teacher, batch.inputs)
            if not isinstance(made, Tensor) or made.numel() * len(examples) > _MOST * len(batch.index):
                return None
            found.append(made)
    return torch.cat(found)
