"""A sequence of tokens for another one, each token scored with the true ones before it at hand (teacher forcing).

What a model would write by itself isn't measured: that takes a search, and one wrong token changes all that follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from prunus.core.batch import Batch
from prunus.core.calls import described
from prunus.core.errors import DataError
from prunus.tasks.task import task
from prunus.tasks.text.tokens import TokenTask, check_tokens, labels_among, token_scores

__all__ = ["SequenceToSequence"]


@task("sequence_to_sequence")
@dataclass(frozen=True)
class SequenceToSequence(TokenTask):
    """Targets are the tokens to write, ``(n, tokens)``, -100 where none is asked, or ``labels`` among the inputs, which models of
    transformers take anyway; outputs ``(n, tokens, vocabulary)``, for the tokens at the same places.
    """

    labelled: ClassVar[bool] = False

    def read(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return scores and the tokens that they're for, -100 where none is asked."""
        n = len(batch.index)
        targets = batch.targets if batch.targets is not None else labels_among(batch.inputs)
        if targets is None:
            raise DataError(
                f"sequence_to_sequence: expected the tokens to write as targets, or as labels among the inputs: got "
                f"{described(batch.inputs)}"
            )
        labels = check_tokens(self.name, targets, n)
        scores = token_scores(self.name, outputs, n, labels.shape[1])
        return scores, check_tokens(self.name, labels, n, scores.shape[2]).to(scores.device)
