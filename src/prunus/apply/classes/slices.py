"""How do tensors lose positions, with everything that holds them?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prunus.apply.classes.layer_sizes import mend_module, rebuild_flat, refresh_hooked
from prunus.graph.tracing.states import canonical_states

__all__ = ["Slices", "slice_tensors"]


Slices = dict[tuple[str, tuple[tuple[int, bytes], ...]], tuple[Tensor, int]]
"""What is left of parameters, by name and the positions that stay, and its version: once something wrote there it is cut anew."""


def slice_tensors(model: nn.Module, along: Mapping[tuple[str, int], Tensor], known: Slices | None = None) -> None:
    """Slice tensors in place of the old ones, wherever they are tied, and let the attributes of torch's layers follow.

    Args:
        along: for each tensor (by canonical name) and dimension that loses something, which positions stay (bool).
        known: slices of the same model's parameters that are looked up and added to.
    """
    states = canonical_states(model)
    names = {id(value): name for name, value in states.items()}
    masks: dict[int, dict[int, Tensor]] = {}
    for (name, dim), mask in along.items():
        masks.setdefault(id(states[name]), {})[dim] = mask
    sliced: dict[int, Tensor] = {}
    for module in reversed(list(model.modules())):  # parts before the whole that counts them
        kept: dict[str, Tensor] = {}
        trained = {name for name, _ in module._parameters.items()}  # a scripted module's are plain tensors to Python
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None or id(tensor) not in masks:
                continue
            if id(tensor) not in sliced:
                looked_up = known if name in trained else None
                value = _cut_or_known(names[id(tensor)], tensor, masks[id(tensor)], looked_up)
                trains = tensor.requires_grad
                sliced[id(tensor)] = nn.Parameter(value, requires_grad=trains) if name in trained else value
            if 0 in masks[id(tensor)]:
                kept[name] = masks[id(tensor)][0]
            setattr(module, name, sliced[id(tensor)])
            # The constructor can't make it any more: from now on it is saved with the weights.
            module._non_persistent_buffers_set.discard(name)
        refresh_hooked(module)
        rebuild_flat(module)
        mend_module(module, kept)


def _cut_or_known(name: str, tensor: Tensor, masks: Mapping[int, Tensor], known: Slices | None) -> Tensor:
    if known is None:
        return _cut(tensor, masks)
    key = name, tuple((dim, mask.numpy().tobytes()) for dim, mask in sorted(masks.items()))
    found = known.get(key)
    if found is None or found[0]._version != found[1]:
        value = _cut(tensor, masks)
        found = known[key] = value, value._version
    return found[0]


@torch.no_grad()
def _cut(tensor: Tensor, masks: Mapping[int, Tensor]) -> Tensor:
    """Return what is left of a tensor, in its memory format."""
    value = tensor.detach()
    for dim, mask in masks.items():
        value = value.index_select(dim, torch.nonzero(mask).flatten().to(tensor.device))
    return value.contiguous(memory_format=_format_of(tensor))


def _format_of(tensor: Tensor) -> torch.memory_format:
    """Return the format that says how a tensor lies in memory: a model in channels-last stays so."""
    if not tensor.is_contiguous():
        for dims, kind in ((4, torch.channels_last), (5, torch.channels_last_3d)):
            if tensor.dim() == dims and tensor.is_contiguous(memory_format=kind):
                return kind
    return torch.contiguous_format
