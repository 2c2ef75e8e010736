"""What did the example show, and what of the model is therefore not known?

An axis is reached when something is made of it as a whole: an operation sums over it, or it is among the outputs. What was only
handed on and cut away (the positions behind a sequence, the branch not taken) isn't: another input may read it, in a way that
nobody saw. Such axes stay whole, and so does what might hang together with a layer that didn't run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import fx

from prunus.graph.solver.axes import Atom, find, freeze, leaves
from prunus.graph.solver.solve import Axes, Solver
from prunus.graph.tracing.eager_trace import MODULE
from prunus.graph.tracing.trace import operation_name

__all__ = ["freeze_beside", "freeze_unreached"]

_CUTS = frozenset(("slice", "split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"))
_NEVER = "the example never reached it: give inputs that do, or leave it whole"


def freeze_unreached(solvers: Sequence[Solver]) -> tuple[str, ...]:
    """Freeze what no trace reached, and return the names of the states that no operation read.

    Args:
        solvers: the traces of one model that share their states' axes: in evaluation, and where there is one in training.
    """
    read = {name for solver in solvers for name in _read_states(solver)}
    unread = tuple(name for name in solvers[0].states if name not in read)
    for name in unread:
        for atom in solvers[0].states[name]:
            freeze(atom, _NEVER)
    reached = {leaf for solver in solvers for leaf in _reached(solver)}
    for axes in solvers[0].states.values():
        for atom in axes:
            parts = [leaf for leaf in leaves(atom) if leaf.size > 1 and leaf not in reached and not leaf.reason]
            if parts:
                whole = len(parts) == len(set(leaves(atom)))
                freeze(atom, _NEVER if whole else "the example reached only a part of its positions")
    return unread


def freeze_beside(solver: Solver, name: str) -> None:
    """Freeze what a parameter that no operation read might hang together with: the sizes that meet where its owner would run.

    The values that the next module around it handles, which did run, are what its owner could be given, or give back.
    """
    sizes = {atom.size for atom in solver.states[name] if atom.size > 1}
    batch = {leaf for axes in solver.inputs for atom in axes[:1] for leaf in leaves(atom)}
    for axes in _seen_beside(solver, name.rpartition(".")[0]):
        for span in _spans(axes, sizes):
            if batch.isdisjoint(leaf for atom in span for leaf in leaves(atom)):
                for atom in span:
                    freeze(atom, f"{name} may hang together with it, which the example never reached")


def _read_states(solver: Solver) -> Iterator[str]:
    for name, node in zip(solver.trace.states, solver.trace.graph_module.graph.nodes, strict=False):
        if node.users:
            yield name


def _reached(solver: Solver) -> Iterator[Atom]:
    """Yield the leaves that are read together with an input, summed over, or given out.

    What is made of parameters alone (a table that a norm runs over) is only handed on until then.
    """
    nodes = list(solver.trace.graph_module.graph.nodes)
    fed = set([node for node in nodes if node.op == "placeholder"][len(solver.trace.states) :])
    for node in nodes:
        if not fed.isdisjoint(node.all_input_nodes):
            fed.add(node)
        given = {leaf for source in node.all_input_nodes for leaf in _leaves(solver.values.get(source))}
        if node.op == "output" or (node in fed and operation_name(node) not in {"", *_CUTS}):
            yield from given
        elif operation_name(node) not in {"", *_CUTS}:
            yield from given - set(_leaves(solver.values.get(node)))


def _leaves(axes: Any) -> Iterator[Atom]:
    """Yield the leaves of a value's axes, or of those of a list of values."""
    for atom in axes or ():
        yield from leaves(atom) if isinstance(atom, Atom) else _leaves(atom)


def _seen_beside(solver: Solver, owner: str) -> Iterator[Axes]:
    """Yield the axes of every value in the frame of the innermost module around ``owner`` that ran."""
    ran = {call.name for call in solver.trace.calls}
    frame = _around(owner, ran) if owner not in ran else owner
    nodes: dict[fx.Node, None] = {}
    for call in solver.trace.calls:
        if call.name == frame or _around(call.name, ran) == frame:
            nodes |= {call.given: None, call.made: None}
    for node in solver.trace.graph_module.graph.nodes:
        if node.op == "call_function" and (node.meta.get("custom") or {}).get(MODULE, "") == frame:
            nodes[node] = None
    for node in nodes:
        axes = solver.values.get(node)
        if axes and isinstance(axes[0], Atom):
            yield axes


def _around(name: str, ran: set[str]) -> str:
    """Return the innermost module around a module that ran."""
    while name:
        name = name.rpartition(".")[0]
        if name in ran:
            return name
    return ""


def _spans(axes: Axes, sizes: set[int]) -> Iterator[Axes]:
    """Yield the neighbouring dimensions that are one of ``sizes`` together, as a flatten would make them."""
    for start in range(len(axes)):
        size = 1
        for end in range(start, len(axes)):
            size *= find(axes[end]).size
            if size in sizes:
                yield axes[start : end + 1]
