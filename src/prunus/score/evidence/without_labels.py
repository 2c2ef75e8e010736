"""What does a gradient tell where there are no labels?

How the answers themselves would move. For scores of classes a label is drawn from the model's own probabilities, so that mean
squares are those of the Fisher matrix; other numbers are added with random signs, so that mean squares are those of the outputs'
derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from prunus.core.calls import answers
from prunus.core.runtime import generator

if TYPE_CHECKING:
    from prunus.data import Batch

__all__ = ["probe_loss"]


def probe_loss(
    measure: Literal["relative", "kl", "kl_last", "boxes"], *, seed: int = 0
) -> Callable[[Any, Batch], Tensor]:
    """Return a loss of outputs and a batch that needs no targets; its draws hang on the seed and the batch's first position alone.

    Args:
        measure: what the outputs are, as for :func:`prunus.recover.distance`: scores of classes along dimension 1 (``kl``) or along
            the last one (``kl_last``), or any numbers (``relative``, ``boxes``).

    References:
        Kunstner et al., NeurIPS 2019, arXiv:1905.12558 (labels drawn from the model, against the given ones).
    """

    def loss(outputs: Any, batch: Batch) -> Tensor:
        draw = generator(seed, "score", "probe", int(batch.index[0]))
        values = [_drawn(found, measure, draw) for found in answers(outputs)]
        return torch.stack([value.to(torch.promote_types(value.dtype, torch.float32)) for value in values]).sum() / len(
            batch.index
        )

    return loss


def _drawn(outputs: Tensor, measure: str, draw: torch.Generator) -> Tensor:
    """Return the sum over examples of minus the log-probability of what was drawn, or of the outputs with random signs."""
    if measure in ("relative", "boxes") or outputs.dim() < 2:
        signs = torch.randint(0, 2, outputs.shape, generator=draw) * 2 - 1
        moved: Tensor = (outputs * signs.to(outputs)).sum() / outputs.shape[1:].numel() ** 0.5
        return moved
    scores = outputs.movedim(1 if measure == "kl" else -1, -1)
    if scores.shape[-1] == 1:
        scores = torch.cat([torch.zeros_like(scores), scores], dim=-1)
    flat = scores.reshape(-1, scores.shape[-1])
    shares = flat.detach().double().softmax(dim=1).cpu()
    labels = torch.multinomial(shares, 1, generator=draw).squeeze(1).to(flat.device)
    return functional.cross_entropy(flat, labels, reduction="sum") * (len(scores) / len(flat))
