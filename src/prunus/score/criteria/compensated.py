"""Criteria whose removals are made good by the weights that stay: what does a weight cost if the others may answer?

The formula is the first look only: ``pipeline`` removes column by column, and later columns are judged after they have taken
over the work of the earlier ones.
"""

from __future__ import annotations

from torch import Tensor

from prunus.score.criteria.criterion import WIDTHS, criterion

__all__ = ["reconstruction", "sparsegpt"]


@criterion(
    "sparsegpt",
    needs=("weight", "inverse_gram"),
    granularities=("weight",),
    compensation="column_by_column",
    reference="Frantar & Alistarh, ICML 2023, arXiv:2301.00774",
)
def sparsegpt(weight: Tensor, inverse_gram: Tensor) -> Tensor:
    """Return what a layer's outputs lose when each weight goes and the weights to its right make up for it.

    Shapes:
        ``inverse_gram`` holds, for each weight, the diagonal entry of the inverse second moments of the inputs from it on.
    Units:
        Those of the layer's outputs, squared.

    >>> import torch
    >>> sparsegpt(torch.tensor([[2.0]]), torch.tensor([[0.5]]))
    tensor([8.])
    """
    return (weight.square() / inverse_gram).reshape(weight.shape[0], -1).sum(dim=1)


@criterion(
    "reconstruction",
    needs=("weight", "inverse_gram"),
    reads="readers",
    granularities=WIDTHS,
    joint=True,
    reference="Meng et al., ICML 2024, arXiv:2403.12983 (OSSCAR); Hassibi & Stork, NeurIPS 1992",
)
def reconstruction(weight: Tensor, inverse_gram: Tensor) -> Tensor:
    """Return what the layers that read a unit lose when it goes and they are refitted, given which units have gone before.

    The formula is what a unit of one number per output loses alone; a group's units are judged together, one after the other, see
    :func:`prunus.score.elimination.eliminate`.

    Units:
        Shares of the readers' outputs' variance: the means are left to a bias or a batch norm.

    >>> import torch
    >>> reconstruction(torch.tensor([[2.0]]), torch.tensor([[0.5]]))
    tensor([8.])
    """
    return (weight.square() / inverse_gram).reshape(weight.shape[0], -1).sum(dim=1)
