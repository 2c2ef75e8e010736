"""Which numbers of a trace follow the sizes of the inputs, and which were settled by those of the example?

The model is traced once more with symbols for the sizes of its inputs. Both traces run the same operations, so that every number of
the one has an expression in the other: a division by the length, the end of a slice, the places after a convolution. What the
model asked about a symbol on the way (is it above 10?) says where another size might run something else.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree

from prunus.core.errors import ModelError
from prunus.graph.solver.axes import Atom, find
from prunus.graph.solver.solve import Solver
from prunus.graph.tracing.trace import Trace, operation_name, trace

__all__ = ["FollowedSizes", "follow_sizes"]


@dataclass(frozen=True)
class FollowedSizes:
    """What follows the sizes of the inputs, as sympy's expressions of symbols.

    ``symbol_of`` are the symbols by input and dimension; ``arguments`` those of the trace's operations, with expressions in the
    place of numbers; ``axes`` the sizes of axes. ``asked`` are the conditions that held for the example.
    """

    symbol_of: Mapping[tuple[int, int], Any]
    arguments: Mapping[fx.Node, tuple[Any, Any]]
    axes: Mapping[Atom, Any]
    asked: tuple[Any, ...]

    @functools.cached_property
    def symbols(self) -> dict[Any, tuple[int, int]]:
        """Where each symbol is read: the first dimension that has it."""
        return {symbol: place for place, symbol in reversed([*self.symbol_of.items()])}

    def beyond(self, places: Sequence[tuple[int, int]], example: int) -> Iterator[int]:
        """Yield the sizes next to ``example`` at which a comparison that the model made of that size alone comes out otherwise.

        Farther away, only those are looked at that the comparison names, and what is next to them.
        """
        symbol = next((self.symbol_of[place] for place in places if place in self.symbol_of), None)
        for condition in self.asked:
            if condition.free_symbols == {symbol} and condition.is_Relational:
                named = sorted({int(n) + step for n in condition.atoms() if n.is_Integer for step in (-1, 0, 1)})
                above = itertools.chain(range(example + 1, 4 * example + 64), (n for n in named if n > example))
                for way in (above, range(example - 1, 0, -1)):
                    yield from itertools.islice((n for n in way if not _holds(condition, symbol, n)), 1)


def _holds(condition: Any, symbol: Any, size: int) -> bool:
    try:
        return bool(condition.subs(symbol, size))
    except (ArithmeticError, TypeError):
        return False


def follow_sizes(
    model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any] | None, solver: Solver
) -> FollowedSizes | None:
    """Return what follows the sizes of the inputs in the trace of ``solver``; None where that can't be told."""
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    if solver.trace.recorded:
        return None
    symbols = ShapeEnv(duck_shape=False)
    try:
        general = trace(model, inputs, kwargs, symbols=symbols)
    except ModelError:
        return None
    pairs = _paired(solver.trace, general)
    if pairs is None:
        return None
    placeholders = [node for node in general.graph_module.graph.nodes if node.op == "placeholder"]
    of: dict[tuple[int, int], Any] = {}
    for number, node in enumerate(placeholders[len(general.states) :]):
        for dim, size in enumerate(node.meta["val"].shape):
            expression = _expression(size)
            if getattr(expression, "is_Symbol", False):
                of[number, dim] = expression
    arguments = {old: map_aggregate((new.args, new.kwargs), _of_node) for old, new in pairs}
    axes: dict[Atom, Any] = {}
    for old, new in pairs:
        for known, value in _values(solver.values.get(old), new.meta.get("val")):
            for atom, size in zip(known, value.shape, strict=False):
                expression = _expression(size)
                if not isinstance(expression, int) and find(atom).kind == "leaf":
                    axes.setdefault(find(atom), expression)
    asked = tuple(dict.fromkeys(guard.expr for guard in symbols.guards))
    return FollowedSizes(of, arguments, axes, asked)


def _paired(one: Trace, other: Trace) -> list[tuple[fx.Node, fx.Node]] | None:
    """Return the operations of two traces in pairs: slices that take everything are left out where the size is known."""
    pairs = []
    waiting = [node for node in other.graph_module.graph.nodes if _computes(node)][::-1]
    for node in one.graph_module.graph.nodes:
        if not _computes(node):
            continue
        while waiting and not _alike(node, waiting[-1]):
            if operation_name(waiting.pop()) not in ("slice", "alias"):
                return None
        if not waiting:
            return None
        pairs.append((node, waiting.pop()))
    return pairs


def _alike(one: fx.Node, other: fx.Node) -> bool:
    """Tell whether two operations are the same, for the sizes of the example."""
    if one.target is not other.target:
        return False
    if operation_name(one) == "slice" and one.args[1:2] != other.args[1:2]:
        return False
    pair = zip(pytree.tree_leaves(one.meta.get("val")), pytree.tree_leaves(other.meta.get("val")), strict=False)
    return all(list(a.shape) == [_hint(n) for n in b.shape] for a, b in pair if isinstance(a, Tensor))


def _hint(size: Any) -> int:
    return int(size.node.hint) if isinstance(size, torch.SymInt) else int(size)


def _computes(node: fx.Node) -> bool:
    return operation_name(node) not in ("", "sym_size", "sym_stride", "sym_numel", "sym_storage_offset")


def _expression(size: Any) -> Any:
    """Return the expression of a size, or the number that it is."""
    if not isinstance(size, torch.SymInt | torch.SymFloat):
        return size
    expression = size.node.expr
    if expression.free_symbols:
        return expression
    return int(expression) if isinstance(size, torch.SymInt) else float(expression)


def _of_node(value: Any) -> Any:
    made = value.meta.get("val") if isinstance(value, fx.Node) else None
    return _expression(made) if isinstance(made, torch.SymInt | torch.SymFloat) else value


def _values(axes: Any, value: Any) -> Iterator[tuple[list[Atom], Tensor]]:
    """Yield the axes and the tensor of a value, or of each in a list of them."""
    if isinstance(value, Tensor):
        if axes is not None:
            yield axes, value
    elif isinstance(value, list | tuple):
        for part, own in zip(value, axes or (), strict=False):
            yield from _values(own, part)
