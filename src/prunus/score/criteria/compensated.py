"""Criteria whose removals are made good by the weights that stay: what does a weight cost if the others may answer?

The formula is the first look only: ``pipeline`` removes column by column, and later columns are judged after they have taken
over the work of the earlier ones.
"""

from __future__ import annotations

from torch import Tensor

from prunus.score.criteria.criterion import criterion

__all__ = ["sparsegpt"]


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
