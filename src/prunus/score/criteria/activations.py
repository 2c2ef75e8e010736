"""Criteria that read activations: what does a unit hand on, and what does the calibration set make of it?

Statistics are taken over all calibration examples and positions. Outputs of a unit are read behind the nonlinearity that
follows its layer; where none does, at the layer itself.
"""

from __future__ import annotations

from torch import Tensor

from prunus.score.criteria.criterion import WIDTHS, criterion

__all__ = ["activation_mean", "activation_variance", "apoz", "block_influence", "wanda"]


@criterion(
    "wanda",
    needs=("weight", "input_norm"),
    reads="readers",
    compare="row",
    reference="Sun et al., ICLR 2024, arXiv:2306.11695",
)
def wanda(weight: Tensor, input_norm: Tensor) -> Tensor:
    """Return each weight's absolute value times the norm of the input that it reads; for channels, summed over their readers.

    Shapes:
        Both are ``(units, ...)``; the result is ``(units,)``.
    Units:
        Those of a layer's outputs. Single weights are compared within their row, the weights into one output.
    References:
        Sun et al., ICLR 2024, arXiv:2306.11695, for single weights. A channel's outputs are its readers' inputs: their norm is
        weighed with the weights that read it. The norm of a convolution's input is per channel, over all positions.

    >>> import torch
    >>> wanda(torch.tensor([[1.0, -2.0], [3.0, 0.0]]), torch.tensor([[2.0, 1.0], [0.5, 1.0]]))
    tensor([4.0000, 1.5000])
    """
    return (weight.abs() * input_norm).reshape(weight.shape[0], -1).sum(dim=1)


@criterion(
    "apoz",
    needs=("active_fraction",),
    reads="makers",
    granularities=WIDTHS,
    reference="Hu et al., 2016, arXiv:1607.03250",
)
def apoz(active_fraction: Tensor) -> Tensor:
    """Return how often each unit is active: one minus its average percentage of zeros (APoZ).

    Units:
        A share in [0, 1]. Active means above zero, so that a layer without a ReLU is read as if it had one.
    References:
        Hu et al., 2016, arXiv:1607.03250.
    """
    return _mean(active_fraction)


@criterion(
    "activation_mean",
    needs=("output_mean",),
    reads="makers",
    granularities=WIDTHS,
    reference="Molchanov et al., ICLR 2017, arXiv:1611.06440",
)
def activation_mean(output_mean: Tensor) -> Tensor:
    """Return the mean absolute value of each unit's outputs.

    References:
        Molchanov et al., ICLR 2017, arXiv:1611.06440. Behind a ReLU the absolute value is the value itself.
    """
    return _mean(output_mean)


@criterion(
    "activation_variance",
    needs=("output_variance",),
    reads="makers",
    granularities=WIDTHS,
    reference="Molchanov et al., ICLR 2017, arXiv:1611.06440",
)
def activation_variance(output_variance: Tensor) -> Tensor:
    """Return the variance of each unit's outputs: what hardly varies can become a constant.

    References:
        Molchanov et al., ICLR 2017, arXiv:1611.06440, who take its root.
    """
    return _mean(output_variance)


@criterion(
    "block_influence",
    needs=("block_cosine",),
    reads="blocks",
    granularities=("block",),
    reference="Men et al., 2024, arXiv:2403.03853 (ShortGPT)",
)
def block_influence(block_cosine: Tensor) -> Tensor:
    """Return how far each block turns what passes through it: one minus the mean cosine of its input and output.

    Units:
        In [0, 2]; 0 is a block that only stretches its input.
    References:
        Men et al., 2024, arXiv:2403.03853 (ShortGPT).
    """
    return 1 - _mean(block_cosine)


def _mean(values: Tensor) -> Tensor:
    return values.reshape(values.shape[0], -1).mean(dim=1)
