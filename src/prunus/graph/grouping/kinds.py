"""What is each axis in the words of a model's author: a channel, a head, a head dimension, an expert ...?

It is told by what the operations do with it, never by a layer's name: heads are what scores are softened apart from each other,
a head dimension is what is contracted inside them, a width is what an addition of two branches joins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, get_args

from torch import Tensor, fx

from prunus.graph.grouping.members import Member
from prunus.graph.solver.axes import Atom, leaves
from prunus.graph.solver.solve import Solver
from prunus.graph.tracing.trace import operation_name

__all__ = ["KINDS", "PRODUCTS", "Kind", "kinds_of"]

Kind = Literal["channel", "head", "head_dim", "mlp", "width", "hidden", "expert", "block"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_SOFT = ("_softmax", "_safe_softmax", "_softmax_backward_data")
PRODUCTS = ("bmm", "baddbmm")
# These make new values from weights; everything else passes on what it was given.
_MAKES = (*PRODUCTS, "mm", "addmm", "_grouped_mm", "convolution", "embedding", "linear", "native_layer_norm", "mean")


def kinds_of(solver: Solver, members: Mapping[Atom, Sequence[Member]]) -> dict[Atom, Kind]:
    """Return the kind of every leaf axis in ``members``.

    ``head`` and ``head_dim`` belong to attention; ``hidden`` is a recurrent state; ``expert`` lies outermost in stacked weights;
    ``width`` is a residual stream; ``mlp`` lies between linear layers; everything else is a ``channel``.
    """
    calls = list(_calls(solver))
    heads = set(_heads(solver, calls))
    inside = set(_inside_heads(solver, calls, heads)) - heads
    batched = set(_batched(solver, calls)) - heads - inside
    widths = set(_widths(solver, calls))
    found: dict[Atom, Kind] = {}
    for leaf, held in members.items():
        found[leaf] = (
            "head"
            if leaf in heads
            else "head_dim"
            if leaf in inside
            else "hidden"
            if _meets_itself(held)
            else "expert"
            if leaf in batched and _outermost(solver, leaf, held)
            else "width"
            if leaf in widths
            else "mlp"
            if _between_linears(solver, held)
            else "channel"
        )
    return found


def _calls(solver: Solver) -> Iterator[tuple[str, fx.Node]]:
    for node in solver.trace.graph_module.graph.nodes:
        if name := operation_name(node):
            yield name, node


def _open(axes: Iterable[Atom]) -> Iterator[Atom]:
    """Yield the leaves that aren't frozen."""
    for atom in axes:
        for leaf in leaves(atom):
            if not leaf.reason and leaf.size > 1:
                yield leaf


def _axes(solver: Solver, node: object) -> list[Atom]:
    if isinstance(node, fx.Node) and isinstance(node.meta.get("val"), Tensor):
        return solver.axes(node)
    return []


def _heads(solver: Solver, calls: Sequence[tuple[str, fx.Node]]) -> Iterator[Atom]:
    """What the scores of positions against positions are softened apart from."""
    for name, node in calls:
        if "scaled_dot_product" in name:
            yield from _open(_axes(solver, node.args[0])[:-2])
        elif name in _SOFT:
            axes = _axes(solver, node.args[0])
            if len(axes) > 2 and not any(_open(axes[-1:])):
                yield from _open(axes[:-2])


def _inside_heads(solver: Solver, calls: Sequence[tuple[str, fx.Node]], heads: set[Atom]) -> Iterator[Atom]:
    """What is contracted or carried within a head."""
    for name, node in calls:
        if "scaled_dot_product" in name:
            yield from _open([_axes(solver, node.args[0])[-1], _axes(solver, node.args[2])[-1]])
        elif name in PRODUCTS:
            left, right = (_axes(solver, item) for item in node.args[-2:])
            if heads & {leaf for atom in left[:-2] for leaf in leaves(atom)}:
                yield from _open([*left[-2:], *right[-2:]])


def _batched(solver: Solver, calls: Sequence[tuple[str, fx.Node]]) -> Iterator[Atom]:
    for name, node in calls:
        if name in PRODUCTS:
            yield from _open(_axes(solver, node.args[-1])[:-2])


def _widths(solver: Solver, calls: Sequence[tuple[str, fx.Node]]) -> Iterator[Atom]:
    """What an addition of two branches joins. A branch is named after what made it; constants and weights have no name."""
    made_by: dict[fx.Node, fx.Node] = {}
    for name, node in calls:
        origins = [made_by[item] for item in node.all_input_nodes if item in made_by]
        if name == "add" and len(set(origins)) > 1:
            yield from _open(_axes(solver, node))
        if name in _MAKES or len(set(origins)) > 1:
            made_by[node] = node
        elif origins:
            made_by[node] = origins[0]
        for user in node.users:
            if getattr(user.target, "__name__", "") == "getitem":
                made_by[user] = made_by.get(node, node)


def _meets_itself(members: Sequence[Member]) -> bool:
    """A state goes in and comes out of one weight."""
    dims: dict[str, set[int]] = {}
    for member in members:
        if member.is_parameter:
            dims.setdefault(member.tensor, set()).add(member.dim)
    return any(len(found) > 1 for found in dims.values())


def _outermost(solver: Solver, leaf: Atom, members: Sequence[Member]) -> bool:
    return any(m.dim == 0 and len(solver.states[m.tensor]) > 2 and m.index.shape[1] == 1 for m in members)


def _between_linears(solver: Solver, members: Sequence[Member]) -> bool:
    """It is made by one matrix and read by another; matrices of experts may lie stacked."""
    weights = [m for m in members if m.is_parameter and len(solver.states[m.tensor]) > 1]
    return {m.dim - len(solver.states[m.tensor]) + 2 for m in weights} == {0, 1}
