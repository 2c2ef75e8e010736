"""What leaves as a traced computation, where the class can't follow the cut?

The numbers that follow sizes are written as such, and it says for which inputs it holds.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunus.apply.limits import Limits, find_spans
from prunus.apply.regraph import PrunedGraph, resized
from prunus.graph import Solution
from prunus.graph.sizes import follow_sizes
from prunus.graph.states import canonical_states

__all__ = ["traced_model", "with_limits"]


def traced_model(model: nn.Module, solution: Solution, inputs: tuple[Any, ...]) -> PrunedGraph:
    """Return the whole model as a traced computation on its own tensors, with the sizes that it holds for."""
    states, names = canonical_states(model), frozenset(name for name, _ in model.named_parameters())
    return with_limits(PrunedGraph(resized(solution, {}), states, names), model, solution, {}, inputs, {})


def with_limits(
    smaller: PrunedGraph,
    model: nn.Module,
    solution: Solution,
    counts: Mapping[str, int],
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> PrunedGraph:
    """Return ``smaller`` with the numbers that follow sizes, saying for which inputs it holds.

    Args:
        model: what was traced, as ``solution`` says, on ``inputs`` and ``kwargs``; its groups keep ``counts`` in ``smaller``.
    """
    if any(value.is_meta for value in canonical_states(model).values()):
        return smaller
    solver = solution.solver
    followed = follow_sizes(model, inputs, kwargs, solver)
    parameters = frozenset(name for name, _ in smaller.named_parameters())
    whole = PrunedGraph(resized(solution, {}, followed), canonical_states(model), parameters)
    states = {name: operator.attrgetter(name)(smaller) for name in smaller.names}
    made = PrunedGraph(resized(solution, counts, followed, reads=True), states, parameters)
    made.guard, made.keywords = smaller.guard, smaller.keywords
    given = [leaf for leaf in pytree.tree_leaves((inputs, dict(kwargs))) if isinstance(leaf, Tensor)]
    read: tuple[Tensor, ...] = ()
    if n_read := len(solver.trace.reads):
        with torch.no_grad():
            outputs = made.graph_module(*states.values(), *given)
        read = tuple(value.detach().clone() for value in outputs[-n_read:])
    made.limits = Limits(find_spans(model, whole, solver, inputs, kwargs, followed), read)
    return made
