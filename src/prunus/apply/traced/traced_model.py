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

from prunus.apply.traced.limits import Limits
from prunus.apply.traced.regraph import PrunedGraph, resized
from prunus.apply.traced.spans import Affordable, Spans, find_spans
from prunus.graph import Solution
from prunus.graph.solver.sizes import FollowedSizes, follow_sizes
from prunus.graph.tracing.states import canonical_states

__all__ = ["with_limits"]


def with_limits(
    smaller: PrunedGraph,
    model: nn.Module,
    solution: Solution,
    counts: Mapping[str, int],
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    asked_for: bool = False,
    affordable: Affordable | None = None,
    batch_first: bool = False,
) -> PrunedGraph:
    """Return ``smaller`` with the numbers that follow sizes, saying for which inputs it holds.

    Args:
        batch_first: whether the first dimensions of all inputs are one.
        affordable: which runs may be made to find the largest sizes.
        asked_for: the class wasn't tried. Then the second trace is made only where other sizes show that it is needed.
        model: what was traced, as ``solution`` says, on ``inputs`` and ``kwargs``; its groups keep ``counts`` in ``smaller``.
    """
    if any(value.is_meta for value in canonical_states(model).values()):
        return smaller
    solver = solution.solver
    parameters = frozenset(name for name, _ in smaller.named_parameters())

    def spans(followed: FollowedSizes | None) -> tuple[Spans, bool]:
        whole = PrunedGraph(resized(solution, {}, followed), canonical_states(model), parameters, solver.trace)
        return find_spans(model, whole, solver, inputs, kwargs, followed, affordable, batch_first)

    followed = None
    found: Spans = ()
    wrong = True
    if asked_for:
        found, wrong = spans(None)
    if wrong:
        followed = follow_sizes(model, inputs, kwargs, solver)
        found, _ = spans(followed)
    states = {name: operator.attrgetter(name)(smaller) for name in smaller.names}
    made = PrunedGraph(resized(solution, counts, followed, reads=True), states, parameters, solver.trace)
    made.guard = smaller.guard
    given = [leaf for leaf in pytree.tree_leaves((inputs, dict(kwargs))) if isinstance(leaf, Tensor)]
    read: tuple[Tensor, ...] = ()
    if n_read := len(solver.trace.reads):
        with torch.no_grad():
            outputs = made.graph_module(*states.values(), *given)
        read = tuple(value.detach().clone() for value in outputs[-n_read:])
    made.limits = Limits(found, read)
    return made
