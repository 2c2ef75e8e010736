"""Does a computation fit its inputs, and what will it cost, before any memory is taken for it?

It is run on the meta device, where tensors have sizes and no values. Every operation that is reached there, also within
another one, is checked against :mod:`prunus.ship.graph_files.size_relations` and counted. What can't be followed without values
is refused. The same holds for whatever comes later: a :class:`Guard` follows the computation again for every new shape of its
inputs.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from prunus.apply.traced.limits import BATCH, Limits, Span
from prunus.apply.traced.regraph import PrunedGraph
from prunus.core.code.imports import one_line
from prunus.core.errors import BundleError, ShapeError, raise_if_out_of_memory
from prunus.ship.graph_files.argument_types import LARGEST_INT, arguments_of
from prunus.ship.graph_files.operation_costs import cost_of
from prunus.ship.graph_files.size_relations import RELATIONS, SHAPES
from prunus.ship.graph_limits import GraphLimits, TooCostlyError, usual_limits
from prunus.ship.inputs import Inputs, shapes

__all__ = ["Cost", "Guard", "check_runs", "follow"]

_OPEN_END = 2**63 - 1
_MOST_TENSORS_PER_NODE = 4


@dataclass(frozen=True)
class Cost:
    """What one run takes: see :class:`GraphLimits`."""

    n_nodes: int
    tensor_bytes: int
    live_bytes: int
    arithmetic: float


def follow(
    graph: PrunedGraph, inputs: Sequence[Tensor], limits: GraphLimits | None = None
) -> tuple[list[Tensor], Cost]:
    """Return what ``graph`` gives for inputs of these shapes and types (on the meta device), and what it takes.

    Raises:
        BundleError: an operation doesn't take what it is given, can't be followed without values, or takes too much; the message
            names node, operation and reason.
    """
    nodes = graph.graph_module.graph.nodes
    limits = usual_limits() if limits is None else limits
    if len(nodes) > limits.n_nodes:
        raise TooCostlyError(f"a graph of at most {limits.n_nodes} nodes was expected, got {len(nodes)}")
    with torch._C.DisableTorchFunction(), torch.inference_mode(False), torch.no_grad():
        return _follow(graph, inputs, limits)


def _follow(graph: PrunedGraph, inputs: Sequence[Tensor], limits: GraphLimits) -> tuple[list[Tensor], Cost]:
    nodes = graph.graph_module.graph.nodes
    states = [_shape_of(operator.attrgetter(name)(graph)) for name in graph.names]
    given = iter([*states, *(_shape_of(value) for value in inputs)])
    watch = _Watch(limits, max([1, *(len(value) for value in inputs if value.dim())]))
    values: dict[fx.Node, Any] = {}
    last = {source: node for node in nodes for source in node.all_input_nodes}
    held = _Held()
    for value in states:
        held.weights.add(value.untyped_storage()._cdata)
    with watch:
        for node in nodes:
            if node.op == "output":
                return [values[source] for source in node.all_input_nodes], watch.cost(len(nodes))
            try:
                values[node] = made = _run(node, given, values, graph.graph_module, watch)
                watch.live(held.add(made), limits)
            except BundleError as error:
                raise type(error)(f"node {node.name!r}, {_name(node)}: {error}") from error
            except NotImplementedError as error:
                raise BundleError(
                    f"node {node.name!r}, {_name(node)}: the sizes of its result can't be told without values ({_short(error)})"
                ) from error
            except Exception as error:
                raise_if_out_of_memory(error)
                raise BundleError(f"node {node.name!r}, {_name(node)}: it doesn't run: {_short(error)}") from error
            for source in {node, *node.all_input_nodes}:
                if last.get(source, node) is node:
                    held.drop(values.pop(source))
    raise BundleError("a graph has one output, got none")


def check_runs(graph: PrunedGraph, takes: Inputs, limits: GraphLimits | None = None) -> None:
    """Follow a graph on two examples of what it takes; where it doesn't say for which sizes it holds, it holds for these alone.

    Raises:
        BundleError: it doesn't take them, would take too much, or doesn't give two outputs.
    """
    given = shapes(takes, 2)
    if graph.limits is None:
        graph.limits = Limits(tuple((Span(1, None, BATCH), *(Span(n, n) for n in entry.shape)) for entry in takes))
    try:
        graph.limits.check_sizes(given, graph.signature.names)
    except ShapeError as error:
        raise BundleError(str(error)) from error
    outputs, _ = follow(graph, given, limits)
    if outputs[0].dim() == 0 or len(outputs[0]) != 2:
        raise BundleError(f"two inputs must give two outputs: got {tuple(outputs[0].shape)}")


def _shape_of(value: Tensor) -> Tensor:
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def _name(node: fx.Node) -> str:
    if node.op != "call_function":
        return node.op
    return str(node.target) if isinstance(node.target, torch._ops.OpOverload) else f"operator.{node.target.__name__}"  # type: ignore[union-attr]


def _short(error: Exception) -> str:
    return one_line(error)[:200]


def _run(node: fx.Node, given: Any, values: Mapping[fx.Node, Any], module: nn.Module, watch: _Watch) -> Any:
    if node.op == "placeholder":
        return next(given)
    if node.op == "get_attr":
        return _shape_of(getattr(module, str(node.target)))
    target: Any = node.target

    def resolved(part: Any) -> Any:
        if isinstance(part, fx.Node):
            return values[part]
        return "meta" if isinstance(part, torch.device) else part

    arguments: Any = map_aggregate(node.args, resolved)
    named: Any = map_aggregate(node.kwargs, resolved)
    if not isinstance(target, torch._ops.OpOverload):
        made = target(*arguments)
        if isinstance(made, int) and abs(made) > LARGEST_INT:
            raise BundleError(f"sizes of at most {LARGEST_INT} were expected, got one of {made.bit_length()} bits")
        if isinstance(made, complex):
            raise BundleError(f"a size, or a root of one, was expected: got {made}")
        return made
    return watch.call(target, arguments, named)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Checks and counts every operation that is reached on the meta device."""

    def __init__(self, limits: GraphLimits, n_examples: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limits, self.most_arithmetic = limits, limits.arithmetic_per_example * n_examples
        self.arithmetic, self.largest, self.most_live = 0.0, 0, 0
        self.n_made, self.most_made = 0, _MOST_TENSORS_PER_NODE * limits.n_nodes
        self.outer: Any = None

    def cost(self, n_nodes: int) -> Cost:
        """Return what was counted."""
        return Cost(n_nodes, self.largest, self.most_live, self.arithmetic)

    def call(self, target: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Run one node."""
        own = _plain_name(target)
        if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves((arguments, named))):
            named = {**named, "device": "meta"}  # it makes a tensor out of numbers, wherever it is told to
        given = self._check(own, target, arguments, named)
        if own in SHAPES:
            return self._count(own, target, given, SHAPES[own](given))
        self.outer = target
        made = target(*arguments, **named)
        if self.outer is target:  # it is made of others, which were counted, or gives a number
            self._count(own, target, given, made, parts_counted=True)
        return made

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Check, run and count what a node comes to."""
        own, named = _plain_name(func), kwargs or {}
        given = arguments_of(func, args, named) if func is self.outer else self._check(own, func, args, named)
        self.outer = None if func is self.outer else self.outer
        made = SHAPES[own](given) if own in SHAPES else func(*args, **named)
        return self._count(own, func, given, made)

    def _check(self, own: str, target: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        given = arguments_of(target, arguments, named)
        for argument in target._schema.arguments:
            _check_numbers(given.get(argument.name), str(argument.real_type))
        if (relation := RELATIONS.get(own)) is not None and (problem := relation(given)):
            raise BundleError(problem)
        return given

    def _count(self, own: str, target: Any, given: Mapping[str, Any], made: Any, *, parts_counted: bool = False) -> Any:
        leaves = pytree.tree_leaves(made)
        self.n_made += len(leaves)
        if self.n_made > self.most_made:
            raise TooCostlyError(f"at most {self.most_made} tensors in all were expected, got {self.n_made} up to here")
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                assert leaf.is_meta, f"{target} makes a tensor with values"
                # What a view shows may be far more than it holds: that counts where it is written.
                n_bytes = leaf.untyped_storage().nbytes()
                self.largest = max(self.largest, n_bytes)
                if n_bytes > self.limits.tensor_bytes:
                    raise TooCostlyError(
                        f"tensors of at most {self.limits.tensor_bytes} bytes were expected, got {n_bytes} for {tuple(leaf.shape)}"
                    )
        if not parts_counted:
            self.arithmetic += cost_of(own, given, made, is_view=_is_view(target))
        if self.arithmetic > self.most_arithmetic:
            raise TooCostlyError(
                f"at most {self.most_arithmetic:.3g} operations of arithmetic were expected, got {self.arithmetic:.3g} up to here"
            )
        return made

    def live(self, n_bytes: int, limits: GraphLimits) -> None:
        """Look at how much is held now."""
        self.most_live = max(self.most_live, n_bytes)
        if n_bytes > limits.live_bytes:
            raise TooCostlyError(f"at most {limits.live_bytes} bytes at once were expected, got {n_bytes}")


def _check_numbers(value: Any, kind: str) -> None:
    """Sizes and places stay so small that they can be multiplied."""
    if "number" in kind or not ("int" in kind or "SymInt" in kind):
        return
    for part in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(part, int) and abs(part) > LARGEST_INT and part != _OPEN_END:
            raise BundleError(f"sizes and places of at most {LARGEST_INT} were expected, got {part}")


def _plain_name(target: Any) -> str:
    name: str = target.overloadpacket.__name__
    return name.removesuffix("_")


def _is_view(target: Any) -> bool:
    """Tell whether an operation gives another view of what it takes, and writes nothing."""
    taken = [argument.alias_info for argument in target._schema.arguments]
    return any(info is not None and not info.is_write for info in taken)


@dataclass
class _Held:
    """The memory that values hold, each once, however many views there are of it."""

    weights: set[int] = field(default_factory=set)
    users: Counter[int] = field(default_factory=Counter)
    n_bytes: int = 0

    def add(self, made: Any) -> int:
        """Count the memory of a value, and return the bytes of all."""
        for key, size in _storages(made):
            if key not in self.weights:
                self.n_bytes += 0 if self.users[key] else size
                self.users[key] += 1
        return self.n_bytes

    def drop(self, made: Any) -> None:
        """Forget a value that nobody needs any more."""
        for key, size in _storages(made):
            if key not in self.weights:
                self.users[key] -= 1
                if not self.users[key]:
                    del self.users[key]
                    self.n_bytes -= size


def _storages(made: Any) -> Iterable[tuple[int, int]]:
    leaves = [leaf.untyped_storage() for leaf in pytree.tree_leaves(made) if isinstance(leaf, Tensor)]
    return {storage._cdata: storage.nbytes() for storage in leaves}.items()


class Guard:
    """Follows a computation before its first run on inputs of each shape and type.

    It costs two tenths of a millisecond for each node, once for a shape. What the computation raises comes as one line.
    """

    def __init__(self, limits: GraphLimits | None = None) -> None:
        self.limits = usual_limits() if limits is None else limits
        self.seen: set[tuple[Any, ...]] = set()

    def __call__(self, graph: PrunedGraph, states: Sequence[Tensor], inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the outputs of ``graph``, if it fits its tensors and these inputs.

        Raises:
            BundleError: it doesn't, would take too much, or fails.
        """
        run: Callable[..., Sequence[Tensor]] = graph.graph_module.forward
        if torch.compiler.is_compiling() or any(_is_traced(value) for value in inputs):
            return run(*states, *inputs)  # nothing is read and nothing taken
        shapes = tuple((value.shape, value.dtype) for value in (*states, *inputs))
        got = f"inputs of shape {', '.join(str(list(value.shape)) for value in inputs)}"
        if shapes not in self.seen:
            try:
                with _disable_current_modes():
                    follow(graph, inputs, self.limits)
            except BundleError as error:
                raise BundleError(
                    f"the bundle's graph can't run on {got}: {error}; give fewer examples at once"
                ) from error
            self.seen.add(shapes)
        try:
            return run(*states, *inputs)
        except Exception as error:  # what values decide shows only now: places out of range, types without a kernel
            raise_if_out_of_memory(error)
            raise BundleError(f"the bundle's graph fails on {got}: {_short(error)}") from error


def _is_traced(value: Tensor) -> bool:
    return isinstance(value, (FakeTensor, FunctionalTensor)) or value.is_meta
