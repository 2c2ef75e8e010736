"""Where in a model do its units lie, and which outputs of its layers are left without some of them?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from prunus.core.types import Bools, Ints
from prunus.graph import Group
from prunus.pipeline.cut.prunable import layer_of
from prunus.pipeline.cut.sensitivity import Zeroed

__all__ = ["kept_outputs", "n_weights", "slices_at", "weights_at"]


def weights_at(model: nn.Module, name: str, units: Ints, gone: Bools) -> Zeroed:
    """Return where the weights of some units lie."""
    return [(model.get_parameter(name), None, torch.from_numpy(units[gone].ravel()))]


def slices_at(model: nn.Module, group: Group, gone: Bools) -> Zeroed:
    """Return where the parameters of some units of a group lie."""
    parameters = dict(model.named_parameters())
    which = torch.from_numpy(gone)
    return [
        (parameters[member.tensor], member.dim, member.index[which].flatten())
        for member in group.members
        if member.is_parameter
    ]


def n_weights(model: nn.Module, group: Group) -> int:
    """Return how many matrices and kernels lose a slice with each unit; those of modules that leave whole count as one."""
    parameters = dict(model.named_parameters())
    return max(1, sum(m.is_parameter and parameters[m.tensor].ndim > 1 for m in group.members))


def kept_outputs(model: nn.Module, groups: Sequence[Group], keep: Mapping[str, Bools]) -> dict[str, Tensor]:
    """Return which outputs of each layer of the uncut ``model`` stay, by the layer's name; a batch norm's are its channels.

    What is left of a recurrent layer's states goes by the names of the weights that read them.
    """
    stays: dict[str, Tensor] = {}
    held = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    sizes = {
        name: tensor.shape[0] for name, tensor in held if tensor.dim() and name.endswith(("weight", "running_mean"))
    }
    states = {
        f"{name}.{key}".removeprefix("."): weight.shape[1]
        for name, module in model.named_modules()
        if isinstance(module, nn.RNNBase)
        for key, weight in module.named_parameters(recurse=False)
        if key.startswith("weight_hh")
    }
    for group in groups:
        for member in group.members:
            if member.dim == 0 and group.name in keep and member.tensor in sizes:
                mask = stays.setdefault(layer_of(member.tensor), torch.ones(sizes[member.tensor], dtype=torch.bool))
                mask[member.index[torch.from_numpy(~keep[group.name])].flatten()] = False
            elif member.dim == 1 and group.name in keep and member.tensor in states:
                mask = stays.setdefault(member.tensor, torch.ones(states[member.tensor], dtype=torch.bool))
                mask[member.index[torch.from_numpy(~keep[group.name])].flatten()] = False
    return {name: mask.nonzero().flatten() for name, mask in stays.items()}
