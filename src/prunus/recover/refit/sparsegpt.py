"""How is a matrix pruned so that each removal is made good by the weights that are still to come?

Columns go from left to right. What a removed weight did for the output is passed on to the columns on its right, by the rows of
the Cholesky factor of the inverse second moments, which is the exact optimum for that order. Masks are chosen block by block,
on weights that have already taken over the work of the blocks before.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from prunus.core.errors import RunError, ShapeError
from prunus.recover.refit.mask_patterns import check_amount, check_pattern, largest

__all__ = ["inverse_factor", "sparsegpt_prune"]

_LEAF = 16
"""Up to this many columns are swept one by one; wider stretches are halved, and the halves meet in one matrix product."""


@torch.no_grad()
def sparsegpt_prune(
    weight: Tensor,
    gram: Tensor,
    *,
    keep_fraction: float | None = None,
    n_m: tuple[int, int] | None = None,
    mask: Tensor | None = None,
    allowed: Tensor | None = None,
    block_size: int = 128,
    damping: float = 0.01,
    factor: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the pruned and compensated weight, and the mask of what stays.

    Args:
        weight: of a linear layer, or of a convolution over unfolded inputs.
        gram: mean (or sum) of ``x xᵀ`` over the layer's inputs.
        keep_fraction: share of the matrix that stays, exactly; each block of columns gets the same share.
        n_m: instead: N kept of every M inputs.
        mask: instead: what stays is decided already, and only the compensation is computed.
        allowed: True where a weight may stay; what an earlier round removed doesn't come back.
        block_size: columns whose mask is chosen at once; for N:M it is M.
        damping: added to the diagonal of ``gram``, as a share of its mean.
        factor: of :func:`inverse_factor`, if it is there already: layers that read the same input share it.

    Shapes:
        ``weight``, ``mask`` and ``allowed`` are ``(units, fan_in)``, ``gram`` ``(fan_in, fan_in)``.

    Raises:
        RecipeError: not exactly one of the three amounts, or M doesn't divide ``fan_in``.
        ShapeError: shapes that don't fit.
        RunError: ``gram`` isn't finite or positive definite.

    References:
        Frantar and Alistarh, ICML 2023, arXiv:2301.00774. Departures: the factor comes from one Cholesky decomposition of the
        reversed matrix instead of two and an inverse; counts are exact, not up to ties;
        the weights of an input that is always zero go first, and aren't all removed.

    >>> sparsegpt_prune(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0], [1.0, 1.0]]), keep_fraction=0.5, damping=1e-6)[1]
    tensor([[False,  True]])
    """
    fan_in = weight.shape[1]
    if gram.shape != (fan_in, fan_in):
        raise ShapeError(
            f"a weight {tuple(weight.shape)} needs a gram of ({fan_in}, {fan_in}): got {tuple(gram.shape)}"
        )
    if mask is None:
        check_amount(keep_fraction, n_m)
    if n_m is not None:
        check_pattern(fan_in, n_m)
    kind = torch.promote_types(weight.dtype, torch.float32)
    factor = inverse_factor(gram.to(kind), damping) if factor is None else factor.to(kind)
    # Columns as rows: every step of the sweep then reads and writes contiguous memory.
    columns = weight.to(kind).t().contiguous()
    gone = torch.zeros_like(columns, dtype=torch.bool) if mask is None else ~mask.t()
    barred = None if allowed is None else ~allowed.t()
    width = fan_in if mask is not None else block_size if n_m is None else n_m[1]
    diagonal, dead = factor.diagonal().unsqueeze(1), (gram.diagonal() == 0).unsqueeze(1)
    done = 0
    outer = max(width, block_size // width * width)
    for start in range(0, fan_in, outer):
        stop = min(start + outer, fan_in)
        errors = torch.empty_like(columns[start:stop])
        for first in range(start, stop, width):
            last = min(first + width, stop)
            if mask is None:
                saliency = (columns[first:last] / diagonal[first:last]).square_()
                saliency.masked_fill_(dead[first:last], 0)
                if barred is not None:
                    saliency.masked_fill_(barred[first:last], -1)
                if n_m is not None:
                    gone[first:last] = _lowest(saliency, n_m[1] - n_m[0], "column")
                else:
                    assert keep_fraction is not None
                    budget = columns.shape[1] * last - round(keep_fraction * columns.shape[1] * last)
                    gone[first:last] = _lowest(saliency, budget - done, "matrix")
                    done = budget
            _sweep(columns, gone, factor, errors, start, first, last)
            if last < stop:
                columns[last:stop].addmm_(
                    factor[first:last, last:stop].t(), errors[first - start : last - start], alpha=-1
                )
        if stop < fan_in:
            columns[stop:].addmm_(factor[start:stop, stop:].t(), errors, alpha=-1)
    columns.masked_fill_(gone, 0)
    return columns.t().to(weight.dtype).contiguous(), ~gone.t().contiguous()


def inverse_factor(gram: Tensor, damping: float) -> Tensor:
    """Return the upper triangular ``U`` with ``Uᵀ U`` the inverse of the damped ``gram``.

    Reversed in both dimensions, ``gram`` has a lower factor whose reversal ``V`` is upper triangular with ``V Vᵀ = gram``; then
    ``U`` is the inverse of ``V``.

    Raises:
        RunError: ``gram`` isn't finite or positive definite.
    """
    mean = float(gram.diagonal().mean())
    if not mean < float("inf"):
        raise RunError(
            f"the second moments of a layer's inputs must be finite: got a mean of {mean}; look for NaN in the model"
        )
    damped = gram.clone()
    damped.diagonal().add_(damping * mean if mean > 0 else 1.0)
    lower, failed = torch.linalg.cholesky_ex(damped.flip(0, 1))
    if failed:  # too few digits: once more with more of them
        lower, failed = torch.linalg.cholesky_ex(damped.double().flip(0, 1))
    if failed:
        raise RunError(
            f"the second moments of a layer's inputs aren't positive definite with damping {damping:g}: use more calibration "
            "examples or a larger damping"
        )
    upper = lower.flip(0, 1)
    identity = torch.eye(len(upper), dtype=upper.dtype, device=upper.device)
    inverse: Tensor = torch.linalg.solve_triangular(upper, identity, upper=True)
    return inverse.to(gram.dtype)


def _sweep(columns: Tensor, gone: Tensor, factor: Tensor, errors: Tensor, origin: int, first: int, last: int) -> None:
    """Remove what is ``gone`` from the columns ``first`` to ``last`` and pass its work on to the right, within them.

    ``errors[i - origin]`` receives what column i leaves to the columns after ``last``.
    """
    if last - first > _LEAF:
        middle = (first + last) // 2
        _sweep(columns, gone, factor, errors, origin, first, middle)
        left = errors[first - origin : middle - origin]
        columns[middle:last].addmm_(factor[first:middle, middle:last].t(), left, alpha=-1)
        _sweep(columns, gone, factor, errors, origin, middle, last)
        return
    ours, corner = columns[first:last], factor[first:last, first:last]
    scale = gone[first:last] / corner.diagonal().unsqueeze(1)
    left = errors[first - origin : last - origin]
    for i, (column, error) in enumerate(zip(ours.unbind(), left.unbind(), strict=True), 1):
        torch.mul(column, scale[i - 1], out=error)
        if i < len(ours):
            ours[i:].addr_(corner[i - 1, i:], error, alpha=-1)


def _lowest(saliency: Tensor, count: int, within: Literal["column", "matrix"]) -> Tensor:
    """Return a mask of the ``count`` lowest, among all or in each column; ties take the lower index first."""
    if within == "column":
        order = saliency.argsort(dim=0, stable=True)
        return torch.zeros_like(saliency, dtype=torch.bool).scatter_(0, order[:count], True)
    flat = saliency.flatten()
    if count <= 0:
        return torch.zeros_like(saliency, dtype=torch.bool)
    threshold = largest(flat.unsqueeze(0), len(flat) - count + 1)[0]
    below = flat < threshold
    ties = (flat == threshold).nonzero().flatten()[: count - int(below.sum())]
    below[ties] = True
    return below.view_as(saliency)
