"""How is a traced computation written as JSON, and read from a sender that nobody knows?

``graph.json`` is ``{"format": 3, "answer": FORM, "places": [...], "nodes": [...]}``: what holds the answer and how it is called are
described in :mod:`prunus.ship.graph_files.call_file`. A node is ``[name, kind, target, arguments, named arguments]``, and takes
only what nodes before it give, so nothing can dangle or go round in circles. Kinds, in this order: ``parameter`` and ``buffer``
(target: the tensor's name in the model), ``input`` (target: the argument's name), ``constant`` (like ``buffer``) and ``call``
(target: an operation), ``output``.
The arguments of an input are its sizes: a number, or ``[LEAST, MOST or null, NAME]`` where others will do; sizes of one name are
one. Format 1 had none of them, and format 2 no names, answer and places.
Plain values are JSON's own; others are ``{"node": NAME}``, ``{"dtype": ...}``, ``{"layout": ...}``, ``{"memory_format": ...}``,
``{"float": "inf" | "-inf" | "nan"}``, and ``{"device": "model"}``, which is wherever the model lies.
"""

from __future__ import annotations

import json
import keyword
import math
import operator
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from prunus.apply.traced.limits import Limits, Span
from prunus.apply.traced.regraph import Called, PrunedGraph
from prunus.core.errors import BundleError, raise_if_out_of_memory
from prunus.ship.graph_files.allowed_operations import name_of, operation
from prunus.ship.graph_files.argument_types import LARGEST_INT, Made, fit_arguments, made_by
from prunus.ship.graph_files.call_file import CALL_KEYS, argument_names, read_call, written_form
from prunus.ship.graph_limits import MOST_NODES

__all__ = ["CONSTANTS", "read_graph", "sizes_of_inputs", "state_names", "write_graph"]

FORMAT = 3
_FORMATS = (1, 2, 3)
CONSTANTS = "graph_module."
"""Where a :class:`PrunedGraph` keeps the constants of its trace."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_SIZE_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_MOST_DIMS = 17
_DEEPEST = 8
_LONGEST_LIST = 16_384
_OF_SIZES = (operator.add, operator.mul, operator.floordiv, operator.mod, operator.truediv, operator.pow)
_KINDS = ("parameter", "buffer", "input", "constant", "call", "output")


def _named(kind: type, names: str) -> dict[str, Any]:
    found = {name: getattr(torch, name, None) for name in names.split()}
    return {name: value for name, value in found.items() if isinstance(value, kind)}


_WORDS: dict[str, dict[str, Any]] = {
    "dtype": _named(
        torch.dtype,
        "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool complex32 complex64 complex128",
    ),
    "layout": _named(torch.layout, "strided"),
    "memory_format": _named(torch.memory_format, "contiguous_format preserve_format channels_last channels_last_3d"),
    "float": {str(value): value for value in (math.inf, -math.inf, math.nan)},
}


def write_graph(graph: PrunedGraph) -> str:
    """Return the text of ``graph.json``: the same for the same computation, one node a line, no spaces.

    The computation must know its limits.

    Raises:
        BundleError: it holds something that a graph may not name.
    """
    parameters = {name for name, _ in graph.named_parameters(remove_duplicate=False)}
    states = iter(graph.names)
    assert graph.limits is not None
    sizes = iter(graph.limits.spans)
    arguments = iter(argument_names(graph.signature))
    lines = []
    for node in graph.graph_module.graph.nodes:
        if node.op == "placeholder":
            name = next(states, None)
            kind = "input" if name is None else "parameter" if name in parameters else "buffer"
            if name is None:
                row = [node.name, kind, next(arguments), [_size(span) for span in next(sizes)], {}]
            else:
                row = [node.name, kind, name, [], {}]
        elif node.op == "get_attr":
            row = [node.name, "constant", CONSTANTS + node.target, [], {}]
        elif node.op == "output":
            row = [node.name, "output", None, _written(node.args[0]), {}]
        elif node.op == "call_function":
            try:
                row = [node.name, "call", name_of(node.target), _written(node.args), _written(node.kwargs)]
            except BundleError as error:
                raise BundleError(f"node {node.name!r}: {error}") from error
        else:
            raise BundleError(f"a graph of tensor operations was expected: got a {node.op} of {node.target!r}")
        lines.append(json.dumps(row, sort_keys=True, separators=(",", ":"), allow_nan=False))
    call = f'"answer":{json.dumps(written_form(graph.answer))},"places":{json.dumps(list(graph.signature.places))}'
    return f'{{"format":{FORMAT},{call},"nodes":[\n' + ",\n".join(lines) + "\n]}\n"


def _size(span: Span) -> Any:
    return span.least if span.least == span.most else [span.least, span.most, span.name]


def _written(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, torch.device):
        return {"device": "model"}
    if isinstance(value, (list, tuple)):
        return [_written(part) for part in value]
    if isinstance(value, Mapping):
        return {name: _written(part) for name, part in value.items()}
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    for tag, words in _WORDS.items():
        for word, meant in words.items():
            if value is meant or (tag == "float" and isinstance(value, float) and str(value) == word):
                return {tag: word}
    raise BundleError(f"a graph can't hold a value like {value!r} of type {type(value).__name__}")


def state_names(tree: Any, *, most_nodes: int = MOST_NODES) -> tuple[str, ...]:
    """Return the names of all tensors that the parsed ``graph.json`` needs.

    Raises:
        BundleError: it isn't a list of nodes.
    """
    return tuple(row[2] for row in _rows(tree, most_nodes) if row[1] in ("parameter", "buffer", "constant"))


def sizes_of_inputs(tree: Any, *, most_nodes: int = MOST_NODES) -> tuple[tuple[Span, ...], ...]:
    """Return the sizes that a parsed ``graph.json`` says it holds for, by input; nothing for one that says none.

    Raises:
        BundleError: it isn't a list of nodes, or a size is none.
    """
    return tuple(tuple(map(_span, row[3])) for row in _rows(tree, most_nodes) if row[1] == "input")


def read_graph(
    tree: Any,
    tensors: Mapping[str, Tensor],
    *,
    device: str = "cpu",
    most_nodes: int = MOST_NODES,
    n_inputs: int = 1,
    n_outputs: int | None = 1,
    keywords: Sequence[str] = (),
) -> PrunedGraph:
    """Return the computation that the parsed ``graph.json`` describes, on ``tensors``.

    Its sizes aren't checked yet: see :func:`prunus.ship.graph_files.input_fit.follow`.

    Args:
        tensors: the parameters, buffers and constants, by the names of :func:`state_names`.
        device: where tensors that the computation makes are to lie.
        n_inputs, n_outputs: how many tensors it takes and gives (None: any number of outputs).
        keywords: the names by which its inputs come; nothing where they come by position.

    Raises:
        BundleError: it isn't a computation that :func:`write_graph` could have written; the message says at which node.
    """
    rows = _rows(tree, most_nodes)
    reader = _Reader(tensors, device, n_inputs, n_outputs)
    for row in rows:
        reader.add(*row)
    names = [row[2] for row in rows if row[1] == "input"]
    return reader.finish(lambda: read_call(tree, names, reader.n_outputs, keywords))


def _rows(tree: Any, most_nodes: int) -> list[tuple[str, str, Any, list[Any], dict[str, Any]]]:
    number = tree.get("format") if isinstance(tree, dict) else None
    if type(number) is not int:
        raise BundleError(f"expected a mapping with format and nodes, got {reprlib.repr(tree)}")
    if number not in _FORMATS:
        raise BundleError(f"expected a graph of format {FORMAT}, got {number}; load it with the prunus that wrote it")
    keys = ("format", "nodes", *(CALL_KEYS if number > 2 else ()))
    if set(tree) != set(keys):
        raise BundleError(f"expected a mapping with {', '.join(keys)}, got {reprlib.repr(tree)}")
    nodes = tree["nodes"]
    if not isinstance(nodes, list) or not 0 < len(nodes) <= most_nodes:
        got = f"{len(nodes)}" if isinstance(nodes, list) else reprlib.repr(nodes)
        raise BundleError(f"nodes must be a list of 1 to {most_nodes} nodes, got {got}")
    without = ("output",) if number > 2 else ("input", "output")
    for number, row in enumerate(nodes):
        shape = [type(part) for part in row] if isinstance(row, list) else []
        if shape not in ([str, str, str, list, dict], [str, str, type(None), list, dict]) or row[1] not in _KINDS:
            raise BundleError(
                f"node {number} must be [name, one of {', '.join(_KINDS)}, target, [], {{}}]: got {reprlib.repr(row)}"
            )
        if (row[2] is None) != (row[1] in without):
            raise BundleError(
                f"node {number}: a target goes with every kind but {' and '.join(without)}, "
                f"got {row[1]!r} with {reprlib.repr(row[2])}"
            )
    return nodes


class _Reader:
    """Builds the graph node by node; what isn't known yet can't be used."""

    def __init__(
        self, tensors: Mapping[str, Tensor], device: str, expected_inputs: int, expected_outputs: int | None
    ) -> None:
        self.tensors, self.device = tensors, torch.device(device)
        self.expected_inputs, self.expected_outputs = expected_inputs, expected_outputs
        self.graph = fx.Graph()
        self.made: dict[str, fx.Node] = {}
        self.states: dict[str, Tensor] = {}
        self.constants: dict[str, Tensor] = {}
        self.kinds: dict[fx.Node, Made] = {}
        self.stage = 0
        self.n_inputs, self.n_outputs = 0, 0
        self.spans: list[tuple[Span, ...]] = []

    def add(self, name: str, kind: str, target: Any, arguments: list[Any], named: dict[str, Any]) -> None:
        """Read one node."""
        if not _NAME.fullmatch(name) or keyword.iskeyword(name) or name in self.made:
            raise BundleError(f"a node needs a plain name of its own, got {name[:60]!r}")
        # States, then the input, then what is computed, then the output.
        stage = {"parameter": 0, "buffer": 0, "input": 1, "output": 3}.get(kind, 2)
        if stage < self.stage or self.stage == 3:
            raise BundleError(f"node {name!r}: a {kind} can't come here")
        self.stage = stage
        try:
            made = self.made[name] = self._node(name, kind, target, arguments, named)
        except BundleError as error:
            raise BundleError(f"node {name!r}: {error}") from error
        self.kinds.setdefault(made, "tensor")

    def _node(self, name: str, kind: str, target: Any, arguments: list[Any], named: dict[str, Any]) -> fx.Node:
        if kind == "output":
            wanted = self.expected_outputs or max(len(arguments), 1)
            if len(arguments) != wanted or named:
                raise BundleError(
                    f"this bundle's model has {_count(wanted, 'output')}, got {len(arguments) + len(named)}"
                )
            values = [self._value(argument) for argument in arguments]
            for value, argument in zip(values, arguments, strict=True):
                if not isinstance(value, fx.Node) or self.kinds.get(value) != "tensor":
                    raise BundleError(f"a bundle's model gives a tensor, got {reprlib.repr(argument)}")
            self.n_outputs = len(values)
            return self.graph.create_node("output", "output", (values,))
        if kind == "call":
            return self._call(name, target, arguments, named)
        if kind == "input" and not named:
            self.n_inputs += 1
            if len(arguments) > _MOST_DIMS:
                raise BundleError(f"an input has at most {_MOST_DIMS} dimensions, got {len(arguments)}")
            if arguments:
                self.spans.append(tuple(map(_span, arguments)))
            return self.graph.placeholder(name)
        if arguments or named:
            raise BundleError(f"a {kind} has no arguments, got {len(arguments) + len(named)}")
        if target not in self.tensors:
            raise BundleError(f"there is no tensor {target[:60]!r}")
        if kind == "constant":
            own = target.removeprefix(CONSTANTS)
            if own == target or not _is_free(own):
                raise BundleError(f"a constant is called {CONSTANTS}NAME, got {target[:60]!r}")
            self.constants[own] = self.tensors[target]
            return self.graph.get_attr(own)
        if target in self.states:
            raise BundleError(f"the tensor {target[:60]!r} comes twice")
        value = self.tensors[target]
        self.states[target] = nn.Parameter(value, value.is_floating_point()) if kind == "parameter" else value
        return self.graph.placeholder(name)

    def _call(self, name: str, target: str, arguments: list[Any], named: dict[str, Any]) -> fx.Node:
        function = operation(target)
        given, keywords = self._value(arguments), {key: self._value(value) for key, value in named.items()}
        if function is torch.ops.aten.zeros.default:
            keywords.pop("memory_format", None)  # what is read as zeros may have had one
        if problem := fit_arguments(function, given, keywords, self.kinds):
            raise BundleError(f"{target} can't be called so: {problem}")
        kind: Made
        if function in _OF_SIZES:
            if function is operator.pow:  # of whole numbers it could make one that fills the memory
                given = [given[0], given[1] if type(given[1]) is float else None]
            if not all(
                type(p) in (int, float) or (isinstance(p, fx.Node) and self.kinds.get(p) == "number") for p in given
            ):
                raise BundleError(f"{target} is for sizes only, got {reprlib.repr(arguments)}")
            kind = "number"
        elif function is operator.getitem:
            source, place = given
            several = isinstance(source, fx.Node) and self.kinds.get(source) == "tensors"
            if not several or type(place) is not int or place < 0:
                raise BundleError(
                    f"{target} takes a node of several tensors and a number, got {reprlib.repr(arguments)}"
                )
            kind = "tensor"
        else:
            kind = made_by(function)
        node = self.graph.create_node("call_function", function, tuple(given), keywords, name=name)
        self.kinds[node] = kind
        return node

    def _value(self, value: Any, depth: int = 0) -> Any:
        if depth > _DEEPEST:
            raise BundleError(f"values lie at most {_DEEPEST} lists deep")
        if isinstance(value, list):
            if len(value) > _LONGEST_LIST:
                raise BundleError(f"lists of at most {_LONGEST_LIST} values were expected, got {len(value)}")
            return [self._value(part, depth + 1) for part in value]
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise BundleError(f"a number must fit into 64 bits, got one of {value.bit_length()} bits")
        if not isinstance(value, dict):
            return value
        tag, word = next(iter(value.items())) if len(value) == 1 else ("", None)
        if tag == "node" and isinstance(word, str):
            if word not in self.made:
                raise BundleError(f"it takes {word[:60]!r}, which no node before it is")
            return self.made[word]
        if value == {"device": "model"}:
            return self.device
        if isinstance(word, str) and word in _WORDS.get(tag, {}):
            return _WORDS[tag][word]
        raise BundleError(f"{reprlib.repr(value)} is no value that a graph may hold")

    def finish(self, called: Callable[[], Called]) -> PrunedGraph:
        """Return the module."""
        if self.stage != 3 or self.n_inputs != self.expected_inputs:
            wanted = f"{_count(self.expected_inputs, 'input')} and one output"
            raise BundleError(f"a graph has {wanted}, got {self.n_inputs} and {int(self.stage == 3)}")
        if len(self.spans) not in (0, self.n_inputs):
            raise BundleError(f"all inputs have sizes, or none: got {len(self.spans)} of {self.n_inputs}")
        try:
            module = fx.GraphModule(self.constants, self.graph)
            made = PrunedGraph(module, self.states, _parameters(self.states), called())
            made.limits = Limits(tuple(self.spans)) if self.spans else None
            return made
        except (KeyError, TypeError, SyntaxError, RuntimeError) as error:
            raise_if_out_of_memory(error)
            raise BundleError(f"the names of its tensors make no model: {str(error)[:120]}") from error


def _span(value: Any) -> Span:
    """Return the sizes that an input's dimension may have."""
    least, most, name = value if isinstance(value, list) and len(value) == 3 else (value, value, "")
    fits = all(type(n) is int and 0 <= n <= LARGEST_INT for n in (least, most) if n is not None) and least is not None
    named = isinstance(value, list)
    if not fits or type(name) is not str or (named and not _SIZE_NAME.fullmatch(name)):
        raise BundleError(
            f"a size is a number, or [LEAST, MOST or null, NAME], of at most {LARGEST_INT}: got {reprlib.repr(value)}"
        )
    return Span(least, most, name)


def _count(number: int, what: str) -> str:
    return f"one {what}" if number == 1 else f"{number} {what}s"


def _is_free(name: str) -> bool:
    """Tell whether a module may call a tensor so."""
    taken = hasattr(fx.GraphModule, name) or hasattr(nn.Module(), name)
    return _NAME.fullmatch(name) is not None and not keyword.iskeyword(name) and not taken


def _parameters(states: Mapping[str, Tensor]) -> frozenset[str]:
    return frozenset(name for name, value in states.items() if isinstance(value, nn.Parameter))
