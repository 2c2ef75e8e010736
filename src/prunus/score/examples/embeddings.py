"""Where does an example lie in the model's own space?

The embedding is what the model's last layer with a weight matrix reads: the space in which it draws its class borders. Where that
layer reads many positions of an example (pixels, tokens), it is their mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunus.core.calls import call
from prunus.core.errors import ModelError

if TYPE_CHECKING:
    from prunus.data import Examples

__all__ = ["embed", "principal_plane"]


def embed(model: nn.Module, examples: Examples, *, batch_size: int = 512) -> Tensor:
    """Return one embedding per example, on the CPU.

    Shapes:
        ``(n, features)``: the input of the last linear or convolutional layer that ran, averaged over positions.
    Raises:
        ModelError: the model ran no such layer.
    """
    seen: list[Tensor] = []

    def remember(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        features = arguments[0]
        convolution = module.weight.dim() > 2  # type: ignore[operator]
        positions = tuple(range(2, features.dim()) if convolution else range(1, features.dim() - 1))
        seen[:] = [features.mean(dim=positions) if positions else features]

    layers = [m for m in model.modules() if isinstance(getattr(m, "weight", None), Tensor) and m.weight.dim() >= 2]  # type: ignore[operator]
    hooks = [layer.register_forward_pre_hook(remember) for layer in layers]
    training = model.training
    rows = []
    try:
        model.eval()
        with torch.inference_mode():
            for batch in examples.batches(batch_size):
                call(model, batch.inputs)
                if not seen:
                    raise ModelError(
                        "neighbours need an embedding, but the model ran no layer with a weight matrix: leave out examples.relabel"
                    )
                rows.append(seen[0].reshape(len(batch.index), -1).float().cpu().clone())
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return torch.cat(rows)


def principal_plane(rows: Tensor) -> tuple[Tensor, float]:
    """Return where rows lie in the plane in which they spread most, and the share of their variance that it holds.

    The sign of each axis is that which makes its largest component positive, so that the same rows give the same picture.

    Shapes:
        ``rows`` is ``(n, features)``; the result ``(n, 2)``, with zeros where there is no second direction.

    >>> place, share = principal_plane(torch.tensor([[0.0, 0.0, 5.0], [2.0, 0.0, 5.0], [4.0, 0.0, 5.0]]))
    >>> place[:, 0].tolist(), share
    ([-2.0, 0.0, 2.0], 1.0)
    """
    centred = rows.double() - rows.double().mean(dim=0)
    spread, axes = torch.linalg.eigh(centred.T @ centred)
    axes = axes[:, -2:].flip(1)
    axes = axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    place = torch.zeros(len(rows), 2, dtype=torch.float64)
    place[:, : axes.shape[1]] = centred @ axes
    total = float(spread.clamp(min=0).sum())
    return place.float(), min(1.0, float(spread[-2:].clamp(min=0).sum()) / total) if total > 0 else 1.0
