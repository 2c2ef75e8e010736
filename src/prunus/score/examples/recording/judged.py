"""What does one answer of a model say about one example?

These are the formulas of the papers for a single example in a single epoch, all in double precision. What is made of them over the
epochs stands in ``over_epochs``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunus.core.batch import Batch
from prunus.core.calls import answer
from prunus.core.errors import ShapeError
from prunus.tasks import MultiLabel, Regression, Task

__all__ = ["class_scores", "judge", "judge_classes", "recorded_names"]

_OF_ANY = ("loss", "loss_deviation")
_OF_LABELS = (*_OF_ANY, "aum", "forgotten")
_OF_VALUES = (*_OF_ANY, "el2n", "aum")
_OF_CLASSES = (*_OF_VALUES, "confidence", "confidence_deviation", "entropy", "gap", "forgotten", "probability")


def recorded_names(task: Task) -> tuple[str, ...]:
    """Return what is recorded of a task's examples; nothing of one whose model gives the loss of a batch only."""
    if task.told_by_model:
        return ()
    if task.exclusive:
        return _OF_CLASSES
    return _OF_VALUES if isinstance(task, Regression) else _OF_LABELS if isinstance(task, MultiLabel) else _OF_ANY


def judge(task: Task, outputs: Any, batch: Batch) -> dict[str, Tensor]:
    """Return what an answer says of each example of a batch, ``(n,)`` each, and of classes their ``probability``.

    Of every task ``loss``, the example's own. Of classes what :func:`judge_classes` returns. A regression has no margins: ``el2n``
    is ``|output - target|``, averaged over an example's outputs, and ``aum`` its negative. Of several labels ``aum`` is the margin
    of the one that is most wrong: above 0 where all are right.

    Raises:
        ShapeError: the outputs have another shape.
    """
    found: dict[str, Tensor] = {}
    if task.exclusive:
        found = judge_classes(class_scores(task, outputs, len(batch.index)).double(), batch.targets.detach())
    elif isinstance(task, Regression):
        found = _judge_values(answer(outputs).detach().double(), batch.targets.detach())
    elif isinstance(task, MultiLabel):
        found = _judge_labels(answer(outputs).detach().double(), batch.targets.detach())
    return {**found, "loss": task.losses(outputs, batch).detach().double()}


def class_scores(task: Task, outputs: Any, n: int) -> Tensor:
    """Return the logits in an answer, ``(n, classes)``, without their gradient.

    Raises:
        ShapeError: there isn't one logit per class for each example.
    """
    scores, n_classes = answer(outputs).detach(), len(task.class_names) or int(getattr(task, "n_classes", 0))
    if n_classes in (0, 2) and (scores.ndim == 1 or (scores.ndim == 2 and scores.shape[1] == 1)):
        single = scores.reshape(-1, 1)
        scores = torch.cat([torch.zeros_like(single), single], dim=1)
    wanted = (n, n_classes or (scores.shape[1] if scores.ndim == 2 else 2))
    if tuple(scores.shape) != wanted or wanted[1] < 2:
        raise ShapeError(
            f"a classifier's outputs must be ({n}, {n_classes or 'classes'}), one logit per class: got {tuple(scores.shape)}"
        )
    return scores


def judge_classes(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return what logits say of the class that is given.

    ``el2n`` is ``|softmax(logits) - onehot(target)|``; ``aum`` the target's logit minus the largest other one; ``confidence`` the
    probability of the target and ``surprise`` its negative logarithm; ``entropy`` of the probabilities, in nats; ``gap`` between
    the two highest of them.

    Shapes:
        ``logits`` ``(n, classes)``, ``targets`` ``(n,)``; results ``(n,)``, and ``(n, classes)`` for ``probability``.
    References:
        Paul et al., NeurIPS 2021, arXiv:2107.07075 (EL2N); Pleiss et al., NeurIPS 2020, arXiv:2001.10528 (AUM); Swayamdipta et al.,
        EMNLP 2020, arXiv:2009.10795 (confidence).

    >>> found = judge_classes(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    >>> found["aum"].item(), found["confidence"].item(), round(found["el2n"].item() ** 2, 6)
    (0.0, 0.5, 0.5)
    """
    own = targets[:, None]
    log_probability = logits.log_softmax(dim=1)
    probability = log_probability.exp()
    confidence = probability.gather(1, own)
    others = logits.scatter(1, own, float("-inf")).amax(dim=1)
    best, second = probability.topk(2, dim=1).values.T
    return {
        "el2n": probability.scatter_add(1, own, -torch.ones_like(confidence)).norm(dim=1),
        "aum": logits.gather(1, own)[:, 0] - others,
        "confidence": confidence[:, 0],
        "surprise": -log_probability.gather(1, own)[:, 0],
        "entropy": -torch.where(probability > 0, probability * log_probability, 0.0).sum(dim=1),
        "gap": best - second,
        "probability": probability,
    }


def _judge_values(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    n = len(targets)
    if outputs.numel() != targets.numel():
        raise ShapeError(
            f"a regression model's outputs must be {tuple(targets.shape)}, or ({n}, 1): got {tuple(outputs.shape)}"
        )
    error = (outputs.reshape(n, -1) - targets.reshape(n, -1)).abs().mean(dim=1)
    return {"el2n": error, "aum": -error}


def _judge_labels(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    if logits.shape != targets.shape:
        raise ShapeError(f"outputs of several labels must be {tuple(targets.shape)}: got {tuple(logits.shape)}")
    return {"aum": torch.where(targets > 0, logits, -logits).reshape(len(targets), -1).amin(dim=1)}
