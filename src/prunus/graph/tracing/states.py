"""What are a model's tensors called, and how does it run on others in their place?

A tied tensor has one name: the first. A module that is registered under two names is one module: torch's own functional call
swaps its tensors twice and restores the wrong ones, so this is done here.
"""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunus.core.runtime import generator

__all__ = ["as_it_was", "canonical_states", "duplicate", "enlivened", "in_precision", "one_example", "running_on"]

M = TypeVar("M", bound=nn.Module)


def duplicate(model: M, values: Mapping[str, Tensor] | None = None) -> M:
    """Return a deep copy of ``model``, also where it holds tensors that torch refuses to copy: those with a gradient history.

    What the model cached for evaluation is forgotten in the copy, if training makes it forget: it was made of other weights.

    Args:
        values: tensors that the copy holds in place of copies of the model's, by canonical name.
    """
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for module in model.modules()
        for held in vars(module).values()
        for value in (held.values() if isinstance(held, dict) else held if isinstance(held, list | tuple) else [held])
        if isinstance(value, Tensor) and not value.is_leaf
    }
    for name, tensor in canonical_states(model).items():
        if values is not None and name in values:
            memo[id(tensor)] = _in_place_of(tensor, values[name])
    _copy_plain_modules(model, memo)
    twin = copy.deepcopy(model, memo)
    for module in twin.modules():
        for name, value in list(module._parameters.items()):
            if value is not None and not value.is_leaf:  # torch copies a scripted module's with a history
                setattr(module, name, nn.Parameter(value.detach(), requires_grad=value.requires_grad))
    modes = {module: module.training for module in twin.modules()}
    twin.train()
    twin.eval()
    for module, training in modes.items():
        module.training = training
    return twin


def _copy_plain_modules(model: nn.Module, memo: dict[int, Any]) -> None:
    """Copy the modules that leave copying to Python, into ``memo``, without asking each attribute how it is to be copied.

    Most of what a module holds is numbers, and mappings of hooks that are empty.
    """
    plain = [module for module in model.modules() if _is_copied_plainly(type(module))]  # type: ignore[arg-type]
    memo |= {id(module): type(module).__new__(type(module)) for module in plain}
    for module in plain:
        held = vars(memo[id(module)])
        for name, value in vars(module).items():
            if name == "_compiled_call_impl":
                continue  # it runs the module that it was compiled from
            if type(value) in _EMPTY and not value and id(value) not in memo:
                memo[id(value)] = type(value)()
            held[name] = value if type(value) in _ATOMS else copy.deepcopy(value, memo)


_ATOMS = (bool, int, float, str, type(None))
_EMPTY = (dict, OrderedDict, list, set)


@functools.cache
def _is_copied_plainly(kind: type[nn.Module]) -> bool:
    if hasattr(kind, "__deepcopy__") or issubclass(kind, torch.jit.ScriptModule):
        return False
    ways = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__new__")
    plain = (nn.Module, nn.modules.conv._ConvNd)  # a convolution's only fills in what old files lack
    return all(any(getattr(kind, way) is getattr(base, way) for base in plain) for way in ways)


def _in_place_of(tensor: Tensor, value: Tensor) -> Tensor:
    if isinstance(tensor, nn.Parameter) and not isinstance(value, nn.Parameter):
        return nn.Parameter(value, requires_grad=tensor.requires_grad)
    return value


@contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Undo afterwards what a block does to the modes of the modules and to what they hold: a cache would keep its tensors."""
    modes = {module: module.training for module in model.modules()}
    held = [(module, _shallow(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes in held:
            _give_back(module, attributes)
        for module, training in modes.items():
            module.training = training


def _shallow(attributes: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what a module holds besides tensors, modules and hooks, with copies of its lists and mappings (caches)."""
    own = {name: value for name, value in attributes.items() if not _is_torch(name)}
    return {name: (value, copy.copy(value) if type(value) in (dict, list) else None) for name, value in own.items()}


@functools.cache
def _is_torch(name: str) -> bool:
    return name in ("_parameters", "_buffers", "_modules", "training") or "hook" in name


def _give_back(module: nn.Module, attributes: dict[str, tuple[Any, Any]]) -> None:
    for name in [name for name in vars(module) if name not in attributes and not _is_torch(name)]:
        del vars(module)[name]
    for name, (value, copied) in attributes.items():
        if isinstance(value, dict) and copied is not None:
            value.clear()
            value.update(copied)
        elif isinstance(value, list) and copied is not None:
            value[:] = copied
        vars(module)[name] = value


def canonical_states(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters, then buffers, by their first name; a tied tensor comes once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def enlivened(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Return the states of ``model`` with noise in those that hold one value only, by canonical name.

    A head that starts at zero hides everything before it, and a scale of ones looks the same in any order: on such values a
    wrong coupling couldn't be seen. A buffer is one of these only beside a parameter of its shape (batch statistics).
    """
    draw = generator(seed, "enlivened")
    states = canonical_states(model)
    parameters = dict(model.named_parameters())
    beside = {(name.rpartition(".")[0], value.shape) for name, value in parameters.items()}
    for name, value in states.items():
        statistic = value.dim() == 1 and (name.rpartition(".")[0], value.shape) in beside
        if not (name in parameters or statistic) or not _is_constant(value):
            continue
        if value.dim() > 1:
            noise = torch.randn(value.shape, generator=draw) * (value[0].numel() ** -0.5)
        else:
            noise = torch.rand(value.shape, generator=draw) * 0.2 + 0.05  # a variance must stay positive
        states[name] = value.detach() + noise.to(value)
    return states


def in_precision(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a single-precision tensor as ``dtype``; all others are what they are for a reason."""
    return value.detach().to(dtype) if value.dtype == torch.float32 else value.detach()


def one_example(inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Return the first example of a batch, as inputs; None where the tensors' first dimensions aren't one of several examples."""
    given = (tuple(inputs), dict(kwargs))
    sizes = {leaf.shape[:1] for leaf in pytree.tree_leaves(given) if isinstance(leaf, Tensor)}
    if len(sizes) != 1 or not min(next(iter(sizes)), default=0) > 1:
        return None
    few: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map_only(Tensor, lambda tensor: tensor[:1], given)
    return few


def _is_constant(value: Tensor) -> bool:
    if not value.is_floating_point() or value.is_meta or value.numel() == 0:
        return False
    first = value.flatten()[0]
    if not torch.isfinite(first) or bool((value.flatten()[:64] != first).any()):  # most say so at once
        return False
    return bool((value == first).all()) and (value.numel() > 1 or not first)


@contextmanager
def running_on(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Let ``model`` hold ``values`` (by canonical name) for a block, wherever the tensors of that name are tied."""
    new = {id(tensor): values[name] for name, tensor in canonical_states(model).items() if name in values}
    held: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
    try:
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None and id(tensor) in new:
                        held.append((tensors, name, tensor))  # type: ignore[arg-type]
        for tensors, name, tensor in held:
            tensors[name] = new[id(tensor)]
        yield
    finally:
        for tensors, name, tensor in held:
            tensors[name] = tensor
