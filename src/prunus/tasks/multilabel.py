"""Any number of labels for each example, each there or not: a logit per label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prunus.core.batch import Batch
from prunus.core.calls import described
from prunus.core.errors import DataError, ShapeError
from prunus.core.predictions import Prediction, check_outputs_finite
from prunus.core.types import Floats
from prunus.tasks.counts import Tally, counted
from prunus.tasks.one_tensor import leading_tensor
from prunus.tasks.task import Choices, Observed, Task, task

__all__ = ["MultiLabel"]


@task("multilabel")
@dataclass(frozen=True)
class MultiLabel(Task):
    """Targets are 0 or 1 (or truth values) for each label, ``(n, labels)``; outputs are logits of that shape.

    A label is said to be there where its logit is above 0: a probability over one half.
    """

    reads: ClassVar[tuple[str, ...]] = ("n_right", "n_there", "n_said")
    class_names: tuple[str, ...] = ()

    def check(self, outputs: Any, batch: Batch) -> None:
        """See that there is a logit for each 0 or 1."""
        targets, n = batch.targets, len(batch.index)
        if not isinstance(targets, Tensor) or targets.ndim != 2 or len(targets) != n:
            raise DataError(f"multilabel: expected a 0 or 1 for each label, ({n}, labels): got {described(targets)}")
        whole = targets if targets.dtype == torch.bool else (targets == 0) | (targets == 1)
        if targets.dtype != torch.bool and not bool(whole.all()):
            wrong = targets[~whole][0].item()
            raise DataError(f"multilabel: expected 0 or 1 for each label: got {wrong}")
        if self.class_names and targets.shape[1] != len(self.class_names):
            raise DataError(
                f"multilabel: expected a column for each of {len(self.class_names)} labels: got {described(targets)}"
            )
        self._logits(outputs, batch)

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the mean binary cross-entropy of an example's labels, in nats."""
        logits = self._logits(outputs, batch)
        targets = batch.targets.to(logits.dtype)
        return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)

    def observe(self, outputs: Any, batch: Batch) -> Observed:
        """Return which labels are there, which are said to be, which are both, and the logits that rank."""
        logits = self._logits(outputs, batch).detach().cpu()
        there, said = batch.targets.cpu() > 0, logits > 0
        true = there.numpy()
        return {
            "true": true,
            "n_there": true,
            "n_said": said.numpy(),
            "n_right": (there & said).numpy(),
            "right": (there == said).all(dim=1).numpy(),
            "scores": logits.numpy().astype(np.float32),
        }

    def totals(self, observed: Observed, weights: Floats) -> Tally:
        """Return the counts per label."""
        return counted(observed, weights)

    def choices(self, outputs: Any, batch: Batch) -> Choices:
        """Return, of each label of each example, the scores of its being away and there."""
        logits = self._logits(outputs, batch)
        scores = torch.stack([torch.zeros_like(logits), logits], dim=2).flatten(0, 1)
        example = torch.arange(len(logits), device=logits.device)[:, None].expand(logits.shape)
        return Choices(scores, (batch.targets > 0).long().flatten(), example.flatten())

    def decode(self, outputs: Any) -> Prediction:
        """Return the labels of each example, and the probability of every one (they don't sum to 1)."""
        logits = leading_tensor(outputs)
        check_outputs_finite(logits)
        if logits.ndim != 2 or logits.shape[1] != (len(self.class_names) or logits.shape[1]):
            raise ShapeError(
                f"outputs of several labels must be (n, {len(self.class_names) or 'labels'}), one logit per label: "
                f"got {tuple(logits.shape)}"
            )
        names = self.class_names or tuple(str(label) for label in range(logits.shape[1]))
        said = (logits > 0).tolist()
        labels = tuple([name for name, there in zip(names, row, strict=True) if there] for row in said)
        return Prediction(labels, torch.sigmoid(logits.detach().double()).float())

    def _logits(self, outputs: Any, batch: Batch) -> Tensor:
        found = leading_tensor(outputs)
        if found.shape != batch.targets.shape:
            raise ShapeError(
                f"multilabel: expected one logit per label, {tuple(batch.targets.shape)}: got {tuple(found.shape)}"
                + ("" if found is outputs else f" in {described(outputs)}")
            )
        return found.float()
