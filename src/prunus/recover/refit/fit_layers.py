"""What is best added to a layer's weight and bias, so that it gives what the same layer gave before the cut?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from prunus.recover.refit.batch_norms import Spread, follow
from prunus.recover.refit.fit_wide import Solution, too_few, unformed
from prunus.recover.refit.formula import Saved, write_matrices
from prunus.recover.refit.layer_inputs import Moments, channel_dim, matrices, rows_in_parts
from prunus.recover.refit.least_squares import reconstruct
from prunus.recover.refit.sequential import Pair

__all__ = ["fit_bias", "fit_norm", "fit_weights", "loses_more", "moment_bytes"]


def moment_bytes(layer: nn.Module) -> int:
    """Return how much memory a least-squares fit of a layer takes at its worst: its second moments, and a system of equations."""
    groups, _, fan_in = matrices(layer).shape
    return (12 * groups + 28) * fan_in**2


@torch.no_grad()
def fit_weights(
    layer: Any, seen: Iterable[Pair], mask: Tensor | None, *, damping: float, memory_bytes: int | None = None
) -> str | None:
    """Add to the weight and the bias what least squares says; return why nothing was, or None.

    A layer whose second moments take more than ``memory_bytes`` is fitted without them: :func:`fit_wide.unformed`.
    """
    support = None if mask is None else matrices(layer, mask.to(layer.weight.device))
    if memory_bytes is not None and moment_bytes(layer) > memory_bytes:
        found = unformed(layer, seen, support, damping=damping, memory_bytes=memory_bytes)
    else:
        found = _from_moments(layer, seen, support, damping=damping)
    if isinstance(found, str):
        return found
    weight = matrices(layer)
    change = found.change.to(weight.dtype)
    if bool(change.any()) and not write_matrices(layer, weight + change):
        return "the parametrization of its weight has no place for the best one"
    if layer.bias is not None:
        shift = found.lacking - (change.to(found.mean.dtype) @ found.mean.unsqueeze(2)).squeeze(2)
        layer.bias.add_(shift.reshape(-1).to(layer.bias.dtype))
    return None


def _from_moments(layer: Any, seen: Iterable[Pair], support: Tensor | None, *, damping: float) -> Solution | str:
    moments = Moments.of(layer)
    for pair in seen:
        for rows, lacking in rows_in_parts(layer, pair.inputs, pair.wanted - pair.outputs):
            moments.add(rows, lacking)
    if moments.count < moments.gram.shape[1]:
        return too_few(moments.gram.shape[1], moments.count)
    assert moments.cross is not None
    assert moments.residual is not None
    gram, mean = moments.mean_gram, moments.total / moments.count
    cross, lacks = moments.cross / moments.count, moments.residual / moments.count
    if layer.bias is not None:  # it takes the means over, so the weights see deviations only
        gram = gram - mean.unsqueeze(2) * mean.unsqueeze(1)
        cross = cross - lacks.unsqueeze(2) * mean.unsqueeze(1)
    masks = [None] * len(gram) if support is None else list(support)
    change = [reconstruct(c, g, s, damping=damping) for c, g, s in zip(cross, gram, masks, strict=True)]
    return Solution(torch.stack(change), mean, lacks)


@torch.no_grad()
def fit_bias(layer: Any, seen: Iterable[Pair]) -> None:
    """Add to the bias what the outputs lack on average: no more of the inputs is needed than that."""
    total: Tensor | None = None
    count = 0
    for pair in seen:
        lacking = (
            (pair.wanted - pair.outputs)
            .double()
            .movedim(channel_dim(layer, pair.outputs.dim()), -1)
            .flatten(end_dim=-2)
        )
        total = lacking.sum(dim=0) if total is None else total + lacking.sum(dim=0)
        count += len(lacking)
    if total is not None and count:
        layer.bias.add_((total / count).to(layer.bias.dtype))


@torch.no_grad()
def fit_norm(norm: Any, seen: Iterable[Pair], kept: Tensor | None) -> None:
    """Let a batch norm's running statistics follow what the cut did to its inputs."""
    now, before = Spread(), Spread()
    for pair in seen:
        old = pair.old_inputs
        now.add(pair.inputs)
        before.add(old if kept is None else old.index_select(1, kept.to(old.device)))
    follow(norm, now, before)


@torch.no_grad()
def loses_more(layer: nn.Module, before: Saved, seen: Iterable[Pair]) -> bool:
    """Return whether the layer's outputs are further from those wanted than they were ``before``, which it ends as then."""
    now = Saved(layer)
    new = old = 0.0
    for pair in seen:
        new += float((pair.wanted - pair.outputs).double().square().sum())
        before.restore()
        old += float((pair.wanted - layer.forward(pair.inputs)).double().square().sum())
        now.restore()
    worse = not new <= old
    if worse:
        before.restore()
    return worse
