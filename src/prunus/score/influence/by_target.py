"""What is each training example worth to others that say what the model is for?"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from prunus.core.batch import Batched
from prunus.score.examples.example_criteria import example_criterion
from prunus.score.influence.influence import influence
from prunus.tasks import Task

__all__ = ["INFLUENCE_NEEDS", "by_influence", "influence_evidence"]

INFLUENCE_NEEDS = frozenset(("influence",))


@example_criterion("influence", needs=("influence",), reference="Koh and Liang, ICML 2017, arXiv:1703.04730")
def by_influence(helps: Tensor) -> Tensor:
    """Return how far the mean loss of the target examples would rise without the example: what harms them goes first.

    References:
        The mean over three states of the short training, of its last two layers; see ``prunus.score.influence``.
    """
    return helps


def influence_evidence(
    checkpoints: Iterable[nn.Module],
    examples: Batched,
    target: Batched,
    task: Task,
    *,
    layers: int | None = 2,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Return the influence of each example on the mean loss of ``target``, and its standard error over the checkpoints.

    The error is NaN of one checkpoint, and a lower bound where they are of one training.

    Raises:
        ModelError: the model runs fewer layers with weights, or the task has no loss of each example.
        DataError: there are no examples, or no targets.
    """
    found = influence(checkpoints, examples, target, task, layers=layers, batch_size=512, seed=seed)
    return {"influence": torch.from_numpy(found.value), "influence_error": torch.from_numpy(found.error)}
