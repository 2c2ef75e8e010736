"""Criteria that read curvature: what does a unit cost once the slope of the loss is gone?

Near a minimum the first-order change vanishes and half of ``h w^2`` is what is left, with ``h`` the loss's second derivative.
"""

from __future__ import annotations

from torch import Tensor

from prunus.score.criteria.criterion import criterion

__all__ = ["fisher", "fisher_empirical", "obs", "taylor2"]


@criterion(
    "taylor2",
    needs=("weight", "gradient", "curvature"),
    reference="LeCun et al., NeurIPS 1989 (the series); Martens, JMLR 2020, arXiv:1412.1193 (Gauss-Newton)",
)
def taylor2(weight: Tensor, gradient: Tensor, curvature: Tensor) -> Tensor:
    """Return the second-order change in loss from zeroing each unit, with the Gauss-Newton diagonal as curvature.

    Shapes:
        All are ``(units, ...)``; the result is ``(units,)``.
    Units:
        Those of the loss. For a single weight it is exact where the loss is quadratic in the weights; in a unit of several
        weights their interactions are left out, as in OBD.
    References:
        The Gauss-Newton matrix is the Hessian without the curvature of the model itself: it is positive, equals the Fisher
        matrix for cross-entropy and squared error, and needs no double backward pass.

    >>> import torch
    >>> taylor2(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[4.0, 1.0]]))
    tensor([3.])
    """
    return (0.5 * curvature * weight.square() - gradient * weight).reshape(weight.shape[0], -1).sum(dim=1).abs()


@criterion("fisher", needs=("weight", "curvature"), reference="LeCun et al., NeurIPS 1989 (optimal brain damage)")
def fisher(weight: Tensor, curvature: Tensor) -> Tensor:
    """Return the change in loss from zeroing each unit at a minimum, by the diagonal of the Fisher matrix (OBD).

    Units:
        Those of the loss.
    References:
        LeCun et al., NeurIPS 1989. The Fisher matrix is the model's own (over the answers that it would give), which for
        cross-entropy and squared error is the Gauss-Newton matrix; ``fisher_empirical`` takes the given answers only.

    >>> import torch
    >>> fisher(torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 1.0]]))
    tensor([4.])
    """
    return 0.5 * (curvature * weight.square()).reshape(weight.shape[0], -1).sum(dim=1)


@criterion(
    "fisher_empirical",
    needs=("weight", "squared_gradient"),
    reference="Theis et al., 2018, arXiv:1801.05787 (Fisher pruning)",
)
def fisher_empirical(weight: Tensor, squared_gradient: Tensor) -> Tensor:
    """Return half of each weight's square times its mean squared per-example gradient, summed over the unit.

    Units:
        Those of the loss, squared, per unit of loss: a ranking, not a prediction.
    References:
        Theis et al., 2018, arXiv:1801.05787. The squares are of single examples' gradients: squares of a batch's mean gradient
        shrink with the batch and measure something else.
    """
    return fisher(weight, squared_gradient)


@criterion(
    "obs",
    needs=("weight", "inverse_gram"),
    reads="layers",
    compensation="afterwards",
    reference="Hassibi & Stork, NeurIPS 1992; Frantar & Alistarh, NeurIPS 2022, arXiv:2208.11580 (layer by layer)",
)
def obs(weight: Tensor, inverse_gram: Tensor) -> Tensor:
    """Return the rise of a layer's half mean squared output error when each weight goes and the rest of its row makes up for it.

    Shapes:
        ``inverse_gram`` holds, for each weight, the diagonal entry of the inverse of the mean outer product of the layer's inputs.
    Units:
        Those of the layer's outputs, squared. Units of several weights get the sum over their weights, each as if it went alone.

    >>> import torch
    >>> obs(torch.tensor([[2.0]]), torch.tensor([[0.5]]))
    tensor([4.])
    """
    return (weight.square() / (2 * inverse_gram)).reshape(weight.shape[0], -1).sum(dim=1)
