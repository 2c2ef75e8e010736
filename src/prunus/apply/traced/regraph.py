"""What does the traced computation look like after the cut?

Every size in the trace follows from the axes: a view to 768 = heads x 64 becomes one to what is left of both. Sizes that come
from the inputs (the batch) are read off them when the graph runs. The result is the reference for the mended module, and the
model itself where no mending helps.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from prunus.apply.traced.limits import Limits
from prunus.core.forms import Form
from prunus.core.signature import Signature
from prunus.graph import Solution
from prunus.graph.solver.axes import Atom, cut, find, fold, leaves
from prunus.graph.solver.sizes import FollowedSizes
from prunus.graph.solver.solve import Solver

__all__ = ["Called", "PrunedGraph", "resized"]

aten = torch.ops.aten


Guard = Callable[["PrunedGraph", Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]
"""Runs a computation on its tensors and its inputs."""


class Called(Protocol):
    """Whatever says how a computation is called, and what holds its answer: a trace, or a file."""

    @property
    def answer(self) -> Form:
        """What the tensors are given in."""
        ...

    @property
    def signature(self) -> Signature:
        """How its tensors may come."""
        ...


class PrunedGraph(nn.Module):
    """The traced computation on sliced tensors; it takes what the model took, and gives its tensors in what the model held them in.

    Its tensors are called as in the model that was traced. ``folded`` says by what the class beside it has multiplied some of
    them, to make good for scales that it computes anew (:mod:`prunus.apply.classes.attention_scales`). ``limits`` say for which
    inputs it holds. Where the computation came from elsewhere, ``guard`` runs it, on what it has looked at.
    """

    def __init__(
        self, graph_module: fx.GraphModule, states: Mapping[str, Tensor], parameters: frozenset[str], called: Called
    ) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.names = tuple(states)
        self.folded: dict[str, Tensor] = {}
        self.limits: Limits | None = None
        self.guard: Guard | None = None
        self.answer, self.signature = called.answer, called.signature
        for name, value in states.items():
            path, _, own = name.rpartition(".")
            holder = _holder(self, path)
            if name in parameters:
                holder.register_parameter(own, value if isinstance(value, nn.Parameter) else nn.Parameter(value))
            else:
                holder.register_buffer(own, value)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Run the traced operations."""
        given = self.signature.tensors(inputs, kwargs)
        if self.limits is not None:
            self.limits.check_sizes(given, self.signature.names)
        states = [operator.attrgetter(name)(self) for name in self.names]
        outputs = self.graph_module(*states, *given) if self.guard is None else self.guard(self, states, given)
        if self.limits is not None and self.limits.read:
            outputs, read = outputs[: -len(self.limits.read)], outputs[-len(self.limits.read) :]
            self.limits.check_read(read)
        return self.answer.filled(outputs)


def _holder(root: nn.Module, path: str) -> nn.Module:
    """Return the submodule at ``path``, made of empty modules where it isn't there."""
    for part in path.split(".") if path else ():
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]  # type: ignore[assignment]
    return root


def resized(
    solution: Solution, kept: Mapping[str, int], followed: FollowedSizes | None = None, *, reads: bool = False
) -> fx.GraphModule:
    """Return the trace with all sizes as they are when group ``name`` keeps ``kept[name]`` units.

    Args:
        followed: which numbers follow the sizes of the inputs; without it, those that are sizes of the inputs' own axes do.
        reads: whether the values that the model read numbers out of come out, too, after the outputs.
    """
    read = solution.solver.trace.reads if reads else ()
    return _Rewriter(solution.solver, solution.sizes(kept), followed, read).run()


class _Rewriter:
    """Copy a trace, writing every size as an expression of the inputs and the cut axes."""

    def __init__(
        self, solver: Solver, sizes: Mapping[Atom, int], followed: FollowedSizes | None, reads: Sequence[fx.Node]
    ) -> None:
        self.solver, self.sizes, self.followed, self.reads = solver, sizes, followed, reads
        self.graph = fx.Graph()
        self.made: dict[fx.Node, Any] = {}
        self.of_input: dict[Atom, tuple[fx.Node, int]] = {}
        self.measured: dict[Atom, Any] = {}
        self.written: dict[Any, Any] = {}
        self.given: list[fx.Node] = []
        self.first: fx.Node | None = None

    def run(self) -> fx.GraphModule:
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
        resize = _RESIZE.get(name)
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


def _restride(rewriter: _Rewriter, old: Any, new: Any) -> None:
    new.target, new.args, new.kwargs = aten.alias.default, new.args[:1], {}


def _at(node: Any, position: int, value: Any) -> None:
    if position < len(node.args):
        node.update_arg(position, value)


def _all_of_shape(position: int) -> Callable[[_Rewriter, fx.Node, fx.Node], None]:
    def resize(rewriter: _Rewriter, old: Any, new: Any) -> None:
        _at(new, position, rewriter.shape(old))

    return resize


def _repeat(rewriter: _Rewriter, old: Any, new: Any) -> None:
    """What was one becomes as many as there are; several copies of more than one are a factor that nothing cuts."""
    source, out = rewriter.axes(old.args[0]), rewriter.axes(old)
    new_dims = len(out) - len(source)
    counts = [
        rewriter.size(atom) if dim < new_dims or source[dim - new_dims].size == 1 else count
        for dim, (atom, count) in enumerate(zip(out, new.args[1], strict=True))
    ]
    _at(new, 1, counts)


def _view(rewriter: _Rewriter, old: Any, new: Any) -> None:
    """A view that the strides allowed may not be one at other sizes: a reshape is the same view where it can be one."""
    new.target = aten.reshape.default
    new.args, new.kwargs = (new.args[0], rewriter.shape(old)), {}


def _split(rewriter: _Rewriter, old: Any, new: Any) -> None:
    dim = old.args[2] if len(old.args) > 2 else old.kwargs.get("dim", 0)
    sizes = [rewriter.size(axes[dim]) for axes in rewriter.solver.values[old]]
    unsafe = old.target.overloadpacket.__name__.startswith("unsafe")  # results that may be written in place
    new.target = aten.unsafe_split_with_sizes.default if unsafe else aten.split_with_sizes.default
    new.args = (new.args[0], sizes, dim)
    new.kwargs = {}


def _slice(rewriter: _Rewriter, old: Any, new: Any) -> None:
    """A stretch starts after what is left of the parts before it."""
    dim = old.args[1] if len(old.args) > 1 else 0
    step = old.args[4] if len(old.args) > 4 else 1
    source, out = rewriter.axes(old.args[0])[dim], rewriter.axes(old)[dim]
    if find(source) is find(out) or step != 1:
        if find(source) is find(out):
            new.args = (new.args[0], dim, 0, 2**63 - 1, 1)
        return
    if rewriter.untouched(source):
        return
    start = slice(old.args[2], old.args[3], 1).indices(source.size)[0]
    before = _prefix(find(source), start)
    begin: Any = 0
    for atom in before:
        begin = rewriter.combine(operator.add, begin, rewriter.size(atom))
    new.args = (new.args[0], dim, begin, rewriter.combine(operator.add, begin, rewriter.size(out)), 1)


def _prefix(root: Atom, start: int) -> list[Atom]:
    """Return the atoms that fill the first ``start`` positions of a sum."""
    found: list[Atom] = []
    pending = [root]
    while start and pending:
        part = find(pending.pop())
        if part.size <= start:
            found.append(part)
            start -= part.size
        elif part.kind == "product":
            # A stretch of the slowest factor: so many whole copies of the rest.
            pieces = cut(part, [start, part.size - start])
            return [*found, pieces[0]] if pieces else found
        else:
            pending.extend(reversed(part.parts))
    return found


def _group_norm(rewriter: _Rewriter, old: Any, new: Any) -> None:
    batch, channels, *rest = rewriter.shape(old.args[0])
    area: Any = 1
    for size in rest:
        area = rewriter.combine(operator.mul, area, size)
    for position, value in zip((3, 4, 5), (batch, channels, area), strict=True):
        _at(new, position, value)
    if old.args[6] == rewriter.axes(old.args[0])[1].size:  # a group for each channel goes with its channel
        _at(new, 6, channels)


def _layer_norm(rewriter: _Rewriter, old: Any, new: Any) -> None:
    n = len(old.args[1])
    _at(new, 1, [rewriter.size(atom) for atom in rewriter.axes(old.args[0])[-n:]])


def _convolution(rewriter: _Rewriter, old: Any, new: Any) -> None:
    groups = old.args[8]
    if groups == 1:
        return
    x, weight, transposed = old.args[0], old.args[1], old.args[6]
    channels = rewriter.size(rewriter.axes(old if transposed else x)[1])
    per_group = rewriter.size(rewriter.axes(weight)[1])
    if isinstance(channels, int) and isinstance(per_group, int):
        _at(new, 8, channels // per_group)


def _attention(rewriter: _Rewriter, old: Any, new: Any) -> None:
    """The scale defines the function: where it follows from the head dimension, it stays what it was.

    Fused kernels want one head dimension for all three operands; the plain one doesn't. Those of a GPU also want certain sizes and
    no double precision, and aren't there elsewhere. All read a mask of another type than the query's as garbage: a trace in
    single precision made it, and the graph may run in another one.
    """
    query, value = (rewriter.axes(node)[-1] for node in old.args[:3:2])
    named = {argument.name: argument.default_value for argument in old.target._schema.arguments}
    named |= dict(zip(named, new.args, strict=False)) | dict(new.kwargs)
    if named["scale"] is None:
        named["scale"] = query.size**-0.5
        new.kwargs = {**new.kwargs, "scale": named["scale"]}
    mask = named.get("attn_mask", named.get("attn_bias"))
    if isinstance(mask, fx.Node) and mask.meta["val"].is_floating_point():
        cast = rewriter.graph.call_function(aten.type_as.default, (mask, named["query"]))
        cast.meta = mask.meta
        new.replace_input_with(mask, cast)
        mask = cast
    packet = old.target.overloadpacket
    if packet is not _PLAIN and (packet is not _FOR_CPU or rewriter.size(query) != rewriter.size(value)):
        new.target = _PLAIN.default
        new.args = (named["query"], named["key"], named["value"])
        new.kwargs = {
            "attn_mask": mask,
            "dropout_p": named["dropout_p"],
            "is_causal": named["is_causal"],
            "scale": named["scale"],
        }


def _arange(rewriter: _Rewriter, old: Any, new: Any) -> None:
    """Count as far as the dimension goes that the numbers stand for: the batch, or a sequence."""
    axis = find(rewriter.axes(old)[0])
    size = rewriter.size(axis) if axis in rewriter.of_input else axis.size
    if isinstance(size, int):
        return
    name = str(old.target._overloadname)
    if name == "default":
        _at(new, 0, size)
    elif name == "start" or (name == "start_step" and (old.args[2] if len(old.args) > 2 else 1) == 1):
        _at(new, 1, rewriter.combine(operator.add, old.args[0], size) if old.args[0] else size)


def _recurrent(rewriter: _Rewriter, old: Any, new: Any) -> None:
    """A first state that the trace made in single precision goes along with what the layer reads."""

    def cast(state: Any) -> Any:
        return rewriter.graph.call_function(aten.type_as.default, (state, new.args[0]))

    held = new.args[1]
    _at(new, 1, [cast(state) for state in held] if isinstance(held, list | tuple) else cast(held))


def _embedding_bag(rewriter: _Rewriter, old: Any, new: Any) -> None:
    """The traced variant has no gradient."""
    new.target = aten._embedding_bag.default


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Mul": operator.mul,
    **dict.fromkeys(("FloorDiv", "CleanDiv"), operator.floordiv),
    **dict.fromkeys(("Mod", "PythonMod"), operator.mod),
    **dict.fromkeys(("IntTrueDiv", "FloatTrueDiv"), operator.truediv),
    **dict.fromkeys(("Pow", "FloatPow", "PowByNatural"), operator.pow),
}
_PLAIN = aten._scaled_dot_product_attention_math
_FOR_CPU = aten._scaled_dot_product_flash_attention_for_cpu
_RESIZE: dict[str, Callable[[_Rewriter, fx.Node, fx.Node], None]] = {
    **dict.fromkeys(
        ("expand", "new_zeros", "new_ones", "new_empty", "new_full"),
        _all_of_shape(1),
    ),
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), _view),
    **dict.fromkeys(("zeros", "ones", "full", "empty", "rand", "randn"), _all_of_shape(0)),
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"), _split),
    "repeat": _repeat,
    "slice": _slice,
    "as_strided_": _restride,
    "as_strided": _restride,
    "native_group_norm": _group_norm,
    "native_layer_norm": _layer_norm,
    "convolution": _convolution,
    "arange": _arange,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    "_embedding_bag_forward_only": _embedding_bag,
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_attention_math",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_fused_attention_overrideable",
        ),
        _attention,
    ),
}
