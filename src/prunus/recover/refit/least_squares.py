"""Which weights of a pruned layer come closest to what the layer computed before?

One problem in many dresses: choose the change ``D`` of the weight, on its support, that minimises ``|D x - r|² + damping |D|²``
over the inputs ``x``, where the residual ``r`` is what the outputs lack. Masked weights, cut inputs, moved inputs and the bias
only differ in what ``r`` and the support are. Damping pulls to the weights as they are, so that a layer which lacks nothing
does not change at all.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prunus.core.errors import RunError, ShapeError

__all__ = ["conjugate_gradients", "least_squares", "least_squares_inputs", "obs_update", "reconstruct"]

_CHUNK_BYTES = 1 << 26
_EXACT_OPERATIONS = 1e9
"""Up to this many multiplications, one system per row is solved exactly; beyond it all rows descend together."""


@torch.no_grad()
def reconstruct(cross: Tensor, gram: Tensor, mask: Tensor | None = None, *, damping: float = 0.01) -> Tensor:
    """Return the change ``D`` of the weight that minimises ``mean |D x - r|² + damping mean(diag(gram)) |D|²``.

    Args:
        cross: mean of ``r xᵀ``, the residual outputs times the inputs.
        gram: mean of ``x xᵀ``.
        mask: which weights may change, row by row; without it all do.
        damping: as a share of the mean of ``gram``'s diagonal.

    The systems of wide layers' rows are solved together by conjugate gradients, to a residual of 1e-4 or for 100 steps; smaller
    ones exactly.

    Shapes:
        ``cross`` and ``mask`` are ``(units, fan_in)``, ``gram`` ``(fan_in, fan_in)``.

    Raises:
        ShapeError: shapes that don't fit.
        RunError: moments that aren't finite, or a singular system.

    >>> reconstruct(torch.tensor([[2.0, 4.0]]), 2 * torch.eye(2), torch.tensor([[True, False]]), damping=0.0)
    tensor([[1., 0.]])
    """
    if gram.shape != (cross.shape[1],) * 2 or (mask is not None and mask.shape != cross.shape):
        got = f"{tuple(cross.shape)}, {tuple(gram.shape)}" + ("" if mask is None else f", {tuple(mask.shape)}")
        raise ShapeError(f"cross (units, fan_in), gram (fan_in, fan_in) and mask (units, fan_in) must fit: got {got}")
    system = _damped(gram, damping)
    wide = cross.to(system.dtype)
    if mask is None or bool(mask.all()):
        return _solve(system, wide.t()).t().to(cross.dtype).contiguous()
    support = int(mask.sum(dim=1).max())
    if len(wide) * support**3 / 3 > _EXACT_OPERATIONS:
        return _descend(cross, gram, mask, damping)
    change = torch.zeros_like(wide)
    index = _padded_support(mask)
    step = max(1, _CHUNK_BYTES // (8 * index.shape[1] ** 2 + 1))
    for first in range(0, len(wide), step):
        rows = slice(first, first + step)
        at = index[rows]  # (rows, support), padded by -1
        real = at >= 0
        at = at.clamp_min(0)
        blocks = system[at.unsqueeze(2), at.unsqueeze(1)]
        both = real.unsqueeze(2) & real.unsqueeze(1)
        # What is padding becomes an equation of its own, x = 0.
        blocks = torch.where(both, blocks, torch.eye(at.shape[1], dtype=blocks.dtype, device=blocks.device))
        found = _solve(blocks, (wide[rows].gather(1, at) * real).unsqueeze(2)).squeeze(2)
        change[rows] = change[rows].scatter_add(1, at, found * real)
    return change.to(cross.dtype)


@torch.no_grad()
def obs_update(weight: Tensor, gram: Tensor, mask: Tensor, *, damping: float = 0.01) -> Tensor:
    """Return the weight that is zero outside ``mask`` and whose outputs are nearest to those of ``weight``.

    This is what Optimal Brain Surgeon converges to when all removals of a row are made good at once, in closed form: exact for
    every row, at the price of one small system per row (for wide layers ``sparsegpt_prune`` with the mask is the fast
    approximation).

    Shapes:
        ``weight`` and ``mask`` are ``(units, fan_in)``, ``gram`` ``(fan_in, fan_in)``.

    Raises:
        ShapeError: shapes that don't fit.
        RunError: moments that aren't finite, or a singular system.

    References:
        Hassibi and Stork, NeurIPS 1992; Kurtic et al., EMNLP 2022, arXiv:2203.07259, for groups of weights.

    >>> gram = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    >>> obs_update(torch.tensor([[1.0, 1.0]]), gram, torch.tensor([[True, False]]), damping=0.0)
    tensor([[1.5000, 0.0000]])
    """
    kept = weight * mask
    lost = (weight - kept).to(gram.dtype)
    return kept + reconstruct((lost @ gram).to(weight.dtype), gram, mask, damping=damping)


def least_squares(
    weight: Tensor, gram: Tensor, mask: Tensor, *, mean: Tensor | None = None, damping: float = 0.01
) -> tuple[Tensor, Tensor]:
    """Return the best weight on a mask, and what to add to the bias.

    Args:
        mean: the inputs' mean; with it the bias takes over the mean of what goes, and the weights make good only the rest.

    Shapes:
        ``weight`` is ``(units, fan_in)``, ``gram`` ``(fan_in, fan_in)``, ``mean`` ``(fan_in,)``; the bias change ``(units,)``.
    """
    if mean is None:
        return obs_update(weight, gram, mask, damping=damping), weight.new_zeros(len(weight))
    centred = gram - torch.outer(mean, mean).to(gram.dtype)
    new = obs_update(weight, centred, mask, damping=damping)
    return new, (weight - new) @ mean.to(weight.dtype)


def least_squares_inputs(
    weight: Tensor, gram: Tensor, kept: Tensor, *, mean: Tensor | None = None, damping: float = 0.01
) -> tuple[Tensor, Tensor]:
    """Return the best weight on the inputs that stay, ``W G[:, S] G[S, S]⁻¹``, and what to add to the bias.

    Damping is added to ``G`` before it is indexed, so that it pulls to the old weights and not to zero.

    Shapes:
        ``kept`` holds the positions that stay; for a convolution's matrices those of unfolded inputs. The weight that comes
        back is
        ``(units, len(kept))``.

    >>> gram = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    >>> least_squares_inputs(torch.tensor([[1.0, 2.0]]), gram, torch.tensor([0]), damping=0.0)[0]
    tensor([[3.]])
    """
    if mean is not None:
        gram = gram - torch.outer(mean, mean).to(gram.dtype)
    dropped = torch.ones(weight.shape[1], dtype=torch.bool, device=weight.device)
    dropped[kept] = False
    cross = weight[:, dropped].to(gram.dtype) @ gram[dropped][:, kept]
    scale = float(gram.diagonal().mean()) / max(float(gram.diagonal()[kept].mean()), 1e-30)
    change = reconstruct(cross.to(weight.dtype), gram[kept][:, kept], damping=damping * scale)
    new = weight[:, kept] + change
    if mean is None:
        return new, weight.new_zeros(len(weight))
    mean = mean.to(weight.dtype)
    return new, weight[:, dropped] @ mean[dropped] - change @ mean[kept]


def _damped(gram: Tensor, damping: float) -> Tensor:
    """Return ``gram`` in double precision with the damping on its diagonal."""
    mean = float(gram.diagonal().mean())
    if not mean < float("inf"):
        raise RunError(
            f"the second moments of a layer's inputs must be finite: got a mean of {mean}; look for NaN in the model"
        )
    system = gram.to(torch.float64, copy=True)
    system.diagonal().add_(damping * mean if mean > 0 else 1.0)
    return system


def _descend(cross: Tensor, gram: Tensor, mask: Tensor, damping: float, *, steps: int = 100) -> Tensor:
    """Solve every row's masked system by conjugate gradients; one step of all rows is one matrix product."""
    kind = torch.promote_types(cross.dtype, torch.float32)
    system = _damped(gram, damping).to(kind)
    # Scaled to a diagonal of ones, systems of inputs of very different sizes need far fewer steps.
    scale = system.diagonal().rsqrt()
    system = system * scale * scale.unsqueeze(1)
    change = conjugate_gradients(cross.to(kind) * scale * mask, lambda rows: (rows @ system).mul_(mask), steps=steps)
    return (change * scale).to(cross.dtype)


def conjugate_gradients(right: Tensor, times: Callable[[Tensor], Tensor], *, steps: int) -> Tensor:
    """Return ``X`` with ``times(X) = right``, up to a residual of 3e-4 or for so many steps; each row is a system of its own.

    ``times`` multiplies every row with one symmetric positive definite matrix, which needn't exist anywhere.

    >>> conjugate_gradients(torch.tensor([[2.0, 3.0]]), lambda rows: rows * torch.tensor([1.0, 2.0]), steps=2)
    tensor([[2.0000, 1.5000]])
    """
    residual = right.clone()
    change, direction = torch.zeros_like(residual), residual.clone()
    square = residual.square().sum(dim=-1, keepdim=True)
    target = square * 1e-7
    for _ in range(steps):
        image = times(direction)
        length = square / (direction * image).sum(dim=-1, keepdim=True).clamp_min(1e-30)
        change.addcmul_(direction, length)
        residual.addcmul_(image, length, value=-1)
        before, square = square, residual.square().sum(dim=-1, keepdim=True)
        if bool((square <= target).all()):
            break
        direction.mul_(square / before.clamp_min(1e-30)).add_(residual)
    return change


def _padded_support(mask: Tensor) -> Tensor:
    """Return the positions of what stays in each row, padded to one length by -1."""
    longest = max(int(mask.sum(dim=1).max()), 1)
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, :longest]
    return torch.where(mask.gather(1, order), order, -1)


def _solve(system: Tensor, right: Tensor) -> Tensor:
    lower, failed = torch.linalg.cholesky_ex(system)
    if bool(failed.any()):
        raise RunError(
            "the second moments of a layer's inputs aren't positive definite: use more calibration examples or a larger damping"
        )
    return torch.cholesky_solve(right, lower)
