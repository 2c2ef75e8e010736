"""What does every operation of a trace say about its dimensions?

The solver walks the trace once. A rule reads the axes of an operation's operands, unifies what must be the same, and returns
the axes of its results. An operation without a rule freezes what it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from prunus.core.errors import raise_if_out_of_memory
from prunus.graph.solver.axes import Atom, freeze, fresh, unify
from prunus.graph.tracing.eager_trace import MODULE
from prunus.graph.tracing.trace import Trace

__all__ = ["RULES", "Axes", "Call", "Solver", "arguments_of", "broadcast", "join", "rule"]

Axes = list[Atom]
Rule = Callable[["Call"], Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for the ATen operations of these names."""

    def register(function: Rule) -> Rule:
        for name in names:
            assert name not in RULES, f"two rules for {name}"
            RULES[name] = function
        return function

    return register


@dataclass
class Call:
    """One operation: its arguments by name, and what the solver knows of their axes."""

    solver: Solver
    node: fx.Node
    name: str
    arguments: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def axes(self, name: str) -> Axes:
        """Return the axes of a tensor argument."""
        return self.solver.axes(self.arguments[name])

    def has(self, name: str) -> bool:
        """Tell whether a tensor argument is given."""
        return isinstance(self.arguments.get(name), fx.Node)

    @property
    def operands(self) -> list[fx.Node]:
        """Every tensor that goes in, also those in lists."""
        found: list[fx.Node] = []
        for value in self.arguments.values():
            for item in value if isinstance(value, list | tuple) else [value]:
                if isinstance(item, fx.Node) and isinstance(item.meta.get("val"), Tensor):
                    found.append(item)  # noqa: PERF401 - two loops read better here
        return found

    @property
    def given(self) -> list[Axes]:
        """The axes of every tensor that goes in."""
        return [list(self.solver.axes(node)) for node in self.operands]

    @property
    def first(self) -> Axes:
        """The axes of the first tensor that goes in."""
        return self.given[0]

    @property
    def dim(self) -> int:
        """The dimension of the first tensor that the operation names, counted from the front."""
        return int(self["dim"] % len(self.first))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the (first) result."""
        value = self.node.meta["val"]
        return tuple(int(n) for n in (value[0] if isinstance(value, list | tuple) else value).shape)

    @property
    def where(self) -> str:
        """The operation and its module, for reasons."""
        module = (self.node.meta.get("custom") or {}).get(MODULE, "")
        return f"{self.name} in {module}" if module else self.name

    def freeze(self, axes: Sequence[Atom], why: str) -> None:
        """Freeze axes, naming this operation."""
        for atom in axes:
            if atom.size != 1:
                freeze(atom, f"{why} ({self.where})")

    def new(self, size: int, why: str) -> Atom:
        """Return a frozen axis that this operation makes."""
        return fresh(int(size), f"{why} ({self.where})")

    def resized(self, axes: Axes, why: str) -> Axes:
        """Return the axes of the result where they have the sizes of these, and new ones where they don't."""
        return [a if a.size == n else self.new(n, why) for a, n in zip(axes, self.shape, strict=True)]

    def alike(self, axes: Axes) -> Axes | list[Axes]:
        """Return ``axes`` for the result, or for each of several results."""
        value = self.node.meta["val"]
        return [list(axes) for _ in value] if isinstance(value, list | tuple) else axes

    def with_side_results(self, axes: Axes) -> list[Axes | None]:
        """Return ``axes`` for the first result and axes of their own for the tensors that come with it."""
        beside = (
            [self.new(n, "a side result") for n in value.shape] if isinstance(value, Tensor) else None
            for value in self.node.meta["val"][1:]
        )
        return [axes, *beside]


@dataclass
class Solver:
    """The axes of every value of one trace."""

    trace: Trace
    values: dict[fx.Node, Any] = field(default_factory=dict)
    states: dict[str, Axes] = field(default_factory=dict)
    inputs: list[Axes] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    unread: set[str] = field(default_factory=set)
    multiples: list[tuple[Atom, int]] = field(default_factory=list)  # sizes that a kernel wants to be multiples

    def axes(self, node: fx.Node) -> Axes:
        """Return one atom per dimension of a value."""
        found: Axes = self.values[node]
        return found

    def axis(self, node: fx.Node | None, dim: int) -> Atom | None:
        """Return the atom of one dimension of a value; None where there is none, as for a list of values."""
        axes = self.values.get(node) if node is not None else None
        return None if not axes or isinstance(axes[0], list) or dim >= len(axes) else axes[dim]

    def solve(self) -> None:
        """Walk the trace."""
        names = iter(self.trace.states)
        for node in self.trace.graph_module.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node, next(names, None))
            elif node.op == "get_attr":
                value = node.meta.get("val")
                value = getattr(self.trace.graph_module, node.target) if value is None else value
                node.meta["val"] = value
                shape = value.shape if isinstance(value, Tensor) else ()
                self.values[node] = [fresh(int(n), "a constant that forward makes") for n in shape]
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                for value in torch.utils._pytree.tree_leaves(node.args):
                    if isinstance(value, fx.Node):
                        for dim, atom in enumerate(self.axes(value)):
                            freeze(atom, f"it is the output's dimension {dim}")

    def _placeholder(self, node: fx.Node, state: str | None) -> None:
        shape = node.meta["val"].shape
        if state is not None:
            axes = self.states.get(state) or [fresh(int(n)) for n in shape]
            self.values[node] = self.states[state] = axes
            return
        number = len(self.inputs)
        axes = [fresh(int(n), f"it comes from input {number}, dimension {dim}") for dim, n in enumerate(shape)]
        self.values[node] = axes
        self.inputs.append(axes)

    def _call(self, node: fx.Node) -> None:
        if getattr(node.target, "__name__", "") == "getitem":
            source = self.values[node.args[0]]  # type: ignore[index]
            self.values[node] = source[node.args[1]]
            return
        if not isinstance(node.target, torch._ops.OpOverload):
            self.values[node] = None
            return
        name = node.target.overloadpacket.__name__
        call = Call(self, node, name, arguments_of(node))
        known = RULES.get(name) or RULES.get(name.removesuffix("_")) or _general(node.target)
        if known is None:
            self.unknown.add(name)
            known = RULES["no rule"]
        try:
            self.values[node] = known(call)
            self._check(node)
        except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise_if_out_of_memory(error)
            # A call that its rule can't read costs axes, never the analysis.
            self.unread.add(name)
            self.values[node] = RULES["no rule"](call)

    def _check(self, node: fx.Node) -> None:
        value = node.meta.get("val")
        pairs = (
            zip(value, self.values[node], strict=False)
            if isinstance(value, list | tuple)
            else [(value, self.values[node])]
        )
        for tensor, axes in pairs:
            if isinstance(tensor, Tensor):
                assert tuple(int(n) for n in tensor.shape) == tuple(a.size for a in axes), (node.format_node(), axes)


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """Return the arguments of an operation by name, defaults filled in."""
    bound: dict[str, Any] = {}
    for position, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if position < len(node.args):
            bound[argument.name] = node.args[position]
        else:
            bound[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return bound


def _general(target: torch._ops.OpOverload) -> Rule | None:
    """Return the rule that ATen's own tags imply."""
    return RULES["pointwise"] if torch.Tag.pointwise in target.tags else None


def join(one: Atom, other: Atom) -> Atom:
    """Unify two axes that are aligned by broadcasting and return the one of the result."""
    if one.size == 1:
        return other
    if other.size == 1:
        return one
    unify(one, other)
    return one


def broadcast(*operands: Axes) -> Axes:
    """Join the axes of operands that are aligned from the right, as element by element, and return those of the result."""
    rank = max(map(len, operands), default=0)
    result = [fresh(1) for _ in range(rank)]
    for axes in operands:
        for position, atom in enumerate(axes, start=rank - len(axes)):
            result[position] = join(result[position], atom)
    return result
