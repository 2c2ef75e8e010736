"""Criteria that read what sparsity-inducing training left: what did the penalty drive to zero?

The formulas are plain norms. ``regularizer`` tells the pipeline which penalty to train with before the score is taken.
"""

from __future__ import annotations

from torch import Tensor

from prunus.score.criteria.criterion import WIDTHS, criterion
from prunus.score.criteria.weight_norms import magnitude_l1, magnitude_l2

__all__ = ["bn_scale", "l0", "l1"]


@criterion(
    "l1",
    needs=("weight",),
    reference="Tibshirani, JRSS B 58(1), 1996; Yuan & Lin, JRSS B 68(1), 2006 (groups)",
    regularizer="l1",
)
def l1(weight: Tensor) -> Tensor:
    """Return the norm of each unit after training with an L1 penalty (on groups: the group lasso).

    References:
        Tibshirani, JRSS B 58(1), 1996, for single weights, where the norm is the absolute value; Yuan & Lin, JRSS B 68(1), 2006,
        for groups, whose penalty is the Euclidean norm.
    """
    return magnitude_l2(weight)


@criterion(
    "bn_scale",
    needs=("weight",),
    reference="Liu et al., ICCV 2017, arXiv:1708.06519",
    regularizer="bn_scale",
    reads="norm_scales",
    granularities=WIDTHS,
)
def bn_scale(weight: Tensor) -> Tensor:
    """Return the absolute value of each channel's normalisation scale after training with an L1 penalty on the scales.

    References:
        Liu et al., ICCV 2017, arXiv:1708.06519 (network slimming).
    """
    return magnitude_l1(weight)


@criterion("l0", needs=("weight",), reference="Louizos et al., ICLR 2018, arXiv:1712.01312", regularizer="l0")
def l0(weight: Tensor) -> Tensor:
    """Return the norm of each unit after training with gates that an L0 penalty closes; a closed unit has exactly 0.

    References:
        Louizos et al., ICLR 2018, arXiv:1712.01312 (hard concrete gates).
    """
    return magnitude_l2(weight)
