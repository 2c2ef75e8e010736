"""Which weight does a layer compute with, where hooks or parametrizations make it of other parameters?

``nn.utils.prune`` multiplies ``weight_orig`` by a mask, ``weight_norm`` makes it of a direction and a length, ``spectral_norm``
divides it, and parametrizations do whatever they do. The parameter that has the weight's shape stands for it; the others say
nothing of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

__all__ = ["effective_weights", "side_parameters"]


@torch.no_grad()
def effective_weights(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the value that each parameter gives its layer: its own, that of the weight made of it, or zeros.

    Shapes:
        Each is of its parameter's shape.

    >>> layer = torch.nn.utils.prune.identity(nn.Linear(2, 2), "weight")
    >>> layer.weight_mask.zero_()
    tensor([[0., 0.],
            [0., 0.]])
    >>> effective_weights(layer, dict(layer.named_parameters()))["weight_orig"].abs()
    tensor([[0., 0.],
            [0., 0.]])
    """
    found = {name: parameter.detach() for name, parameter in parameters.items()}
    name_of = {id(parameter): name for name, parameter in parameters.items()}
    for weight, main, others in _made(model):
        if id(main) in name_of:
            found[name_of[id(main)]] = weight.detach().to(main.dtype)
        for other in others:
            if id(other) in name_of:
                found[name_of[id(other)]] = torch.zeros_like(other)
    return found


@torch.no_grad()
def side_parameters(model: nn.Module) -> frozenset[int]:
    """Return the identities of parameters that only help to make a weight, like the lengths of ``weight_norm``."""
    return frozenset(id(other) for _, _, others in _made(model) for other in others)


def _made(model: nn.Module) -> Iterator[tuple[Tensor, nn.Parameter, list[nn.Parameter]]]:
    """Yield each weight that is made of others, the parameter that stands for it, and the other ones."""
    for module in model.modules():
        for hook in getattr(module, "_forward_pre_hooks", {}).values():
            if isinstance(hook, BasePruningMethod):
                masked: Tensor = hook.apply_mask(module)  # type: ignore[no-untyped-call]
                yield from _told(masked, [getattr(module, f"{hook._tensor_name}_orig")])
            elif isinstance(hook, WeightNorm):
                parts = [getattr(module, f"{hook.name}_{part}") for part in "gv"]
                yield from _told(hook.compute_weight(module), parts)
            elif isinstance(hook, SpectralNorm):
                whole = hook.compute_weight(module, do_power_iteration=False)
                yield from _told(whole, [getattr(module, f"{hook.name}_orig")])
        if is_parametrized(module):
            training = module.training
            module.eval()  # spectral_norm counts a step in training
            try:
                for name, made in cast("nn.ModuleDict", module.parametrizations).items():
                    originals = [part for _, part in made.named_parameters(recurse=False)]
                    yield from _told(getattr(module, name), originals)
            finally:
                module.train(training)


def _told(weight: Tensor, parts: list[nn.Parameter]) -> Iterator[tuple[Tensor, nn.Parameter, list[nn.Parameter]]]:
    alike = [part for part in parts if isinstance(part, nn.Parameter) and part.shape == weight.shape]
    if alike:
        main = alike[-1]
        yield weight, main, [part for part in parts if part is not main and isinstance(part, nn.Parameter)]
