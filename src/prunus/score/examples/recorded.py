"""What does a model in training say about every example, where nothing is kept on disk?

:class:`ExampleRecorder` watches a training and keeps running sums, so its memory grows with the number of examples and not with
the epochs. What it recorded is evidence: ``example_criteria`` turn it into one saliency per example. ``recording.Recording`` writes
what every epoch said to a folder, and gives the same evidence with its errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunus.score.examples.recording.judged import judge, recorded_names
from prunus.score.examples.recording.over_epochs import OverEpochs
from prunus.tasks import Task

if TYPE_CHECKING:
    from prunus.data import Batch

__all__ = ["ExampleRecorder"]


class ExampleRecorder:
    """Record what a model in training says about every example: give it to ``train`` as ``watch``.

    What is recorded of a task is what ``recorded_names`` lists: the formulas are those of ``judge``, and all but ``forgotten`` and
    the deviations are means over the epochs.

    Args:
        n_examples: how many examples the training has.
        task: what is asked of the model.
        el2n_epochs: EL2N looks at the first so many epochs only; None: at all that are recorded.
    """

    def __init__(self, n_examples: int, task: Task, *, el2n_epochs: int | None = None) -> None:
        self.task = task
        self._over = OverEpochs(n_examples, recorded_names(task), el2n_epochs=el2n_epochs)

    @torch.no_grad()
    def __call__(self, epoch: int, batch: Batch, outputs: Any) -> None:
        """Add one batch of one epoch.

        Shapes:
            ``outputs``, or the logits in them, is ``(batch, classes)``; for regression like the targets, or ``(batch, 1)``.
        Raises:
            ShapeError: the outputs have another shape.
        """
        self._over.add(epoch, batch.index.cpu(), judge(self.task, outputs, batch))

    def tensors(self) -> dict[str, Tensor]:
        """Return what was recorded so far, as float32 on the CPU.

        Shapes:
            ``(n,)`` each, and ``(n, classes)`` for ``probability``.
        Raises:
            RunError: some example was never seen.
        """
        self._over.check_all_seen()
        return self._over.tensors()
