"""How does a recipe's ``model`` become a network?

A built-in by its name, or the user's ``module:function``. Weights are drawn from the run's seed alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from prunus.core.code.imports import call, resolve
from prunus.core.errors import ModelError, UnknownNameError, near
from prunus.core.recipes.recipe import Model
from prunus.core.runtime import seeded
from prunus.core.text import shown
from prunus.models.builtin import builders

__all__ = ["build", "check_builder"]


def build(config: Model, *, input_shape: Sequence[int], n_outputs: int | None, seed: int) -> nn.Module:
    """Return a fresh model; ``config.weights`` is not looked at.

    The function gets ``input_shape`` and ``n_outputs`` if they stand in its signature and ``model.args`` doesn't give them; an
    empty shape and None are what nobody knows, and aren't given.

    Raises:
        UnknownNameError: there is no such built-in.
        ModelError: no such function, an argument that it doesn't take, it fails, or what it returns is no ``nn.Module``.
    """

    known: dict[str, Any] = {"input_shape": tuple(input_shape)} if input_shape else {}
    known |= {} if n_outputs is None else {"n_outputs": n_outputs}

    def made() -> Any:
        with seeded(seed, "init"):
            return call(
                _builder(config),
                config.args,
                what=f"model.builder {config.builder}",
                key="model.args",
                error=ModelError,
                offered=known,
            )

    if not config.is_function and torch.get_default_device().type != "meta":
        with torch.device("meta"):  # a width may be a typing error, or come from elsewhere
            _check_size(made(), config)
    model = made()
    if not isinstance(model, nn.Module):
        raise ModelError(f"model.builder {config.builder} must return an nn.Module, got {type(model).__name__}")
    lazy = [
        name
        for name, value in (*model.named_parameters(), *model.named_buffers())
        if isinstance(value, UninitializedParameter | UninitializedBuffer)
    ]
    if lazy:
        raise ModelError(
            f"model.builder {config.builder}: {lazy[0]!r} has no shape yet; run one input through lazy layers in the builder"
        )
    return model


def check_builder(config: Model) -> None:
    """Refuse a built-in model that there isn't; functions are looked for when they are called.

    Raises:
        UnknownNameError: it names the near ones.
    """
    if not config.is_function:
        _builder(config)


def _check_size(model: nn.Module, config: Model) -> None:
    """Refuse a model that doesn't fit into this machine before any of it is allocated."""
    needed = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise ModelError(
            f"model.builder {config.builder}: these model.args make a model of {needed / 1e9:.0f} GB, expected at most the "
            f"{memory / 1e9:.0f} GB of memory here: {shown(config.args)}; make it smaller"
        )


def _builder(config: Model) -> Callable[..., Any]:
    name = config.builder
    if config.is_function:
        return resolve(name, error=ModelError)
    if name not in builders:
        raise UnknownNameError(f"unknown model.builder {name!r}, and no module:function: {near(name, builders)}")
    return builders[name]
