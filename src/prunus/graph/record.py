"""Which operations ran, when the model looks at values while it runs?

The model runs on real tensors and every operation that reaches the kernels is written down. The recording holds for the path
that these inputs took.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from prunus.graph.observe import SizeUse, observing

__all__ = ["record"]


def record(
    model: torch.nn.Module, function: Callable[..., list[Tensor]], *arguments: Sequence[Tensor]
) -> tuple[fx.GraphModule, list[SizeUse]]:
    """Return the operations of ``function(*arguments)`` as a graph with one placeholder per tensor in ``arguments``.

    With it come the uses of the attributes of ``model`` as sizes.
    """
    recorder = _Recorder()
    for position, value in enumerate(tensor for part in arguments for tensor in part):
        node = recorder.graph.placeholder(f"given_{position}")
        recorder.name(node, value)
    with observing(model, lambda value: recorder.nodes.get(id(value))) as uses, recorder:
        outputs = function(*arguments)
    recorder.graph.output([recorder.node_of(value) for value in outputs])
    return _FlatCall(recorder.root, recorder.graph), uses


class _FlatCall(fx.GraphModule):
    """Takes lists of tensors, as the traced function did."""

    def __call__(self, *arguments: Any) -> Any:
        return super().__call__(*pytree.tree_leaves(arguments))


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph, self.root = fx.Graph(), torch.nn.Module()
        self.nodes: dict[int, fx.Node] = {}
        self.alive: list[Tensor] = []  # an id is only unique while its tensor lives

    def name(self, node: fx.Node, value: Tensor) -> None:
        node.meta["val"] = value
        node.meta["custom"] = dict(fx.traceback.current_meta.get("custom") or {})
        self.nodes[id(value)] = node
        self.alive.append(value)

    def node_of(self, value: Tensor) -> fx.Node:
        if id(value) not in self.nodes:
            name = f"constant_{len(self.alive)}"
            self.root.register_buffer(name, value)
            self.name(self.graph.get_attr(name), value)
        return self.nodes[id(value)]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        leaves = [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor)]
        if not leaves:
            return out
        given, named = pytree.tree_map_only(Tensor, self.node_of, (args, kwargs or {}))
        node = self.graph.call_function(func, given, named)
        if isinstance(out, Tensor):
            self.name(node, out)
            return out
        node.meta["val"] = out
        node.meta["custom"] = dict(fx.traceback.current_meta.get("custom") or {})
        for position, value in enumerate(out):
            if isinstance(value, Tensor):
                self.name(self.graph.call_function(operator.getitem, (node, position)), value)
        return out
