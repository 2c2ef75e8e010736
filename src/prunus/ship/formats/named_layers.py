"""In which layer of the user's model does an export fail?

A layer is named by its path, as ``named_modules`` does. Where torch can't follow a model, that is the innermost module that was
being called. Where an operation is what fails, that is the module that ran it; in a traced computation, which has no modules, the
layer whose parameters were read last before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from prunus.core.errors import raise_if_out_of_memory
from prunus.core.text import plain

__all__ = ["innermost_called", "layer_of_node", "layers_of_operation", "said_by", "without_wrappers"]

_WRAPPERS = ("model", "model")
"""Attributes on the way from what is exported to the user's model: what names its inputs, and what holds the scalers."""
_STEPS = 50


def said_by(error: BaseException) -> str:
    """Return the first line of the error that lies at the root of another."""
    while error.__cause__ is not None:
        error = error.__cause__
    return plain(next(iter(str(error).strip().splitlines()), type(error).__name__))[:200]


def without_wrappers(path: str) -> str:
    """Return the path of a module in the user's model.

    >>> without_wrappers("model.model.layer1.0"), without_wrappers("model")
    ('layer1.0', '')
    """
    parts = path.split(".")
    for wrapper in _WRAPPERS:
        if parts[:1] == [wrapper]:
            parts = parts[1:]
    return ".".join(parts)


def layer_of_node(node: torch.fx.Node) -> str:
    """Return the path of the module that ran an operation; empty where that is the whole model, or not known."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [without_wrappers(path) for path, _ in stack.values()]
    return next((path for path in reversed(paths) if path), "")


def innermost_called(model: nn.Module, run: Callable[[], Any]) -> str:
    """Return the path in ``model`` of the innermost module whose call fails in ``run``; empty where none does."""
    called: list[str] = []
    hooks = []
    for path, module in model.named_modules():

        def enter(*_: Any, path: str = path) -> None:
            called.append(path)

        def leave(*_: Any) -> None:
            called.pop()

        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        run()
    except Exception as error:
        raise_if_out_of_memory(error)
        return without_wrappers(called[-1]) if called else ""
    finally:
        for hook in hooks:
            hook.remove()
    return ""


def layers_of_operation(graph: Any, operation: str) -> list[str]:
    """Return the layers that an operation of an ONNX graph comes from, each once, in order.

    Args:
        graph: an ``onnx.GraphProto`` as torch's exporter wrote it.
        operation: what ONNX calls it, or the name of one node.
    """
    makes = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name for tensor in graph.initializer}
    found = (_layer(node, makes, stored) for node in graph.node if operation in (node.op_type, node.name))
    return list(dict.fromkeys(path for path in found if path))


def _layer(node: Any, makes: dict[str, Any], stored: set[str]) -> str:
    scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "")
    paths = [part.strip(" '\"[]") for part in scopes.split(",")][:-1]
    named = next((path for path in map(without_wrappers, reversed(paths)) if path), "")
    if named:
        return named
    waiting = deque([node])
    for _ in range(_STEPS):
        if not waiting:
            break
        for name in waiting.popleft().input:
            if name in stored and "." in name:
                return without_wrappers(name.rpartition(".")[0])
            if name in makes:
                waiting.append(makes[name])
    return ""
