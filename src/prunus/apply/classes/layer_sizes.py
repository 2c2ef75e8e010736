"""Which numbers does a layer hold about its own sizes, and what are they after the cut?

Sizes are read off the sliced parameters, so this table only says which attribute follows which dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

__all__ = ["mend_module", "rebuild_flat", "refresh_hooked"]


def mend_module(module: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Make the size attributes of one layer of ``torch.nn`` fit its (sliced) tensors.

    Args:
        kept: for each tensor of the module that lost something along dimension 0, which positions stayed (bool).
    """
    if isinstance(module, nn.modules.conv._ConvNd):
        _mend_convolution(module, kept.get("weight"))
    elif isinstance(module, nn.Linear | nn.Bilinear):
        module.out_features = module.weight.shape[0]
        if isinstance(module, nn.Linear):
            module.in_features = module.weight.shape[1]
        else:
            module.in1_features, module.in2_features = module.weight.shape[1:]
    elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        _follow(module, "num_features")
    elif isinstance(module, nn.GroupNorm):
        each = module.num_groups == module.num_channels
        _follow(module, "num_channels")
        if each:  # a group for each channel goes with its channel
            module.num_groups = module.num_channels
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
        if module.weight is not None:
            module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()
    elif isinstance(module, nn.RNNBase):
        _mend_recurrent(module)
    elif isinstance(module, nn.RNNCellBase):
        module.hidden_size = module.weight_hh.shape[1]
        module.input_size = module.weight_ih.shape[1]
    elif isinstance(module, nn.MultiheadAttention):
        _mend_attention(module)
    elif isinstance(module, nn.Transformer):
        width = next((part.embed_dim for part in module.modules() if isinstance(part, nn.MultiheadAttention)), None)
        module.d_model = width or module.d_model


def _follow(module: nn.Module, attribute: str) -> None:
    for name in ("weight", "running_mean"):
        tensor = getattr(module, name, None)
        if tensor is not None:
            setattr(module, attribute, tensor.shape[0])


def _mend_convolution(module: nn.modules.conv._ConvNd, kept: Tensor | None) -> None:
    groups = module.groups
    if groups > 1 and kept is not None:
        # A group of which nothing is left is gone.
        groups = int(kept.view(groups, -1).any(dim=1).sum())
    module.groups = groups
    if module.transposed:
        module.in_channels, module.out_channels = module.weight.shape[0], module.weight.shape[1] * groups
    else:
        module.in_channels, module.out_channels = module.weight.shape[1] * groups, module.weight.shape[0]


def _mend_recurrent(module: Any) -> None:
    module.input_size = module.weight_ih_l0.shape[1]
    module.hidden_size = module.weight_hh_l0.shape[0] // (
        4 if isinstance(module, nn.LSTM) else 3 if isinstance(module, nn.GRU) else 1
    )
    if module.proj_size:
        module.proj_size = module.weight_hr_l0.shape[0]
    module.flatten_parameters()


def _mend_attention(module: nn.MultiheadAttention) -> None:
    """Follow the embedding; the heads must still tile it, which the comparison with the trace checks."""
    if module.in_proj_weight is not None:
        module.embed_dim = module.kdim = module.vdim = module.in_proj_weight.shape[1]
    else:
        module.embed_dim = module.q_proj_weight.shape[1]
    module.head_dim = max(module.embed_dim // module.num_heads, 1)


def rebuild_flat(module: nn.Module) -> None:
    """Give a recurrent layer its flat list of weights anew."""
    if isinstance(module, nn.RNNBase):
        module._flat_weights = [getattr(module, name, None) for name in module._flat_weights_names]
        torch.nn.RNNBase.flatten_parameters(module)


@torch.no_grad()
def refresh_hooked(module: nn.Module) -> None:
    """Compute anew the weights that a hook of ``torch.nn.utils`` makes before every call, from the parameters that it reads."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod | SpectralNorm | WeightNorm):
            training, module.training = module.training, False  # training moves the vectors of a spectral norm on
            hook(module, None)
            module.training = training
