"""Which examples should stay first, so that what stays stands for all?

The saliency of these criteria is how early an order picks an example, or whose turn it is: what stays of the highest is a coverage
at every size, and a larger share keeps all of a smaller one.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from prunus.core.types import Floats, Ints
from prunus.score.examples.cover.facility_location import facility_location as greedy_facilities
from prunus.score.examples.cover.herding import herding as herd
from prunus.score.examples.cover.k_means import k_means
from prunus.score.examples.example_criteria import example_criterion

__all__ = ["cluster_coverage", "cluster_distance", "coverage_centric", "facility_location", "herding", "in_turns"]

_MOST_CLUSTERS = 1024
_BINS = 50
_HARDEST = 0.1
"""The share of the hardest examples that goes first: where labels are wrong they are among them."""


@example_criterion(
    "facility_location", needs=("embedding",), reference="Mirzasoleiman et al., ICML 2020, arXiv:1906.01827"
)
def facility_location(embedding: Tensor) -> Tensor:
    """Return how early greedy facility location picks an example: what stays leaves each example a near one, of whatever task.

    >>> facility_location(torch.tensor([[0.0], [1.0], [2.0], [9.0]])).tolist()
    [1.0, 2.0, 4.0, 3.0]
    """
    return _earliness(greedy_facilities(embedding, len(embedding)).order)


@example_criterion("herding", needs=("embedding",), reference="Welling, ICML 2009")
def herding(embedding: Tensor) -> Tensor:
    """Return how early herding picks an example: what stays has the mean of all, of whatever task.

    >>> herding(torch.tensor([[0.0], [1.0], [5.0]])).tolist()
    [1.0, 3.0, 2.0]
    """
    return _earliness(herd(embedding, len(embedding)))


@example_criterion(
    "cluster_distance", needs=("embedding", "noise"), reference="Sorscher et al., NeurIPS 2022, arXiv:2206.14486"
)
def cluster_distance(embedding: Tensor, noise: Tensor) -> Tensor:
    """Return the distance to the nearest of the k-means centres: typical examples go first, strange ones stay, of whatever task.

    There are as many centres as the root of the number of examples, 1,024 at most.
    """
    return torch.from_numpy(k_means(embedding, _n_clusters(len(embedding)), noise=noise).distance)


@example_criterion("cluster_coverage", needs=("embedding", "noise"))
def cluster_coverage(embedding: Tensor, noise: Tensor) -> Tensor:
    """Return whose turn it is when k-means clusters give one example each by chance, again and again: none is left without.

    There are as many clusters as the root of the number of examples, 1,024 at most; small ones are kept whole first.
    """
    found = k_means(embedding, _n_clusters(len(embedding)), noise=noise)
    return in_turns(found.cluster, noise.double().numpy())


@example_criterion("coverage_centric", needs=("aum", "noise"), reference="Zheng et al., ICLR 2023, arXiv:2210.15809")
def coverage_centric(margin: Tensor, noise: Tensor) -> Tensor:
    """Return whose turn it is when bins of the margin give one example each by chance, again and again: CCS.

    The hardest tenth (the lowest margins) goes first, the hardest of all foremost; the others are in 50 bins of equal width.

    References:
        Their budget for each bin, of what others leave, is what turns come to; they tune the share of the hardest per budget.
    """
    value = margin.double().numpy()
    n_hardest = int(_HARDEST * len(value))
    order = np.argsort(value, kind="stable")
    hardest, others = order[:n_hardest], order[n_hardest:]
    found = torch.empty(len(value), dtype=torch.float64)
    low, high = value[others].min(), value[others].max()
    place = (value[others] - low) / (high - low) if high > low else np.zeros(len(others))
    turns = in_turns(np.minimum((_BINS * place).astype(np.int64), _BINS - 1), noise.double().numpy()[others])
    found[torch.from_numpy(others)] = turns
    found[torch.from_numpy(hardest)] = torch.arange(n_hardest, dtype=torch.float64) - n_hardest
    return found


def in_turns(group: Ints, rank: Floats) -> Tensor:
    """Return saliencies by which groups give one member each, their best by ``rank``, again and again as long as they have some.

    What stays at any size is the same number of each group, or all of it. Within a round the smaller group gives first.

    Shapes:
        All are ``(n,)``; the first in line has the highest saliency, n.

    >>> in_turns(np.array([0, 0, 0, 1]), np.array([0.1, 0.9, 0.5, 0.3])).tolist()
    [1.0, 3.0, 2.0, 4.0]
    """
    order = np.lexsort((-rank, group))
    _, first, own, size = np.unique(group[order], return_index=True, return_inverse=True, return_counts=True)
    turn = np.arange(len(order)) - first[own]
    line = order[np.lexsort((-rank[order], size[own], turn))]
    found = torch.empty(len(order), dtype=torch.float64)
    found[torch.from_numpy(line)] = torch.arange(len(order), 0, -1, dtype=torch.float64)
    return found


def _earliness(order: Ints) -> Tensor:
    found = torch.empty(len(order), dtype=torch.float64)
    found[torch.from_numpy(order)] = torch.arange(len(order), 0, -1, dtype=torch.float64)
    return found


def _n_clusters(n: int) -> int:
    return min(max(round(math.sqrt(n)), 1), _MOST_CLUSTERS)
