"""Which tensor operations does the model run, and in which of its modules?

The model is traced to ATen operations on fake tensors: shapes, no values, no memory. Parameters and buffers are inputs of
the trace. Where fake tracing is impossible (control flow that looks at values) the trace runs on real tensors, and says so.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from prunus.core.errors import ModelError
from prunus.graph.observe import SizeUse, observing
from prunus.graph.record import record
from prunus.graph.states import canonical_states, running_on

__all__ = ["Trace", "plain", "trace"]

MODULE = "prunus_module"


@dataclass(frozen=True)
class Trace:
    """The operations of one forward pass.

    ``states`` names the first placeholders of ``graph_module`` (parameters and buffers, tied ones once); the other
    placeholders are the tensors among the model's inputs, in pytree order. Every node's ``meta`` has the value's shape under
    ``val``, and the module that runs it under ``custom``. ``uses`` says which attributes forward took sizes from.
    """

    graph_module: fx.GraphModule
    states: tuple[str, ...]
    n_inputs: int
    notes: tuple[str, ...]
    uses: tuple[SizeUse, ...] = ()


def trace(
    model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None, *, training: bool = False
) -> Trace:
    """Return the operations that ``model(*inputs, **kwargs)`` runs in evaluation (or training) mode; the model isn't changed.

    Raises:
        ModelError: the model's forward fails on these inputs.
    """
    states = canonical_states(model)
    leaves, spec = pytree.tree_flatten((tuple(inputs), dict(kwargs or {})))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def forward(values: list[Tensor], given: list[Tensor]) -> list[Tensor]:
        queue = iter(given)
        filled = [next(queue) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        arguments, named = pytree.tree_unflatten(filled, spec)
        with running_on(model, dict(zip(states, values, strict=True))):
            out = model(*arguments, **named)
        flat = pytree.tree_leaves(plain(out))
        return [leaf for leaf in flat if isinstance(leaf, Tensor)]

    notes: list[str] = []
    try:
        with _quiet(model, training), FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = [_fake(mode, value) for value in states.values()]
            given = [_fake(mode, value) for value in tensors]
            with observing(model) as uses:
                graph_module = make_fx(forward, tracing_mode="real", _allow_non_fake_inputs=True)(fake, given)
    except Exception as error:
        notes.append(f"traced on real tensors, since the model looks at values while it runs ({_first_line(error)})")
        try:
            with _quiet(model, training):
                graph_module, uses = record(model, forward, [value.detach() for value in states.values()], tensors)
        except Exception as real:
            raise ModelError(
                f"the model's forward fails on inputs of shape {[tuple(t.shape) for t in tensors]}: {_first_line(real)}; "
                "give inputs that the model takes"
            ) from real
    return Trace(graph_module, tuple(states), len(tensors), tuple(notes), tuple(uses))


def _fake(mode: FakeTensorMode, value: Tensor) -> Tensor:
    if value.device.type == "meta":
        return mode.from_tensor(torch.empty_like(value, device="meta"))
    return mode.from_tensor(value.detach())


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"


def plain(value: Any) -> Any:
    """Return dataclasses and other containers of outputs as what pytree knows."""
    if hasattr(value, "to_tuple"):
        return value.to_tuple()
    if hasattr(value, "__dataclass_fields__"):
        return [getattr(value, name) for name in value.__dataclass_fields__]
    return value


@contextlib.contextmanager
def _quiet(model: nn.Module, training: bool) -> Iterator[None]:
    """The asked mode, plain kernels instead of fused ones, and the running module's name on every node."""
    modes = {module: module.training for module in model.modules()}
    held = [(module, _shallow(vars(module))) for module in model.modules()]
    fast, fused = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    stack: list[str] = [""]
    hooks = []

    def enter(name: str) -> Any:
        def hook(module: nn.Module, arguments: Any) -> None:
            stack.append(name)
            fx.traceback.current_meta["custom"] = {MODULE: name}

        return hook

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        stack.pop()
        fx.traceback.current_meta["custom"] = {MODULE: stack[-1]}

    try:
        model.train(training)
        for name, module in model.named_modules():
            if name and not isinstance(module, torch.jit.ScriptModule):
                hooks += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
        torch.backends.mha.set_fastpath_enabled(False)
        torch._C._set_mkldnn_enabled(False)
        with torch.no_grad(), fx.traceback.preserve_node_meta():
            yield
    finally:
        for hook in hooks:
            hook.remove()
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(fused)
        for module, attributes in held:
            _give_back(module, attributes)
        for module, training in modes.items():
            module.training = training


def _shallow(attributes: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what a module holds besides tensors, modules and hooks, with copies of its lists and mappings (caches)."""
    own = {name: value for name, value in attributes.items() if not _is_torch(name)}
    return {name: (value, copy.copy(value) if type(value) in (dict, list) else None) for name, value in own.items()}


def _is_torch(name: str) -> bool:
    return name in ("_parameters", "_buffers", "_modules", "training") or "hook" in name


def _give_back(module: nn.Module, attributes: dict[str, tuple[Any, Any]]) -> None:
    """Undo what the forward pass wrote into a module: a cache would hold tensors of the trace."""
    for name in [name for name in vars(module) if name not in attributes and not _is_torch(name)]:
        del vars(module)[name]
    for name, (value, copied) in attributes.items():
        if isinstance(value, dict) and copied is not None:
            value.clear()
            value.update(copied)
        elif isinstance(value, list) and copied is not None:
            value[:] = copied
        vars(module)[name] = value
