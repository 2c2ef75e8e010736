"""Which values of a trace are written into after they were made, also through views of them?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

__all__ = ["base_of", "written", "written_by"]

aten = torch.ops.aten


def written(graph: fx.Graph) -> set[fx.Node]:
    """Return what is written in place after it was made: the first of all nodes that share its memory."""
    return {base_of(given) for node in graph.nodes for given in written_by(node)}


def written_by(node: fx.Node) -> Iterator[fx.Node]:
    """Yield the tensors that an operation writes into."""
    if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
        for place, argument in enumerate(node.target._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
                yield from (item for item in pytree.tree_leaves(value) if isinstance(item, fx.Node))


def base_of(node: Any) -> fx.Node:
    """Return what a node is a view of: whatever may be one is."""
    while node.op == "call_function" and node.args and isinstance(node.args[0], fx.Node):
        schema = getattr(node.target, "_schema", None)
        aliases = schema is None or any(made.alias_info is not None for made in schema.returns)
        if not aliases and node.target not in (aten.reshape.default, aten.contiguous.default):
            break
        node = node.args[0]
    found: fx.Node = node
    return found
