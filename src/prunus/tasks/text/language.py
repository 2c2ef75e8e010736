"""The next token, at each place of a text: causal language models as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from prunus.core.batch import Batch
from prunus.core.calls import described, tensors
from prunus.core.errors import DataError
from prunus.tasks.task import task
from prunus.tasks.text.tokens import IGNORED, TokenTask, check_tokens, labels_among, token_scores

__all__ = ["Language"]


@task("language")
@dataclass(frozen=True)
class Language(TokenTask):
    """Targets are the tokens themselves, ``(n, tokens)``; outputs ``(n, tokens, vocabulary)``.

    Without targets they're ``labels`` among the inputs, or the inputs' own tokens.

    The scores at one place are for the token at the next. A token isn't asked where it is -100, or where ``attention_mask`` among
    the inputs says that it or the one before it is padding. With ``targets_are_next``, targets were moved by one place already.
    """

    labelled: ClassVar[bool] = False
    targets_are_next: bool = False

    def check(self, outputs: Any, batch: Batch) -> None:
        """See that there are scores for each token."""
        self.read(outputs, batch)
        ids = _ids(batch.inputs)
        if not isinstance(batch.targets, Tensor) or ids is None or self.targets_are_next:
            return
        here, moved = batch.targets[:, :-1], ids[:, 1:] if ids.shape == batch.targets.shape else None
        if moved is None or here.numel() == 0:
            return
        asked = here != IGNORED
        if bool(asked.any()) and bool((here == moved)[asked].all()) and not bool((here == ids[:, :-1])[asked].all()):
            raise DataError(
                "language: targets are the next tokens of the inputs: expected the tokens themselves, which are moved by one here; "
                "leave the targets out, or say Language(targets_are_next=True)"
            )

    def read(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return scores and the tokens that they're for, -100 where none is asked."""
        labels = self._labels(batch)
        scores = token_scores(self.name, outputs, len(labels), labels.shape[1])
        if not self.targets_are_next:
            scores, labels = scores[:, :-1], labels[:, 1:]
        return scores, check_tokens(self.name, labels, len(labels), scores.shape[2]).to(scores.device)

    def weight_of(self, batch: Batch) -> Tensor | int:
        """Return how many tokens are asked, as the inputs say where nothing else does."""
        labels = self._labels(batch)
        return ((labels if self.targets_are_next else labels[:, 1:]) != IGNORED).sum()

    def _labels(self, batch: Batch) -> Tensor:
        """Return the token of each place, -100 where none is asked; which place's scores are for it isn't said yet."""
        n = len(batch.index)
        targets = batch.targets if batch.targets is not None else labels_among(batch.inputs)
        if targets is None:
            targets = _ids(batch.inputs)
        if targets is None:
            raise DataError(
                f"language: expected token ids as targets or among the inputs, ({n}, tokens): got {described(batch.inputs)}"
            )
        labels = check_tokens(self.name, targets, n)
        mask = batch.inputs.get("attention_mask") if isinstance(batch.inputs, Mapping) else None
        if isinstance(mask, Tensor) and mask.shape == labels.shape:
            real = mask > 0
            if not self.targets_are_next:
                real = real & real.roll(1, dims=1)
            labels = labels.where(real.to(labels.device), IGNORED)
        return labels


def _ids(inputs: Any) -> Tensor | None:
    """Return the token ids among the inputs: what is called so, or the first whole numbers."""
    named = inputs.get("input_ids") if isinstance(inputs, Mapping) else None
    if isinstance(named, Tensor):
        return named
    found = (one for _, one in tensors(inputs) if one.ndim == 2 and not one.is_floating_point())
    return next(found, None)
