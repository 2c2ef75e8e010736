"""How is a trace copied with every size as an expression of the inputs' sizes and of what is left of the axes?"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from prunus.graph.solver.axes import Atom, find, fold, leaves
from prunus.graph.solver.sizes import FollowedSizes
from prunus.graph.solver.solve import Solver

__all__ = ["Resize", "Rewriter"]

aten = torch.ops.aten
Resize = Callable[["Rewriter", fx.Node, fx.Node], None]
"""Writes the sizes in the copy of an operation, given the rewriter, the operation and its copy."""

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Mul": operator.mul,
    **dict.fromkeys(("FloorDiv", "CleanDiv"), operator.floordiv),
    **dict.fromkeys(("Mod", "PythonMod"), operator.mod),
    **dict.fromkeys(("IntTrueDiv", "FloatTrueDiv"), operator.truediv),
    **dict.fromkeys(("Pow", "FloatPow", "PowByNatural"), operator.pow),
}


class Rewriter:
    """Copy a trace, writing every size as an expression of the inputs and the cut axes."""

    def __init__(
        self,
        solver: Solver,
        sizes: Mapping[Atom, int],
        followed: FollowedSizes | None,
        reads: Sequence[fx.Node],
        rules: Mapping[str, Resize],
    ) -> None:
        self.solver, self.sizes, self.followed, self.reads, self.rules = solver, sizes, followed, reads, rules
        self.graph = fx.Graph()
        self.made: dict[fx.Node, Any] = {}
        self.of_input: dict[Atom, tuple[fx.Node, int]] = {}
        self.measured: dict[Atom, Any] = {}
        self.written: dict[Any, Any] = {}
        self.given: list[fx.Node] = []
        self.first: fx.Node | None = None

    def run(self) -> fx.GraphModule:
        """Return the copy."""
        source = self.solver.trace.graph_module
        given = iter(self.solver.inputs)
        n_states, seen = len(self.solver.trace.states), 0
        for place, node in enumerate(source.graph.nodes):
            if node.target is operator.getitem and not node.users:
                continue  # another kernel may give back fewer values
            self.made[node] = new = self.graph.node_copy(node, lambda n: self.made[n])
            new.meta["number"] = place
            if node.op == "placeholder":
                seen += 1
                if seen > n_states:
                    self.given.append(new)
                    for dim, atom in enumerate(next(given)):
                        self.of_input.setdefault(find(atom), (new, dim))
                continue
            self.first = self.first or new
            if node.op == "output":
                outputs: Any = new.args[0]
                new.args = ([*outputs, *(self.made[read] for read in self.reads)],)
            if node.op == "call_function":
                self._renumber(node, new)
                self._resize(node, new)
        for node in reversed(self.graph.nodes):
            if not node.users and node.target in (aten.sym_size.int, *_ARITHMETIC.values()):
                self.graph.erase_node(node)  # a size that another way to it made needless
        return fx.GraphModule(source, self.graph)

    def _resize(self, old: Any, new: Any) -> None:
        if not isinstance(old.target, torch._ops.OpOverload):
            return
        name = old.target.overloadpacket.__name__
        resize = self.rules.get(name)
        if resize is not None:
            with self.graph.inserting_before(new):
                resize(self, old, new)

    def _renumber(self, old: fx.Node, new: fx.Node) -> None:
        """Write the numbers of an operation that follow sizes of inputs as expressions of them."""
        if self.followed is not None and old in self.followed.arguments:
            args, kwargs = self.followed.arguments[old]
            new.args, new.kwargs = self._merged(new.args, args), self._merged(new.kwargs, kwargs)

    def _merged(self, own: Any, other: Any) -> Any:
        if isinstance(own, Mapping):
            return {name: self._merged(value, other.get(name)) for name, value in own.items()}
        if isinstance(own, tuple | list) and isinstance(other, tuple | list):
            return type(own)([*map(self._merged, own, other), *own[len(other) :]])
        number = isinstance(own, int | float) and not isinstance(own, bool)
        return self.write(other, own) if number and hasattr(other, "free_symbols") else own

    def write(self, expression: Any, example: Any) -> Any:
        """Return a node that computes ``expression`` before the first operation; ``example`` where it can't be written."""
        if self.followed is None or not expression.free_symbols <= self.followed.symbols.keys():
            return example
        assert self.first is not None
        with self.graph.inserting_before(self.first):
            made = self._write(expression)
        return example if made is None else made

    def _write(self, expression: Any) -> Any:
        if expression in self.written:
            return self.written[expression]
        assert self.followed is not None
        name = type(expression).__name__
        if expression.is_Symbol:
            number, dim = self.followed.symbols[expression]
            made = self.graph.call_function(aten.sym_size.int, (self.given[number], dim))
        elif expression.is_Integer:
            return int(expression)
        elif expression.is_number:
            return float(expression)
        else:
            parts = [self._write(part) for part in expression.args]
            if None in parts or (name != "ToFloat" and name not in _ARITHMETIC):
                return None
            made = parts[0]
            for part in parts[1:]:
                made = self.graph.call_function(_ARITHMETIC[name], (made, part))
        self.written[expression] = made
        return made

    def axes(self, node: fx.Node) -> list[Atom]:
        """Return the axes of a value of the original trace."""
        return self.solver.axes(node)

    def size(self, atom: Atom) -> Any:
        """Return what is left of an axis: a number, or a node that reads it off an input."""
        return fold(atom, self._known, self._of_parts)

    def _known(self, root: Atom) -> Any:
        if root in self.measured:
            return self.measured[root]
        if root in self.of_input and root not in self.sizes:
            source, dim = self.of_input[root]
            found = self.measured[root] = self._early(source, aten.sym_size.int, (source, dim))
            return found
        if root.kind == "leaf" and root not in self.sizes and self.followed is not None and root in self.followed.axes:
            return self.write(self.followed.axes[root], root.size)
        return self.sizes.get(root, root.size) if root.kind == "leaf" else None

    def _of_parts(self, root: Atom, parts: Sequence[Any]) -> Any:
        operation = operator.mul if root.kind == "product" else operator.add
        return functools.reduce(lambda one, other: self.combine(operation, one, other), parts)

    def untouched(self, atom: Atom) -> bool:
        """Tell whether nothing of an axis was cut, so that numbers in the trace still hold for it."""
        return not any(leaf in self.sizes for leaf in leaves(atom))

    def combine(self, operation: Callable[[Any, Any], Any], one: Any, other: Any) -> Any:
        """Return the sum or product of two sizes, of which each is a number or a node."""
        if isinstance(one, int) and isinstance(other, int):
            return operation(one, other)
        return self.graph.call_function(operation, (one, other))

    def _early(self, source: fx.Node, target: Callable[..., Any], arguments: tuple[Any, ...]) -> fx.Node:
        last = [node for node in self.graph.nodes if node.op == "placeholder"][-1]
        with self.graph.inserting_after(last):
            return self.graph.call_function(target, arguments)

    def shape(self, node: fx.Node) -> list[Any]:
        """Return what is left of every dimension of a value."""
        return [self.size(atom) for atom in self.axes(node)]
