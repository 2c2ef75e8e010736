"""What does a model in training say about every example?

:class:`ExampleRecorder` watches a training and keeps running sums, so its memory grows with the number of examples and not with the
epochs. What it recorded is evidence: ``example_criteria`` turn it into one saliency per example.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunus.core.calls import answer
from prunus.core.errors import RunError, ShapeError
from prunus.tasks import Regression, Task

if TYPE_CHECKING:
    from prunus.data import Batch

__all__ = ["ExampleRecorder", "recorded_names"]

_OF_ANY = ("loss", "loss_deviation")
_OF_VALUES = (*_OF_ANY, "el2n", "aum")
_OF_CLASSES = (*_OF_VALUES, "confidence", "confidence_deviation", "entropy", "gap", "forgotten", "probability")


def recorded_names(task: Task) -> tuple[str, ...]:
    """Return what is recorded of a task's examples; nothing of one whose model gives the loss of a batch only."""
    if task.told_by_model:
        return ()
    return _OF_CLASSES if task.exclusive else _OF_VALUES if isinstance(task, Regression) else _OF_ANY


class ExampleRecorder:
    """Record what a model in training says about every example: give it to ``train`` as ``watch``.

    Of every task ``loss``, the example's own, and ``loss_deviation``. Of classes ``el2n``, ``|softmax(outputs) - onehot(target)|``;
    ``aum``, the target's logit minus the largest other one; ``confidence``, the probability of the target, and its deviation;
    ``entropy`` of the probabilities, in nats; ``gap`` between the two highest of them; ``forgotten``, how often the example was
    right in one epoch and wrong in the next, or how often it was seen, where it was never right; ``probability`` of every class. A
    regression has no margins: ``el2n`` is ``|output - target|``, averaged over an example's outputs, and ``aum`` its negative. All
    but ``forgotten`` and the deviations are means over the epochs.

    Args:
        n_examples: how many examples the training has.
        task: what is asked of the model.
        el2n_epochs: EL2N looks at the first so many epochs only; None: at all that are recorded.

    References:
        Paul et al., NeurIPS 2021, arXiv:2107.07075 (EL2N; they average over several initialisations, early in training);
        Pleiss et al., NeurIPS 2020, arXiv:2001.10528 (AUM); Toneva et al., ICLR 2019, arXiv:1812.05159 (forgetting);
        Swayamdipta et al., EMNLP 2020, arXiv:2009.10795 (confidence and its deviation).
    """

    def __init__(self, n_examples: int, task: Task, *, el2n_epochs: int | None = None) -> None:
        self.n_examples, self.task, self.el2n_epochs = n_examples, task, el2n_epochs
        self.names = recorded_names(task)
        # Sums are double, so that the order of the epochs doesn't show in the last digits.
        sums = [name for name in self.names if name not in ("probability", "forgotten")]
        self._sums = {name: torch.zeros(n_examples, dtype=torch.float64) for name in sums}
        n_classes = len(task.class_names) if task.exclusive else 0
        self._probability = torch.zeros(n_examples, n_classes, dtype=torch.float64)
        self._forgotten, self._learnt, self._right = (
            torch.zeros(n_examples, dtype=kind) for kind in (torch.int64, torch.bool, torch.bool)
        )
        self._seen = torch.zeros(n_examples, dtype=torch.int64)
        self._seen_early = torch.zeros(n_examples, dtype=torch.int64)
        self._first_epoch: int | None = None

    @torch.no_grad()
    def __call__(self, epoch: int, batch: Batch, outputs: Any) -> None:
        """Add one batch of one epoch.

        Shapes:
            ``outputs``, or the logits in them, is ``(batch, classes)``; for regression like the targets, or ``(batch, 1)``.
        Raises:
            ShapeError: the outputs have another shape.
        """
        self._first_epoch = epoch if self._first_epoch is None else self._first_epoch
        early = self.el2n_epochs is None or epoch < self._first_epoch + self.el2n_epochs
        index = batch.index.cpu()
        found: dict[str, Tensor] = {}
        if self.task.exclusive:
            found = self._judge_classes(index, answer(outputs).detach().double(), batch.targets.detach())
        elif "el2n" in self.names:
            found = self._judge_values(index, answer(outputs).detach().double(), batch.targets.detach())
        found["loss"] = self.task.losses(outputs, batch).detach().double()
        for name in ("loss", "confidence"):
            if f"{name}_deviation" in self._sums:
                found[f"{name}_deviation"] = found[name].square()
        for name, values in found.items():
            if name != "el2n" or early:
                self._sums[name].index_add_(0, index, values.cpu())
        self._seen[index] += 1
        self._seen_early[index] += early

    def tensors(self) -> dict[str, Tensor]:
        """Return what was recorded so far, as float32 on the CPU.

        Shapes:
            ``(n,)`` each, and ``(n, classes)`` for ``probability``.
        Raises:
            RunError: some example was never seen.
        """
        missing = torch.nonzero(self._seen_early == 0).flatten()
        if len(missing):
            raise RunError(
                f"{len(missing)} of {self.n_examples} examples were never seen in training (the first is {int(missing[0])}): "
                "record at least one whole epoch"
            )
        found = {
            name: total / (self._seen_early if name == "el2n" else self._seen) for name, total in self._sums.items()
        }
        for name in ("loss", "confidence"):
            if f"{name}_deviation" in found:
                found[f"{name}_deviation"] = (found[f"{name}_deviation"] - found[name].square()).clamp(min=0).sqrt()
        if self.task.exclusive:
            found["forgotten"] = torch.where(self._learnt, self._forgotten, self._seen).double()
            found["probability"] = self._probability / self._seen[:, None]
        return {name: found[name].float() for name in self.names}

    def _judge_classes(self, index: Tensor, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        n_classes = self._probability.shape[1]
        if outputs.shape != (len(index), n_classes):
            raise ShapeError(
                f"a classifier's outputs must be ({len(index)}, {n_classes}), one logit per class: got {tuple(outputs.shape)}"
            )
        own = targets[:, None]
        log_probability = outputs.log_softmax(dim=1)
        probability = log_probability.exp()
        confidence = probability.gather(1, own)
        others = outputs.scatter(1, own, float("-inf")).amax(dim=1)
        aum = outputs.gather(1, own)[:, 0] - others
        best, second = probability.topk(2, dim=1).values.T
        self._probability.index_add_(0, index, probability.cpu())
        right = (aum > 0).cpu()
        self._forgotten[index] += self._right[index] & ~right
        self._right[index] = right
        self._learnt[index] |= right
        return {
            "el2n": probability.scatter_add(1, own, -torch.ones_like(confidence)).norm(dim=1),
            "aum": aum,
            "confidence": confidence[:, 0],
            "entropy": -torch.where(probability > 0, probability * log_probability, 0.0).sum(dim=1),
            "gap": best - second,
        }

    def _judge_values(self, index: Tensor, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        if outputs.numel() != targets.numel():
            raise ShapeError(
                f"a regression model's outputs must be {tuple(targets.shape)}, or ({len(index)}, 1): got {tuple(outputs.shape)}"
            )
        error = (outputs.reshape(len(index), -1) - targets.reshape(len(index), -1)).abs().mean(dim=1)
        return {"el2n": error, "aum": -error}
