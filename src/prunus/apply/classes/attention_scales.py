"""What if ``forward`` takes the scale of an attention from a head dimension that was cut?

Scores are divided by the root of the head dimension, and the function is that of the old one. A class that computes the root anew
divides by too little; queries that are multiplied by ``sqrt(new / old)`` make good for it, and a layer's weights can take that in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from prunus.apply.traced.regraph import PrunedGraph
from prunus.core.errors import raise_if_out_of_memory
from prunus.core.runtime import generator, seeded
from prunus.graph import AxisGraph
from prunus.graph.grouping.kinds import PRODUCTS
from prunus.graph.solver.axes import leaves
from prunus.graph.solver.axis_positions import left_of
from prunus.graph.tracing.states import canonical_states, enlivened, in_precision
from prunus.graph.tracing.trace import operation_name

__all__ = ["fold_scales"]

_LAYERS = ("mm", "addmm", "linear", "convolution", *PRODUCTS)
_VIEWS = (
    "t",
    "transpose",
    "permute",
    "view",
    "reshape",
    "_unsafe_view",
    "unsqueeze",
    "expand",
    "alias",
    "detach",
    "clone",
)


@dataclass(frozen=True)
class _Source:
    """A parameter that a query is proportional to, and along which of its dimensions its outputs lie."""

    name: str
    dim: int


def fold_scales(
    smaller: nn.Module,
    reference: PrunedGraph,
    graph: AxisGraph,
    counts: Mapping[str, int],
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Multiply the queries of ``smaller`` by what a scale made of the new head dimension lacks, and return the factors.

    Args:
        smaller: the sliced model; the parameters that queries come from are replaced in it.
        reference: the traced computation on the tensors of ``smaller``, with the old scales.
        counts: what is left of the groups that were cut, by name.
        inputs: what the queries are computed on, to see which rows of a fused layer they come from.

    Returns:
        For each changed parameter, by name, what it was multiplied by, in a shape that broadcasts; empty where no head
        dimension was cut or its queries aren't seen.
    """
    ratios = _ratios(graph, counts)
    state_of = _states(reference)
    queries = {
        node: ratios[id(node.meta["val"])]
        for node in reference.graph_module.graph.nodes
        if "val" in node.meta and id(node.meta["val"]) in ratios
    }
    sources = {query: list(_sources(query, state_of)) for query in queries}
    if not queries or not all(sources.values()):
        return {}
    try:
        rows = _rows(smaller, reference, sources, inputs, kwargs)
    except Exception as error:  # the trace doesn't run, or has no gradient: then nothing is known of its queries
        raise_if_out_of_memory(error)
        return {}
    factors: dict[str, Tensor] = {}
    for query, found in rows.items():
        for source, alive in found:
            factor = torch.where(alive, alive.new_tensor(queries[query], dtype=torch.float64).sqrt(), 1.0)
            before = factors.get(source.name, torch.ones_like(factor))
            # A layer that is used twice is multiplied once.
            factors[source.name] = torch.where(before == 1, factor, before) if before.shape == factor.shape else factor
    _multiply(smaller, factors)
    return factors


def _ratios(graph: AxisGraph, counts: Mapping[str, int]) -> dict[int, float]:
    """Return the new head dimension over the old one for each query of a product that a cut one is contracted in, by its value."""
    assert graph.solution is not None
    solver = graph.solution.solver
    sizes = graph.solution.sizes(counts)
    cut = {
        leaf
        for g in graph.groups
        if g.name in counts and g.kind == "head_dim"
        for leaf in graph.solution.axes_of(g.name)
    }
    found = {}
    for node in solver.trace.graph_module.graph.nodes:
        name = operation_name(node)
        if "scaled_dot_product" not in name and name not in PRODUCTS:
            continue
        query: Any = node.args[1 if name == "baddbmm" else 0]
        axis = solver.axes(query)[-1] if isinstance(query, fx.Node) else None
        if axis is not None and cut & set(leaves(axis)):
            found[id(query.meta["val"])] = left_of(axis, sizes) / axis.size
    return found


def _states(reference: PrunedGraph) -> dict[fx.Node, str]:
    """Return the name of each parameter, by its place in the graph."""
    parameters = dict(reference.named_parameters())
    given = [node for node in reference.graph_module.graph.nodes if node.op == "placeholder"]
    return {node: name for node, name in zip(given, reference.names, strict=False) if name in parameters}


def _sources(query: fx.Node, state_of: Mapping[fx.Node, str]) -> Iterator[_Source]:
    """Yield the parameters of the layers or norms that a query comes from, on every way back from it."""
    waiting, seen = [query], {query}
    while waiting:
        node = waiting.pop()
        name = operation_name(node)
        mine = [
            (state, operand) for operand in node.all_input_nodes if (state := _state(operand, state_of)) is not None
        ]
        for state, operand in mine:
            kernel = name in _LAYERS and operand.meta["val"].dim() > 1
            # The matrix of a product has its outputs last, which is where the transposed one has its first.
            whole = name in ("linear", "convolution") or operand is not state
            yield _Source(state_of[state], 0 if kernel and whole else -1)
        if mine and (name in _LAYERS or name == "mul" or "norm" in name):
            continue
        before = [operand for operand in node.all_input_nodes if operand not in seen]
        seen.update(before)
        waiting += before


def _state(node: fx.Node, state_of: Mapping[fx.Node, str]) -> fx.Node | None:
    """Return the parameter that ``node`` is a view of."""
    while node not in state_of:
        if operation_name(node) not in _VIEWS or len(node.all_input_nodes) != 1:
            return None
        node = node.all_input_nodes[0]
    return node


class _Watched(fx.Interpreter):
    """Keeps the values of some nodes."""

    def __init__(self, module: fx.GraphModule, nodes: Iterable[fx.Node]) -> None:
        super().__init__(module)
        self.kept: dict[fx.Node, Any] = dict.fromkeys(nodes)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.kept:
            self.kept[n] = value
        return value


def _rows(
    smaller: nn.Module,
    reference: PrunedGraph,
    sources: Mapping[fx.Node, list[_Source]],
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> dict[fx.Node, list[tuple[_Source, Tensor]]]:
    """Return for each query which outputs of its sources it is made of, found by its gradient."""
    wanted = {source.name for found in sources.values() for source in found}
    values = {
        name: in_precision(value, torch.float64).requires_grad_(name in wanted and value.is_floating_point())
        for name, value in enlivened(smaller).items()
    }
    given = [
        in_precision(leaf, torch.float64)
        for leaf in pytree.tree_leaves((inputs, dict(kwargs)))
        if isinstance(leaf, Tensor)
    ]
    watched = _Watched(reference.graph_module, sources)
    with seeded(0, "scales"), torch.enable_grad():
        watched.run(*(values[name] for name in reference.names), *given)
        draw = generator(0, "scales")
        found: dict[fx.Node, list[tuple[_Source, Tensor]]] = {}
        for query, mine in sources.items():
            value = watched.kept[query]
            weights = torch.randn(value.shape, generator=draw, dtype=torch.float64).to(value)
            gradients = torch.autograd.grad(
                (value * weights).sum(), [values[source.name] for source in mine], retain_graph=True
            )
            found[query] = [(s, _alive(gradient, s.dim)) for s, gradient in zip(mine, gradients, strict=True)]
    return found


def _alive(gradient: Tensor, dim: int) -> Tensor:
    """Return which positions along a dimension have a gradient, in a shape that broadcasts."""
    others = [d for d in range(gradient.dim()) if d != dim % gradient.dim()]
    return (gradient != 0).any(dim=others, keepdim=True) if others else gradient != 0


def _multiply(model: nn.Module, factors: Mapping[str, Tensor]) -> None:
    """Put the multiplied parameters in their places, wherever they are tied."""
    states = canonical_states(model)
    new: dict[int, nn.Parameter] = {}
    for name, factor in factors.items():
        old = states[name]
        new[id(old)] = nn.Parameter(old.detach() * factor.to(old), requires_grad=old.requires_grad)
    for module in model.modules():
        for own, tensor in module._parameters.items():
            if id(tensor) in new:
                module._parameters[own] = new[id(tensor)]
