"""What does one unit of a group carry: how many parameters, and how many multiply-accumulates?

Both follow from the axes: a product of sizes is counted again with the unit gone. Nothing is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import fx, nn

from prunus.graph.grouping.groups import AxisGraph, parameters_per_unit
from prunus.graph.rules.recurrent import RECURRENT, recurrent_products
from prunus.graph.solver.axes import Atom, leaves
from prunus.graph.solver.axis_positions import left_of
from prunus.graph.solver.solve import Axes, Solver

__all__ = ["Term", "UnitCost", "mac_terms", "unit_costs"]

Term = tuple[float, Axes]
"""A factor, and the axes whose sizes are multiplied with it."""


@dataclass(frozen=True)
class UnitCost:
    """What goes with one unit.

    Units:
        ``macs`` is for one example: the whole trace divided by the first dimension of its first input.
    """

    parameters: int
    macs: float


def unit_costs(graph: AxisGraph, model: nn.Module) -> tuple[dict[str, UnitCost], float]:
    """Return what one unit of each group carries, by name, and the MACs of the whole model for one example.

    Convolutions, matrix products and attention count; everything else is nothing beside them.
    """
    assert graph.solution is not None
    solver = graph.solution.solver
    terms = list(mac_terms(solver))
    batch = solver.inputs[0][0].size if solver.inputs and solver.inputs[0] else 1
    of: dict[Atom, list[Term]] = {}
    for term in terms:
        for leaf in {leaf for atom in term[1] for leaf in leaves(atom)}:
            of.setdefault(leaf, []).append(term)
    costs = {}
    for group in graph.groups:
        fewer = graph.solution.sizes({group.name: group.size - 1})
        carried = {id(term): term for leaf in fewer for term in of.get(leaf, ())}.values()
        gone = sum(_count(term, {}) - _count(term, fewer) for term in carried)
        costs[group.name] = UnitCost(parameters_per_unit(group, model), gone / batch)
    return costs, sum(_count(term, {}) for term in terms) / batch


def _count(term: Term, sizes: Mapping[Atom, int]) -> float:
    total, axes = term
    for atom in axes:
        total *= left_of(atom, sizes)
    return total


def mac_terms(solver: Solver) -> Iterator[Term]:
    """Yield one term for each convolution, matrix product and half of an attention; their sum is for the whole batch."""
    for node in solver.trace.graph_module.graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        name = node.target.overloadpacket.__name__
        if name == "convolution":
            yield _convolution(solver, node)
        elif name in ("mm", "bmm", "_grouped_mm"):
            yield 1.0, [*solver.axes(node), solver.axes(node.args[0])[-1]]
        elif name in ("addmm", "baddbmm"):
            yield 1.0, [*solver.axes(node), solver.axes(node.args[1])[-1]]
        elif name in RECURRENT:
            for rows, weight in recurrent_products(solver, node):
                yield 1.0, [*rows, *weight]
        elif "scaled_dot_product" in name:
            query, key, value = (solver.axes(item) for item in node.args[:3])
            yield 1.0, [*query, key[-2]]
            yield 1.0, [*query[:-1], key[-2], value[-1]]


def _convolution(solver: Solver, node: fx.Node) -> Term:
    """Every output meets the kernel and the input channels of its group; transposed, every input the output channels."""
    given, weight = solver.axes(node.args[0]), solver.axes(node.args[1])  # type: ignore[arg-type]
    return 1.0, [*(given if node.args[6] else solver.axes(node)), *weight[1:]]
