"""How is a model set right after a cut, without training: its batch norms, its biases, its weights?

All three look at the calibration set once more. Weights and biases are fitted layer by layer, in the order of the calls, to
what the same layer of the uncut model gave: so each layer also makes good what the layers before it couldn't.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from prunus.recover.average import recompute_batch_norm
from prunus.recover.in_order import layers_in_order, moments_in_order
from prunus.recover.layer_inputs import Moments, matrices, set_matrices
from prunus.recover.refit import reconstruct

if TYPE_CHECKING:
    from prunus.data import Examples

__all__ = ["Adjustment", "adjust"]

Adjustment = Literal["batch_norm", "bias", "least_squares"]


def adjust(
    model: nn.Module,
    reference: nn.Module,
    examples: Examples,
    kinds: Sequence[Adjustment],
    *,
    kept: Mapping[str, Tensor] | None = None,
    folded: Mapping[str, Tensor] | None = None,
    masks: Mapping[str, Tensor] | None = None,
    batch_size: int = 256,
    damping: float = 0.01,
) -> list[str]:
    """Set ``model`` right in place, and return notes on layers for which it wasn't possible. It ends in evaluation mode.

    Args:
        model: after the cut.
        reference: before the cut; not changed but for its mode.
        examples: the calibration set.
        kinds: ``least_squares`` fits weights and biases, ``bias`` only the means of the outputs, ``batch_norm`` measures running
            statistics anew. They are done in this order, whatever order they are given in.
        kept: which outputs of the reference's layer are left, by the layer's name; without an entry all of them.
        folded: by what the outputs that are left were multiplied, by the layer's name; without an entry by 1.
        masks: single weights that stay (True), by parameter name: the others stay zero.
        damping: of the second moments, as a share of their mean: how strongly the weights are held where they are.

    References:
        He et al., ICCV 2017, arXiv:1707.06168 (least squares after channel pruning); Nagel et al., ICCV 2019, arXiv:1906.04721
        (bias correction).
    """
    notes: list[str] = []
    for kind in ("least_squares", "bias"):
        if kind in kinds:
            notes += _fit(
                model,
                reference,
                examples,
                kind == "least_squares",
                kept or {},
                folded or {},
                masks or {},
                batch_size,
                damping,
            )
    if "batch_norm" in kinds:
        recompute_batch_norm(model, examples, batch_size=batch_size, generator=torch.Generator().manual_seed(0))
    return notes


def _fit(
    model: nn.Module,
    reference: nn.Module,
    examples: Examples,
    weights: bool,
    kept: Mapping[str, Tensor],
    folded: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    batch_size: int,
    damping: float,
) -> list[str]:
    notes = []
    known = dict(reference.named_modules())
    layers: dict[str, nn.Module] = {}
    for name, layer in layers_in_order(model, examples).items():
        left = len(kept[name]) if name in kept else None
        if name not in known or _outputs(layer) != (left if left is not None else _outputs(known[name])):
            notes.append(f"{name}: isn't adjusted, since the uncut model has no layer that it could be compared with")
        else:
            layers[name] = layer
    for name, layer, moments in moments_in_order(
        model, layers, examples, reference=reference, kept=kept, folded=folded, batch_size=batch_size
    ):
        if weights and moments.count < moments.gram.shape[1]:
            notes.append(
                f"{name}: least squares needs at least {moments.gram.shape[1]} inputs to look at, one per weight of a unit: got "
                f"{moments.count}; raise data.split.calibration"
            )
        else:
            _fit_layer(layer, moments, masks.get(f"{name}.weight"), weights, damping)
    return notes


@torch.no_grad()
def _fit_layer(layer: Any, moments: Moments, mask: Tensor | None, weights: bool, damping: float) -> None:
    """Add to the weight and the bias what is best added."""
    assert moments.cross is not None
    assert moments.residual is not None
    gram, mean = moments.mean_gram, moments.total / moments.count
    cross, lacking = moments.cross / moments.count, moments.residual / moments.count
    weight = matrices(layer)
    change = torch.zeros_like(weight)
    if weights:
        if layer.bias is not None:  # it takes the means over, so the weights see deviations only
            gram = gram - mean.unsqueeze(2) * mean.unsqueeze(1)
            cross = cross - lacking.unsqueeze(2) * mean.unsqueeze(1)
        support = [None] * len(gram) if mask is None else list(matrices(layer, mask.to(weight.device)))
        parts = zip(cross, gram, support, strict=True)
        change = torch.stack([reconstruct(c, g, s, damping=damping) for c, g, s in parts]).to(weight.dtype)
        set_matrices(layer, weight + change)
    if layer.bias is not None:
        shift = lacking - (change.to(mean.dtype) @ mean.unsqueeze(2)).squeeze(2)
        layer.bias.add_(shift.reshape(-1).to(layer.bias.dtype))


def _outputs(layer: Any) -> int:
    return int(matrices(layer).shape[0] * matrices(layer).shape[1])
