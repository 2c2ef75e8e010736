"""Criteria that read nothing but the weights: how large is a unit?

Each formula takes ``(units, ...)`` and returns ``(units,)``. For single weights, where a unit is one number, all the magnitudes are
the absolute value.
"""

from __future__ import annotations

from torch import Tensor

from prunus.score.criteria.criterion import criterion

__all__ = ["magnitude_l1", "magnitude_l2", "magnitude_linf", "random"]


@criterion("random", needs=("noise",))
def random(noise: Tensor) -> Tensor:
    """Return chance: the baseline that every other criterion has to beat.

    Units:
        None; uniform in [0, 1).
    """
    return noise.flatten(start_dim=1).mean(dim=1) if noise.ndim > 1 else noise


@criterion("magnitude_l1", needs=("weight",), reference="Li et al., ICLR 2017, arXiv:1608.08710")
def magnitude_l1(weight: Tensor) -> Tensor:
    """Return the sum of the absolute values of each unit's weights.

    References:
        Li et al., ICLR 2017, arXiv:1608.08710.

    >>> import torch
    >>> magnitude_l1(torch.tensor([[3.0, -4.0], [1.0, 1.0]]))
    tensor([7., 2.])
    """
    return _rows(weight).abs().sum(dim=1)


@criterion("magnitude_l2", needs=("weight",), reference="Han et al., NeurIPS 2015, arXiv:1506.02626")
def magnitude_l2(weight: Tensor) -> Tensor:
    """Return the Euclidean norm of each unit's weights.

    References:
        Han et al., NeurIPS 2015, arXiv:1506.02626 (single weights); the norm is its form for units of many weights.

    >>> import torch
    >>> magnitude_l2(torch.tensor([[3.0, -4.0], [1.0, 0.0]]))
    tensor([5., 1.])
    """
    # For one number the absolute value is exact, where the square might overflow or vanish.
    rows = _rows(weight)
    return rows[:, 0].abs() if rows.shape[1] == 1 else rows.norm(dim=1)


@criterion("magnitude_linf", needs=("weight",))
def magnitude_linf(weight: Tensor) -> Tensor:
    """Return the largest absolute value among each unit's weights.

    >>> import torch
    >>> magnitude_linf(torch.tensor([[3.0, -4.0], [1.0, 0.0]]))
    tensor([4., 1.])
    """
    return _rows(weight).abs().amax(dim=1)


def _rows(tensor: Tensor) -> Tensor:
    return tensor.reshape(tensor.shape[0], -1)
