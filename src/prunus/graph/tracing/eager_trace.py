"""Which operations run, while a model runs?

Every operation that reaches the kernels is written down, whether the tensors are fake or real. On real ones, which a model needs
that looks at values while it runs, the recording holds for the path that these inputs took.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from prunus.graph.tracing.observe import SizeUse, observing

__all__ = ["MODULE", "ModuleCall", "Recorder"]


MODULE = "prunus_module"
"""Under this name a node says which module runs it."""


@dataclass(frozen=True)
class ModuleCall:
    """One run of a module: the nodes of its first tensor and of the first that it returns."""

    name: str
    given: fx.Node
    made: fx.Node


class _FlatCall(fx.GraphModule):
    """Takes lists of tensors, as the traced function did."""

    def __call__(self, *arguments: Any) -> Any:
        return super().__call__(*pytree.tree_leaves(arguments))


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down what runs on tensors.

    Args:
        instead: what is to run in place of which operation, unless it returns ``NotImplemented``.
    """

    def __init__(self, instead: Mapping[Any, Callable[..., Any]] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.instead = instead or {}
        self.graph, self.root = fx.Graph(), torch.nn.Module()
        self.nodes: dict[int, fx.Node] = {}
        self.looked_at: list[fx.Node] = []
        self.alive: list[Tensor] = []  # an id is only unique while its tensor lives

    def record(
        self, model: torch.nn.Module, function: Callable[..., list[Tensor]], *arguments: Sequence[Tensor]
    ) -> tuple[fx.GraphModule, list[SizeUse]]:
        """Return the operations of ``function(*arguments)`` as a graph with one placeholder per tensor in ``arguments``.

        With it come the uses of the attributes of ``model`` as sizes.
        """
        for position, value in enumerate(tensor for part in arguments for tensor in part):
            self.name(self.graph.placeholder(f"given_{position}"), value)
        with observing(model, self.known) as uses, _Reads(self), self:
            outputs = function(*arguments)
        self.graph.output([self.node_of(value) for value in outputs])
        return _FlatCall(self.root, self.graph), uses

    def follows(self, n_states: int) -> bool:
        """Tell whether the path that was taken may be another for other inputs, which come after ``n_states`` placeholders."""
        shapes = [n for n in self._fed(n_states) if torch.Tag.dynamic_output_shape in getattr(n.target, "tags", ())]
        return bool(shapes or self.reads(n_states))

    def reads(self, n_states: int) -> tuple[fx.Node, ...]:
        """Return what the model read numbers out of, as far as inputs made it, which come after ``n_states`` placeholders."""
        fed = self._fed(n_states)
        return tuple(node for node in dict.fromkeys(self.looked_at) if node in fed)

    def _fed(self, n_states: int) -> set[fx.Node]:
        reached = set([node for node in self.graph.nodes if node.op == "placeholder"][n_states:])
        for node in self.graph.nodes:  # in order, so what a node takes was looked at before it
            if not reached.isdisjoint(node.all_input_nodes):
                reached.add(node)
        return reached

    def known(self, value: Tensor) -> fx.Node | None:
        """Return the node that made ``value``, if one did."""
        return self.nodes.get(id(value))

    def name(self, node: fx.Node, value: Tensor) -> None:
        """Say that ``node`` makes ``value``."""
        node.meta["val"] = value
        node.meta["custom"] = dict(fx.traceback.current_meta.get("custom") or {})
        self.nodes[id(value)] = node
        self.alive.append(value)

    def node_of(self, value: Tensor) -> fx.Node:
        """Return the node that made ``value``; what came from elsewhere is a constant."""
        return self.nodes[id(value)] if id(value) in self.nodes else self.constant(value)

    def constant(self, value: Tensor) -> fx.Node:
        """Write down a value that came from elsewhere and return its node."""
        name = f"constant_{len(self.alive)}"
        self.root.register_buffer(name, value)
        node = self.graph.get_attr(name)
        self.name(node, value)
        return node

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.instead:
            with self:
                out = self.instead[func](*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        if func is torch.ops.aten.lift_fresh.default:
            func = torch.ops.aten.lift_fresh_copy.default  # what is written into it later must not reach the constant
        if torch.Tag.inplace_view in func.tags and (before := self.known(args[0])) is not None:
            before.meta["val"] = args[0].detach()  # its shape is another afterwards
        out = func(*args, **(kwargs or {}))
        leaves = [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor)]
        if not leaves:
            self.looked_at += [
                node for leaf in pytree.tree_leaves((args, kwargs)) if (node := self.nodes.get(id(leaf)))
            ]
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


class _Reads(TorchFunctionMode):
    """Notes what leaves torch as a plain value without an operation: arrays of NumPy and lists."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("numpy", "tolist", "__array__", "item", "__dlpack__") and args:
            node = self.recorder.known(args[0])
            self.recorder.looked_at += [] if node is None else [node]
        return func(*args, **(kwargs or {}))
