"""How does a pruned model recover through a few extra numbers only, that leave no trace in its structure?

Low-rank adapters stand beside its layers while it trains, and are added to the weights after it. What a mask holds at zero stays
zero: the adapters' part of it is taken out while training, too, so that the merged model is the one that was trained.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prunus.core.code.extras import require
from prunus.core.errors import ModelError, RecipeError, near
from prunus.core.recipes.recipe import Lora
from prunus.core.runtime import seeded

__all__ = ["adaptable_layers", "adapters", "check_lora"]

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def check_lora(model: nn.Module, config: Lora) -> None:
    """Find out before any training that LoRA can't be used.

    Raises:
        MissingExtraError: peft isn't installed.
        RecipeError: a pattern fits no layer.
        ModelError: there is no layer to adapt.
    """
    require("peft", extra="lora")
    adaptable_layers(model, config)


def adaptable_layers(model: nn.Module, config: Lora) -> list[str]:
    """Return the names of the linear and convolution layers that ``config`` adapts.

    Layers whose weight another one shares are left out (merging would change both), and those that their parent reads without
    calling them, as ``nn.MultiheadAttention`` does.

    Raises:
        RecipeError: a pattern fits none of them.
        ModelError: there are none.
    """
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    inside = {
        id(child)
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention)
        for child in module.modules()
    }
    names = [
        name
        for name, module in model.named_modules()
        if name and isinstance(module, _LAYERS) and id(module) not in inside and _is_plain(module, uses)
    ]
    if not names:
        raise ModelError("recovery.method lora: the model has no linear or convolution layer to adapt: use fine_tune")
    own = {name: name.removeprefix("inner.") for name in names}  # a model whose input features were cut wraps the other
    for pattern in config.modules:
        if not fnmatch.filter(own.values(), pattern):
            raise RecipeError(
                f"recovery.lora.modules: {pattern!r} fits no layer that can be adapted; {near(pattern, own.values())}"
            )
    chosen = config.modules or ("*",)
    return [name for name in names if any(fnmatch.fnmatchcase(own[name], pattern) for pattern in chosen)]


def _is_plain(layer: nn.Module, uses: Counter[int]) -> bool:
    weight = layer._parameters.get("weight")  # a parametrized layer has none
    return weight is not None and uses[id(weight)] == 1 and getattr(layer, "groups", 1) == 1


@contextmanager
def adapters(model: nn.Module, config: Lora, keep: Mapping[str, Tensor], *, seed: int, stage: str) -> Iterator[None]:
    """Let only low-rank adapters learn inside the block, and merge them into the weights after it.

    Args:
        model: changed in place; after the block its modules are those that it had, with other values.
        keep: masks by parameter name, True where a weight stays: the others' part of an adapter is taken out.

    References:
        Hu et al., ICLR 2022, arXiv:2106.09685. Masks as in SQFT (Muñoz et al., 2024, arXiv:2410.03750).
    """
    peft = require("peft", extra="lora")
    names = adaptable_layers(model, config)
    required = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=0.0, target_modules="|".join(map(re.escape, names))
    )
    with seeded(seed, stage, "adapters"):
        peft.inject_adapter_in_model(settings, model)
    layers = {name: model.get_submodule(name) for name in names}
    handles = [
        layer.register_forward_hook(_TakeOut(~keep[f"{name}.weight"]))
        for name, layer in layers.items()
        if f"{name}.weight" in keep
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            for name, layer in layers.items():
                _merge(model, name, layer, keep.get(f"{name}.weight"))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(required[name])


def _merge(model: nn.Module, name: str, layer: Any, keep: Tensor | None) -> None:
    layer.merge()
    plain: nn.Module = layer.get_base_layer()
    if keep is not None:
        weight = plain.get_parameter("weight")
        weight.masked_fill_(~keep.to(weight.device), 0)
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, plain)


class _TakeOut:
    """Subtract from a layer's output what its adapter does through weights that are gone."""

    def __init__(self, gone: Tensor) -> None:
        self.gone = gone

    def __call__(self, layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        plain = layer.get_base_layer()
        (name,) = layer.active_adapters
        unwanted = layer.get_delta_weight(name).masked_fill(~self.gone.to(output.device), 0)
        values = {"weight": unwanted.to(plain.weight.dtype)}
        if plain.bias is not None:
            values["bias"] = torch.zeros_like(plain.bias)
        extra: Tensor = torch.func.functional_call(plain, values, inputs)
        return output - extra
