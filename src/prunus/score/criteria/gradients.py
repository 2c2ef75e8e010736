"""Criteria that read gradients: how far would the loss move if a unit vanished?

Gradients are means over the calibration examples. No function here sees a model: ``score.evidence.gather`` gathers what ``needs``
names in one pass.
"""

from __future__ import annotations

from torch import Tensor

from prunus.core.errors import ShapeError
from prunus.score.criteria.criterion import criterion

__all__ = ["gradient", "movement", "taylor", "taylor_sum"]


@criterion(
    "gradient", needs=("gradient",), reference="Karnin, IEEE Transactions on Neural Networks 1(2), 1990 (sensitivity)"
)
def gradient(gradient: Tensor) -> Tensor:
    """Return the sum of the absolute values of each unit's loss gradients.

    Units:
        Those of the loss per unit of weight, so scores compare within one loss only. Where training has converged all mean
        gradients are small, and what is left is mostly noise: ``taylor`` is the better use of the same evidence.

    >>> import torch
    >>> gradient(torch.tensor([[1.0, -2.0], [0.0, 0.5]]))
    tensor([3.0000, 0.5000])
    """
    return gradient.reshape(gradient.shape[0], -1).abs().sum(dim=1)


@criterion(
    "taylor",
    needs=("weight", "gradient"),
    reference="Molchanov et al., CVPR 2019, arXiv:1906.10771; Ma et al., NeurIPS 2023, arXiv:2305.11627",
)
def taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    """Return the sum of the first-order changes in loss from zeroing each weight of a unit, by their absolute values.

    Shapes:
        ``weight`` and ``gradient`` are ``(units, ...)``; the result is ``(units,)``.
    Units:
        Those of the loss (nats for cross-entropy), so scores compare within one loss only. An upper bound of ``taylor_sum``.
    Raises:
        ShapeError: ``weight`` and ``gradient`` differ in shape.
    References:
        Molchanov et al., CVPR 2019, arXiv:1906.10771, for the product; Ma et al., NeurIPS 2023, arXiv:2305.11627 (section 3.2,
        element-wise importance), for adding it up weight by weight. Effects inside a unit don't cancel: the mean gradient of a
        trained model is small, and what is left of a signed sum is mostly noise.

    >>> import torch
    >>> taylor(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[1.0, -1.0], [0.5, 9.0]]))
    tensor([3.0000, 1.5000])
    """
    return _changes("taylor", weight, gradient).abs().sum(dim=1)


@criterion("taylor_sum", needs=("weight", "gradient"), reference="Molchanov et al., CVPR 2019, arXiv:1906.10771")
def taylor_sum(weight: Tensor, gradient: Tensor) -> Tensor:
    """Return the first-order change in loss from zeroing each unit as a whole.

    Shapes:
        ``weight`` and ``gradient`` are ``(units, ...)``; the result is ``(units,)``.
    Units:
        Those of the loss (nats for cross-entropy), so scores compare within one loss only.
    Raises:
        ShapeError: ``weight`` and ``gradient`` differ in shape.
    References:
        Molchanov et al., CVPR 2019, arXiv:1906.10771. They square the sum; the absolute value ranks units identically.

    >>> import torch
    >>> taylor_sum(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[1.0, -1.0], [0.5, 9.0]]))
    tensor([1.0000, 1.5000])
    """
    # Sum first, then take the absolute value: opposite effects inside one unit do cancel.
    return _changes("taylor_sum", weight, gradient).sum(dim=1).abs()


@criterion("movement", needs=("movement",), signed=True, reference="Sanh et al., NeurIPS 2020, arXiv:2005.07683")
def movement(movement: Tensor) -> Tensor:
    """Return how far a short training moves each unit away from zero: minus weight times gradient, over all steps.

    Units:
        Those of the loss; below zero, training shrinks the unit.
    References:
        Sanh et al., NeurIPS 2020, arXiv:2005.07683. Their constant learning rate changes no order.
    """
    return movement.reshape(movement.shape[0], -1).sum(dim=1)


def _changes(name: str, weight: Tensor, gradient: Tensor) -> Tensor:
    if weight.shape != gradient.shape:
        raise ShapeError(
            f"{name} needs one gradient per weight: got weight {tuple(weight.shape)} and gradient {tuple(gradient.shape)}"
        )
    return (weight * gradient).reshape(weight.shape[0], -1)
