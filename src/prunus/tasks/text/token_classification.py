"""A class for each token: names of persons and places, parts of speech."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from prunus.core.batch import Batch
from prunus.core.calls import described
from prunus.core.errors import ShapeError
from prunus.core.predictions import Prediction, check_outputs_finite
from prunus.core.types import Floats
from prunus.tasks.counts import Tally, counted
from prunus.tasks.one_tensor import leading_tensor
from prunus.tasks.task import Observed, task
from prunus.tasks.text.tagged_spans import Tagging, span_counts
from prunus.tasks.text.tokens import IGNORED, TokenTask, check_tokens, token_scores

__all__ = ["TokenClassification"]


@task("token_classification")
@dataclass(frozen=True)
class TokenClassification(TokenTask):
    """Targets are class numbers, ``(n, tokens)``, -100 where none is asked; outputs ``(n, tokens, classes)``.

    Where ``class_names`` are tags (``O``, ``B-PER``, ``I-PER`` ...), F1, precision and recall count spans, without the tokens that
    aren't asked; else they count tokens.
    """

    reads: ClassVar[tuple[str, ...]] = ("n_right", "n_there", "n_said")
    class_names: tuple[str, ...] = ()

    @property
    def counted_names(self) -> tuple[str, ...]:
        """The names of what is counted: of types of spans, or of classes."""
        tagging = Tagging.of(self.class_names)
        return self.class_names if tagging is None else tagging.kinds

    def observe(self, outputs: Any, batch: Batch) -> Observed:
        """Return the counts of tokens, and of spans or classes."""
        scores, labels = self.read(outputs, batch)
        n, n_classes = len(labels), scores.shape[2]
        asked = (labels != IGNORED).cpu()
        said = scores.detach().argmax(dim=2).cpu()[asked].numpy()
        true = labels.cpu()[asked].numpy()
        example = torch.arange(n)[:, None].expand(labels.shape)[asked].numpy()
        tagging = Tagging.of(self.class_names)
        if tagging is not None:
            right, there, found = span_counts(tagging, true, said, example, n)
        else:
            right, there, found = (
                np.bincount((example * n_classes + classes)[which], minlength=n * n_classes).reshape(n, n_classes)
                for classes, which in ((true, true == said), (true, slice(None)), (said, slice(None)))
            )
        return {**super().observe(outputs, batch), "n_right": right, "n_there": there, "n_said": found}

    def totals(self, observed: Observed, weights: Floats) -> Tally:
        """Return the counts of spans, per type, or of tokens, per class."""
        return counted(observed, weights)

    def decode(self, outputs: Any) -> Prediction:
        """Return the most likely class of each token."""
        scores = leading_tensor(outputs)
        check_outputs_finite(scores)
        if scores.ndim != 3 or scores.shape[2] != (len(self.class_names) or scores.shape[2]):
            raise ShapeError(
                f"token_classification: expected scores (n, tokens, {len(self.class_names) or 'classes'}): got "
                f"{tuple(scores.shape)}"
            )
        numbers = scores.argmax(dim=2).tolist()
        return Prediction(tuple([self.class_names[c] if self.class_names else str(c) for c in row] for row in numbers))

    def read(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return scores and class numbers of tokens."""
        n = len(batch.index)
        labels = check_tokens(self.name, batch.targets, n)
        scores = token_scores(self.name, outputs, n, labels.shape[1])
        if self.class_names and scores.shape[2] != len(self.class_names):
            raise ShapeError(
                f"token_classification: expected a score for each of {len(self.class_names)} classes: got {described(scores)}"
            )
        return scores, check_tokens(self.name, labels, n, scores.shape[2]).to(scores.device)
