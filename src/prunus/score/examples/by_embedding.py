"""What is each training example worth, by where it lies among the others?

These criteria read embeddings of the model that the short training gives; higher means *keep*.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.score.examples.example_criteria import example_criterion
from prunus.score.examples.farthest_first import farthest_first
from prunus.score.examples.neighbours import nearest_neighbours

__all__ = ["density", "k_centre", "moderate", "prototype"]

_NEIGHBOURS = 10
_MOST_PICKS = 100_000


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
        found[own] = 0 - (distance[own] - distance[own].median()).abs()
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


@example_criterion("k_centre", needs=("embedding",), reference="Sener and Savarese, ICLR 2018, arXiv:1708.00489")
def k_centre(embedding: Tensor) -> Tensor:
    """Return how early greedy k-centre picks an example: what stays leaves no example far from all of it, of whatever task.

    Outliers are picked early: clean first where labels may be wrong. Behind 100,000 picks examples aren't told apart.

    >>> k_centre(torch.tensor([[0.0], [1.0], [9.0], [4.0]])).tolist()
    [2.0, 1.0, 3.0, 4.0]
    """
    order = farthest_first(embedding, min(len(embedding), _MOST_PICKS)).order
    found = torch.zeros(len(embedding))
    found[torch.from_numpy(order)] = torch.arange(len(order), 0, -1, dtype=torch.float32)
    return found


def _to_the_centre(embedding: Tensor, label: Tensor) -> Tensor:
    found = torch.empty(len(embedding))
    for number in set(label.tolist()):
        own = label == number
        found[own] = (embedding[own] - embedding[own].double().mean(dim=0).float()).norm(dim=1)
    return found
