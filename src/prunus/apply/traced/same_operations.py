"""Do two models run the same operations on the same tensors? Then they compute the same, whatever the values are.

Both are followed on fake tensors, which takes a fraction of a run, however large the inputs are. Where the operations differ, the
two may still compute the same: that is for runs to say.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from prunus.apply.traced.regraph import PrunedGraph
from prunus.core.errors import ModelError
from prunus.graph.solver.solve import arguments_of
from prunus.graph.tracing.remembered import Remembered
from prunus.graph.tracing.trace import Trace, operation_name, trace
from prunus.graph.tracing.writes import base_of, written, written_by

__all__ = ["Likeness", "compared", "has_fast_kernels", "runs_without", "same_operations"]

Likeness = Literal["same", "numbers", "other", "unknown"]
"""Whether two computations are one; ``numbers``: but for numbers (a scale made of another width). ``unknown`` isn't followed."""

aten = torch.ops.aten


def has_fast_kernels(model: nn.Module) -> bool:
    """Tell whether a model has parts that torch runs by kernels of their own in evaluation, which no trace shows."""
    return any(isinstance(module, nn.MultiheadAttention | nn.TransformerEncoderLayer) for module in model.modules())


def compared(
    model: nn.Module,
    reference: Callable[[], PrunedGraph],
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    memory: Remembered | None = None,
) -> Likeness:
    """Return how what a class runs is like the traced computation (made when asked for) on the same tensors.

    Args:
        memory: what modules ran in earlier traces, where the class is only tried.
    """
    try:
        own = trace(model, inputs, kwargs, real=False, memory=memory)
    except ModelError:
        return "unknown"
    if own.states != reference().names:
        return "other"
    ours, theirs = own.graph_module.graph, reference().graph_module.graph
    return same_operations(ours, theirs, zip(_placeholders(theirs), _placeholders(ours), strict=True))


def runs_without(own: Trace, whole: Trace, silent: Set[str], names: Sequence[str]) -> bool:
    """Tell whether a model runs what another does of which some modules give back what they take, as far as anything comes out.

    Args:
        silent: the paths of these modules in ``whole``.
        names: what the states of ``own`` are called in ``whole``.
    """
    given = {call.made: call.given for call in whole.calls if call.name in silent}
    theirs, ours = _copied(whole.graph_module, given), _copied(own.graph_module, {})  # a trace is looked at again
    _drop_unused(theirs)
    _drop_unused(ours)
    state_of = dict(zip(whole.states, _placeholders(theirs), strict=False))
    known = [(state_of[name], node) for name, node in zip(names, _placeholders(ours), strict=False) if name in state_of]
    inputs = zip(_placeholders(theirs)[len(whole.states) :], _placeholders(ours)[len(own.states) :], strict=True)
    return same_operations(ours, theirs, [*known, *inputs]) == "same"


def _copied(graph_module: fx.GraphModule, instead: Mapping[fx.Node, fx.Node]) -> fx.Graph:
    """Return a copy of a graph in which some nodes are read in the place of others."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph_module.graph.nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
        copies[node] = copies[instead[node]] if node in instead else copies[node]
    graph.owning_module = graph_module
    return graph


def _drop_unused(graph: fx.Graph) -> None:
    """Erase what leads to no output, also where it writes into memory that nothing of what does reads."""
    needed: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        writes = {base_of(given) for given in written_by(node)}
        if node.op == "output" or node in needed or any(to.op == "placeholder" or to in needed for to in writes):
            needed |= {node, *node.all_input_nodes, *map(base_of, node.all_input_nodes)}
        elif node.op != "placeholder":
            graph.erase_node(node)


def _placeholders(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "placeholder"]


def same_operations(own: fx.Graph, reference: fx.Graph, known: Iterable[tuple[fx.Node, fx.Node]]) -> Likeness:
    """Return whether two graphs are one operation by operation.

    Args:
        own: a trace; sizes are read off its values.
        reference: another, or one whose sizes were written anew.
        known: the placeholders of ``reference`` and those of ``own`` that are the same tensors; the others have no counterpart.
    """
    walk = _Walk(known)
    ours = iter([node for node in own.nodes if _computes(node)])
    changed = written(own), written(reference)
    for node in reference.nodes:
        if not _computes(node):
            continue
        if _is_size(node):
            walk.known[node] = walk.evaluate(node)
        elif _is_copy(node, changed[1]):
            walk.known[node] = walk.known.get(node.args[0])
        else:
            mine = _next(ours, walk, changed[0])
            if mine is None or not walk.same(node, mine):
                return "other"
            walk.known[node] = mine
    if _next(ours, walk, changed[0]) is not None:
        return "other"
    return "numbers" if walk.numbers_differ else "same"


def _next(ours: Iterator[fx.Node], walk: _Walk, changed: Set[fx.Node]) -> fx.Node | None:
    """Return the next node that isn't a mere copy; those stand for what they copy."""
    for node in ours:
        if not _is_copy(node, changed):
            return node
        source: Any = node.args[0]
        walk.stands_for[node] = walk.stands_for.get(source, source)
    return None


def _computes(node: fx.Node) -> bool:
    return node.op != "placeholder" and not (node.target is operator.getitem and not node.users)


def _is_copy(node: fx.Node, changed: Set[fx.Node]) -> bool:
    """Tell whether a value is another one in another place, as the strides wanted it, of which neither is written to later."""
    return node.target == aten.clone.default and not {node, base_of(node.args[0])} & changed


def _is_size(node: fx.Node) -> bool:
    """Tell what was written to find a size, or to bring a value to another's precision, from what was traced."""
    arithmetic = getattr(node.target, "__module__", "") == "_operator" and node.target is not operator.getitem
    return node.op == "call_function" and (arithmetic or node.target in (aten.sym_size.int, aten.type_as.default))


class _Walk:
    """What the nodes of a reference are in the other graph: nodes, or numbers."""

    def __init__(self, known: Iterable[tuple[fx.Node, fx.Node]]) -> None:
        self.known: dict[fx.Node, Any] = dict(known)
        self.stands_for: dict[fx.Node, fx.Node] = {}
        self.numbers_differ = False

    def evaluate(self, node: fx.Node) -> Any:
        """Return the number that a size is, or the node that a value is but for its precision."""
        values: list[Any] = [self.known.get(a) if isinstance(a, fx.Node) else a for a in node.args]
        if node.target is aten.type_as.default:
            return values[0]
        if node.target is aten.sym_size.int:
            return None if values[0] is None else values[0].meta["val"].shape[values[1]]
        return None if None in values else node.target(*values)  # type: ignore[operator]

    def same(self, theirs: fx.Node, ours: fx.Node) -> bool:
        """Tell whether two nodes are the same operation on the same tensors."""
        if theirs.op != ours.op:
            return False
        if theirs.op == "get_attr":
            return _equal(*(getattr(node.graph.owning_module, str(node.target)) for node in (theirs, ours)))
        if theirs.target == ours.target and self.alike((theirs.args, theirs.kwargs), (ours.args, ours.kwargs)):
            return True
        if not operation_name(theirs) or not operation_name(ours):
            return False
        for names, compare in _SAME.items():
            if operation_name(theirs) in names and operation_name(ours) in names:
                return compare(self, arguments_of(theirs), arguments_of(ours), ours)
        return False

    def alike(self, theirs: Any, ours: Any) -> bool:
        """Tell whether two arguments are the same."""
        if isinstance(theirs, fx.Node):
            found = self.known.get(theirs)
            ours = self.stands_for.get(ours, ours) if isinstance(ours, fx.Node) else ours
            return found is ours if isinstance(found, fx.Node) else found is not None and bool(found == ours)
        if isinstance(theirs, list | tuple):
            same = isinstance(ours, list | tuple) and len(theirs) == len(ours)
            return same and all(map(self.alike, theirs, ours))
        if isinstance(theirs, Mapping):
            same = isinstance(ours, Mapping) and theirs.keys() == ours.keys()
            return same and all(self.alike(value, ours[name]) for name, value in theirs.items())
        if type(theirs) is type(ours) is float:
            self.numbers_differ = self.numbers_differ or theirs != ours
            return True
        return not isinstance(ours, fx.Node) and isinstance(theirs, bool) == isinstance(ours, bool) and theirs == ours

    def but(self, name: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
        """Tell whether all arguments but one are the same."""
        return self.alike({**theirs, name: None}, {**ours, name: None})


def _equal(one: Any, other: Any) -> bool:
    """Tell whether two constants are the same; of fake ones nobody knows."""
    plain = type(one) is type(other) and type(one) in (Tensor, nn.Parameter)
    return one is other or (plain and one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other))


def _view(walk: _Walk, theirs: Mapping[str, Any], ours: Mapping[str, Any], made: fx.Node) -> bool:
    sizes = theirs["shape"] if "shape" in theirs else theirs["size"]
    return walk.alike(theirs["self"], ours["self"]) and walk.alike(sizes, tuple(made.meta["val"].shape))


def _sized(walk: _Walk, theirs: Mapping[str, Any], ours: Mapping[str, Any], made: fx.Node) -> bool:
    return walk.but("size", theirs, ours) and walk.alike(theirs["size"], tuple(made.meta["val"].shape))


def _split(walk: _Walk, theirs: Mapping[str, Any], ours: Mapping[str, Any], made: fx.Node) -> bool:
    n_dims = made.meta["val"][0].dim()
    dims = theirs["dim"] % n_dims, ours["dim"] % n_dims
    sizes = [value.shape[dims[1]] for value in made.meta["val"]]
    return (
        walk.alike(theirs["self"], ours["self"]) and dims[0] == dims[1] and walk.alike(theirs.get("split_sizes"), sizes)
    )


def _slice(walk: _Walk, theirs: Mapping[str, Any], ours: Mapping[str, Any], made: fx.Node) -> bool:
    if not walk.alike(theirs["self"], ours["self"]) or theirs["dim"] != ours["dim"]:
        return False
    size = ours["self"].meta["val"].shape[ours["dim"]]

    def stretch(given: Mapping[str, Any]) -> Any:
        start, end = (walk.known.get(v) if isinstance(v, fx.Node) else v for v in (given["start"], given["end"]))
        return slice(start, end, given["step"]).indices(size)

    return bool(stretch(theirs) == stretch(ours))


def _attention(walk: _Walk, theirs: Mapping[str, Any], ours: Mapping[str, Any], made: fx.Node) -> bool:
    """Each kernel computes the same; the scale follows from the head dimension where it isn't given."""
    width = ours["query"].meta["val"].shape[-1]
    scales = [width**-0.5 if given["scale"] is None else given["scale"] for given in (theirs, ours)]
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    return walk.alike(*scales) and all(walk.alike(theirs.get(name), ours.get(name)) for name in names)


def _restrided(walk: _Walk, theirs: Mapping[str, Any], ours: Mapping[str, Any], made: fx.Node) -> bool:
    """Strides of dimensions of one step may be any."""
    value = ours["self"].meta["val"]
    moved = [
        n
        for n, own, size in zip(ours.get("stride", ()), value.stride(), value.shape, strict=False)
        if size > 1 and n != own
    ]
    whole = tuple(ours.get("size", ())) == tuple(value.shape) and ours.get("storage_offset") is None
    return whole and not moved and walk.alike(theirs["self"], ours["self"])


def _bag(walk: _Walk, theirs: Mapping[str, Any], ours: Mapping[str, Any], made: fx.Node) -> bool:
    return walk.alike(dict(theirs), dict(ours))


_SAME: dict[tuple[str, ...], Callable[[_Walk, Mapping[str, Any], Mapping[str, Any], fx.Node], bool]] = {
    ("view", "reshape", "_unsafe_view"): _view,
    **dict.fromkeys((("expand",), ("new_zeros",), ("new_ones",), ("new_empty",), ("new_full",)), _sized),
    **dict.fromkeys((("zeros",), ("ones",), ("full",), ("empty",)), _sized),
    ("split", "split_with_sizes"): _split,
    ("unsafe_split", "unsafe_split_with_sizes"): _split,
    ("slice",): _slice,
    ("alias", "as_strided"): _restrided,
    ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math"): _attention,
    ("_embedding_bag", "_embedding_bag_forward_only"): _bag,
}
