"""What will a model cost when its groups keep so many units each?

Parameters, MACs, bytes and latency are one thing: a sum of terms, each a price of a few axis sizes. A price is a product for
the first three, and a measured time of one operation for the last. Nothing is run and nothing is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from torch import nn

from prunus.core.types import Ints
from prunus.graph.costs.costs import mac_terms
from prunus.graph.grouping.groups import AxisGraph, Group
from prunus.graph.solver.axes import Atom, find, leaves
from prunus.graph.solver.axis_positions import left_of
from prunus.graph.tracing.states import canonical_states

__all__ = ["CostModel", "CostTerm", "count_model"]


@dataclass(frozen=True)
class CostTerm:
    """One addend: ``price`` takes the sizes of ``axes``, in their order."""

    axes: tuple[Atom, ...]
    price: Callable[[tuple[int, ...]], float]


class CostModel:
    """The cost of a model as a function of how many units each group keeps.

    Args:
        terms: what adds up; axes that no group of ``groups`` cuts keep their size.
        groups: whose counts may change. Counts are given in their order.
        sizes: other sizes for some axes that no group cuts, such as the batch.
    """

    def __init__(
        self,
        graph: AxisGraph,
        groups: Sequence[Group],
        terms: Iterable[CostTerm],
        sizes: Mapping[Atom, int] | None = None,
    ) -> None:
        assert graph.solution is not None
        self.names = tuple(group.name for group in groups)
        self.sizes = tuple(group.size for group in groups)
        self._solution = graph.solution
        number: dict[Atom, list[int]] = {}
        for i, name in enumerate(self.names):
            for leaf in graph.solution.axes_of(name):
                number.setdefault(leaf, []).append(i)
        self._terms = list(terms)
        self._fixed = {find(atom): size for atom, size in (sizes or {}).items()}
        self._depends = [
            tuple(sorted({i for atom in term.axes for leaf in leaves(atom) for i in number.get(leaf, ())}))
            for term in self._terms
        ]
        self._touched: list[list[int]] = [[] for _ in self.names]
        for position, depends in enumerate(self._depends):
            for i in depends:
                self._touched[i].append(position)
        self._known: list[dict[tuple[int, ...], float]] = [{} for _ in self._terms]

    def total(self, counts: Sequence[int] | Ints) -> float:
        """Return the cost of the whole model."""
        return sum(self._value(position, counts) for position in range(len(self._terms)))

    def part(self, group: int, counts: Sequence[int] | Ints) -> float:
        """Return the sum of the terms that the group of that number has a part in: all that its count can change."""
        return sum(self._value(position, counts) for position in self._touched[group])

    def neighbours(self, group: int) -> set[int]:
        """Return the groups that share a term with a group, itself among them."""
        return {group, *(i for position in self._touched[group] for i in self._depends[position])}

    def _value(self, position: int, counts: Sequence[int] | Ints) -> float:
        depends = self._depends[position]
        key = tuple(int(counts[i]) for i in depends)
        known = self._known[position]
        if key not in known:
            term = self._terms[position]
            counts_of = {self.names[i]: n for i, n in zip(depends, key, strict=True)}
            left = self._fixed | self._solution.sizes(counts_of)
            known[key] = term.price(tuple(left_of(atom, left) for atom in term.axes))
        return known[key]


def count_model(
    kind: Literal["params", "macs", "bytes"], graph: AxisGraph, groups: Sequence[Group], model: nn.Module
) -> CostModel:
    """Return the cost of ``model`` in parameters, in MACs for one example, or in bytes of its parameters and buffers.

    Raises:
        AssertionError: the graph wasn't made by ``analyze``.
    """
    return CostModel(graph, groups, _mac_terms(graph) if kind == "macs" else _state_terms(kind, graph, model))


def _mac_terms(graph: AxisGraph) -> Iterable[CostTerm]:
    assert graph.solution is not None
    solver = graph.solution.solver
    batch = solver.inputs[0][0].size if solver.inputs and solver.inputs[0] else 1
    for factor, axes in mac_terms(solver):
        yield CostTerm(tuple(axes), _times(factor / batch))


def _state_terms(kind: str, graph: AxisGraph, model: nn.Module) -> Iterable[CostTerm]:
    """Yield a term for each tensor; one that the trace never used keeps its size."""
    assert graph.solution is not None
    axes_of = graph.solution.solver.states
    parameters = {name for name, _ in model.named_parameters()}
    for name, tensor in canonical_states(model).items():
        if kind == "params" and name not in parameters:
            continue
        each = 1.0 if kind == "params" else float(tensor.element_size())
        axes = axes_of.get(name)
        yield CostTerm((), _times(each * tensor.numel())) if axes is None else CostTerm(tuple(axes), _times(each))


def _times(factor: float) -> Callable[[tuple[int, ...]], float]:
    return lambda sizes: factor * prod(sizes)
