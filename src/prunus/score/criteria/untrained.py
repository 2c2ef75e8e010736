"""Criteria for a network that hasn't learned yet: where will training need its weights?

At initialisation they are for ``train: {epochs: 0}``: prune first, then let recovery train what is left.
"""

from __future__ import annotations

from torch import Tensor

from prunus.score.criteria.criterion import criterion
from prunus.score.criteria.gradients import taylor

__all__ = ["grasp", "snip", "synflow"]


@criterion("snip", needs=("weight", "gradient"), reference="Lee et al., ICLR 2019, arXiv:1810.02340")
def snip(weight: Tensor, gradient: Tensor) -> Tensor:
    """Return the connection sensitivity of each unit: the absolute values of weight times gradient, summed.

    References:
        Lee et al., ICLR 2019, arXiv:1810.02340. Their division by the total changes no order. It is ``taylor``, at
        initialisation.

    >>> import torch
    >>> snip(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, -1.0]]))
    tensor([3.])
    """
    return taylor(weight, gradient)


@criterion(
    "grasp", needs=("weight", "hessian_gradient"), signed=True, reference="Wang et al., ICLR 2020, arXiv:2002.07376"
)
def grasp(weight: Tensor, hessian_gradient: Tensor) -> Tensor:
    """Return how much gradient flow is lost when each unit goes: weight times (Hessian times gradient).

    Units:
        Half of the squared gradient norm's change; below zero, the flow grows without the unit.
    References:
        Wang et al., ICLR 2020, arXiv:2002.07376, with the sign turned: theirs is high for what goes.

    >>> import torch
    >>> grasp(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, -1.0]]))
    tensor([-1.])
    """
    return _sum(weight * hessian_gradient)


@criterion("synflow", needs=("weight", "flow"), reference="Tanaka et al., NeurIPS 2020, arXiv:2006.05467")
def synflow(weight: Tensor, flow: Tensor) -> Tensor:
    """Return how much of the network's total flow of weight absolute values runs through each unit; no data is read.

    Shapes:
        ``flow`` is the derivative of the summed outputs, for inputs of ones, by the absolute values of the weights.
    References:
        Tanaka et al., NeurIPS 2020, arXiv:2006.05467. They prune in 100 rounds (``schedule``), which keeps layers from emptying.
    """
    return _sum((weight * flow).abs())


def _sum(values: Tensor) -> Tensor:
    return values.reshape(values.shape[0], -1).sum(dim=1)
