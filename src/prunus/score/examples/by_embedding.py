"""What is each training example worth, by where it lies among the others?

These criteria read embeddings of the model that the short training gives; higher means *keep*.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.score.examples.example_criteria import example_criterion
from prunus.score.examples.neighbours import nearest_neighbours

__all__ = ["density", "moderate", "prototype"]

_NEIGHBOURS = 10


@example_criterion(
    "prototype", needs=("embedding", "label"), reference="Sorscher et al., NeurIPS 2022, arXiv:2206.14486"
)
def prototype(embedding: Tensor, label: Tensor) -> Tensor:
    """Return the distance to the mean of the class: typical examples go first, wrong labels and strange examples stay.

    References:
        They measure it to the means of k-means in an embedding learnt without labels; here the classes are the clusters.

    >>> prototype(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 0, 1])).tolist()
    [0.5, 0.5, 0.0]
    """
    return _to_the_centre(embedding, label)


@example_criterion("moderate", needs=("embedding", "label"), reference="Xia et al., ICLR 2023, OpenReview 7D5EECbOaf9")
def moderate(embedding: Tensor, label: Tensor) -> Tensor:
    """Return how near the distance to the class's mean is to the median of the class: the very typical and the strange go first.

    >>> moderate(torch.tensor([[-3.0], [0.0], [1.0], [2.0]]), torch.tensor([0, 0, 0, 0])).tolist()
    [-2.0, -1.0, 0.0, -1.0]
    """
    distance = _to_the_centre(embedding, label)
    found = torch.empty_like(distance)
    for number in set(label.tolist()):
        own = label == number
        found[own] = -(distance[own] - distance[own].median()).abs()
    return found


@example_criterion("density", needs=("embedding",))
def density(embedding: Tensor) -> Tensor:
    """Return the mean distance to the ten nearest others: examples in a crowd go first, of whatever task.

    >>> density(torch.tensor([[0.0], [0.0], [3.0]])).tolist()
    [1.5, 1.5, 3.0]
    """
    near = nearest_neighbours(embedding, _NEIGHBOURS, metric="euclidean")
    found = torch.empty(len(embedding))
    for start in range(0, len(embedding), 1024):
        block = slice(start, start + 1024)
        found[block] = (embedding[near[block]] - embedding[block, None]).norm(dim=2).mean(dim=1)
    return found


def _to_the_centre(embedding: Tensor, label: Tensor) -> Tensor:
    found = torch.empty(len(embedding))
    for number in set(label.tolist()):
        own = label == number
        found[own] = (embedding[own] - embedding[own].double().mean(dim=0).float()).norm(dim=1)
    return found
