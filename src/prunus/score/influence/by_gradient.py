"""What is each training example worth, by the gradient that it has after the short training?"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from prunus.core.batch import Batched
from prunus.score.examples.example_criteria import example_criterion
from prunus.score.influence.gradient_norms import gradient_norms
from prunus.tasks import Task

__all__ = ["GRADIENT_NEEDS", "gradient_evidence", "grand", "last_gradient"]

GRADIENT_NEEDS = frozenset(("gradient", "last_gradient"))


@example_criterion("grand", needs=("gradient",), reference="Paul et al., NeurIPS 2021, arXiv:2107.07075")
def grand(norm: Tensor) -> Tensor:
    """Return the norm of the gradient by all weights: examples that would move the model least go first, wrong labels stay.

    References:
        They average over ten initialisations; here it is one, and ``prunus.score.gradient_norms`` takes several.
    """
    return norm


@example_criterion("last_gradient", needs=("last_gradient",), reference="Paul et al., NeurIPS 2021, arXiv:2107.07075")
def last_gradient(norm: Tensor) -> Tensor:
    """Return the norm of the gradient by the last layer alone: what would move it least goes first, wrong labels stay."""
    return norm


def gradient_evidence(model: nn.Module, examples: Batched, task: Task, needs: Collection[str]) -> dict[str, Tensor]:
    """Return what criteria of gradients read, of those that are needed, ``(n,)`` each.

    Raises:
        ModelError: the model runs no layer with a weight matrix, or the task has no loss of each example.
    """
    layers = {"gradient": None, "last_gradient": 1}
    return {
        need: torch.from_numpy(gradient_norms(model, examples, task, layers=layers[need], batch_size=512).value).float()
        for need in sorted(GRADIENT_NEEDS & set(needs))
    }
