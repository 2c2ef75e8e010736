"""Which operations take a model's time, and on which axes does each depend?

Five kinds cover a forward pass: convolutions, products with a weight, products of activations, fused attention, and all that
moves each number once (activations, norms, pooling, additions). Views and reshapes take no time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx

from prunus.graph.grouping.groups import AxisGraph
from prunus.graph.rules.recurrent import RECURRENT, recurrent_products
from prunus.graph.solver.axes import Atom
from prunus.graph.solver.solve import Solver

__all__ = ["Operation", "batch_axis", "operations"]

Kind = Literal["convolution", "linear", "product", "attention", "move"]

_FREE = {
    *("view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze", "detach", "alias"),
    *("select", "slice", "split", "split_with_sizes", "unbind", "chunk", "as_strided", "lift_fresh_copy", "empty", "zeros"),
    *("ones", "full", "arange", "scalar_tensor", "sym_size", "to", "_to_copy", "narrow", "flatten", "movedim", "clone"),
}  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """One operation: what of it can't change, and the axes whose sizes decide its time.

    Shapes:
        ``axes`` are, by kind, (batch, in, out) of a convolution (of a grouped one (batch, out)); (rows ..., in, out) of a linear
        layer; (batches ..., rows, inner, columns) of a product; (batch, heads, queries, width, keys, value width) of
        attention; all dimensions of the result of a move.
    """

    kind: Kind
    axes: tuple[Atom, ...]
    fixed: tuple[Any, ...] = ()


def batch_axis(graph: AxisGraph) -> Atom | None:
    """Return the axis of the examples: the first dimension of the first input."""
    assert graph.solution is not None
    inputs = graph.solution.solver.inputs
    return inputs[0][0] if inputs and inputs[0] else None


def operations(graph: AxisGraph) -> Iterator[Operation]:
    """Yield every operation of a trace that takes time."""
    assert graph.solution is not None
    solver = graph.solution.solver
    for node in solver.trace.graph_module.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            yield from _operation(solver, node, node.target.overloadpacket.__name__)


def _operation(solver: Solver, node: fx.Node, name: str) -> Iterator[Operation]:
    args: Any = node.args
    if name == "convolution":
        yield _convolution(solver, node)
    elif name in ("mm", "addmm"):
        left, right = args[-2:] if name == "mm" else args[1:3]
        yield Operation("linear", (*solver.axes(left), solver.axes(right)[-1]))
    elif name in ("bmm", "baddbmm"):
        left, right = args[:2] if name == "bmm" else args[1:3]
        yield Operation("product", (*solver.axes(left), solver.axes(right)[-1]))
    elif name in RECURRENT:
        for rows, (out, given) in recurrent_products(solver, node):
            yield Operation("linear", (*rows, given, out))
    elif "scaled_dot_product" in name:
        query, key, value = (solver.axes(item) for item in args[:3])
        yield Operation("attention", (*query, key[-2], value[-1]))
    elif name not in _FREE and isinstance(_value(node), Tensor) and _value(node).dim() > 0:
        # A norm gives its result and its statistics: the first is what is moved.
        found: Any = solver.axes(node)
        yield Operation("move", tuple(found[0] if isinstance(_of(node), list | tuple) else found))


def _of(node: fx.Node) -> Any:
    return node.meta.get("val")


def _value(node: fx.Node) -> Any:
    value = _of(node)
    return value[0] if isinstance(value, list | tuple) and value else value


def _convolution(solver: Solver, node: fx.Node) -> Operation:
    given, weight, _, stride, padding, dilation, transposed, _, groups, *_ = node.args
    shape = tuple(weight.meta["val"].shape)  # type: ignore[union-attr]
    space = tuple(int(side) for side in given.meta["val"].shape[2:])  # type: ignore[union-attr]
    settings = tuple(tuple(value) for value in (shape[2:], stride, padding, dilation))  # type: ignore[arg-type]
    inputs, outputs = solver.axes(given), solver.axes(node)  # type: ignore[arg-type]
    if groups == 1:
        return Operation("convolution", (inputs[0], inputs[1], outputs[1]), (space, *settings, bool(transposed), None))
    each = (inputs[1].size // groups, outputs[1].size // groups)  # type: ignore[operator]
    return Operation("convolution", (inputs[0], outputs[1]), (space, *settings, bool(transposed), each))
