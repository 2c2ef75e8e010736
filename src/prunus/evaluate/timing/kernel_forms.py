"""Which operations of an exported graph are written otherwise, so that a runtime's fast kernels take them?

What a graph computes stays, number for number. Two forms that torch's exporter writes are slow in ONNX Runtime on a processor
(measured: docs/explanation/arithmetic-and-time.md):

* an addition before a layer norm is fused with it into a kernel without vectors, several times slower than both alone; the
  runtime's pattern doesn't know ``Sum``, which is the same of two tensors;
* the keys of an attention are turned through five operations on shapes and two reshapes, at every call, where one transposition of
  the last two dimensions does it, which is then part of the product.
"""

from __future__ import annotations

from typing import Any

from prunus.core.code.extras import require

__all__ = ["use_fast_forms"]


def use_fast_forms(graph: Any) -> None:
    """Rewrite a graph of ``onnx_ir`` in place."""
    for node in list(graph):
        if node.graph is None:  # removed on the way
            continue
        if node.op_type == "LayerNormalization":
            added = _made_by(node.inputs[0], "Add")
            if added is not None:
                added.op_type = "Sum"
        elif node.op_type == "Reshape":
            _transpose_at_once(graph, node)


def _transpose_at_once(graph: Any, last: Any) -> None:
    """Put one transposition of the last two dimensions in the place of reshape, transpose, reshape."""
    turned = _made_by(last.inputs[0], "Transpose")
    first = None if turned is None or _perm(turned) != [0, 2, 1] else _made_by(turned.inputs[0], "Reshape")
    if first is None:
        return
    x = first.inputs[0]
    rank = _rank(x)
    if rank is None or rank < 3:
        return
    joined, apart = _sizes(first.inputs[1], x), _sizes(last.inputs[1], x)
    if joined != [-1, "-2", "-1"] or apart != ["before", "-1", "-2"]:
        return
    ir = require("onnx_ir", extra="onnx")
    perm = [*range(rank - 2), rank - 1, rank - 2]
    made = ir.Node("", "Transpose", [x], [ir.AttrInt64s("perm", perm)], num_outputs=1)
    made.metadata_props.update(last.metadata_props)
    graph.insert_before(last, made)
    new, old = made.outputs[0], last.outputs[0]
    new.shape, new.type, new.name = old.shape, old.type, old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    _remove_unused(graph, last)


def _sizes(value: Any, of: Any) -> list[Any] | None:
    """Return the parts that a list of sizes is put together of, in terms of the shape of ``of``; None where they aren't known."""
    node = _made_by(value, "Concat")
    if node is None:
        return None
    found: list[Any] = []
    for part in node.inputs:
        number = _numbers(part)
        if number is not None:
            found += number
            continue
        cut = _made_by(part, "Slice")
        shape = None if cut is None else _made_by(cut.inputs[0], "Shape")
        if cut is None or shape is None or shape.inputs[0] is not of or not _is_whole(shape) or len(cut.inputs) > 3:
            return None
        found.append(_SLICES.get((_one(cut.inputs[1]), _one(cut.inputs[2]))))
    return found


_START, _END = -(1 << 63), (1 << 63) - 1
_SLICES: dict[tuple[int | None, int | None], str] = {
    (0, -2): "before",
    (_START, -2): "before",
    (-2, -1): "-2",
    (-1, _END): "-1",
}
"""What a slice of a shape holds, by its start and end."""


def _is_whole(shape: Any) -> bool:
    """Tell whether a ``Shape`` gives all sizes."""
    return "end" not in shape.attributes and ("start" not in shape.attributes or shape.attributes["start"].value == 0)


def _one(value: Any) -> int | None:
    numbers = _numbers(value)
    return numbers[0] if numbers is not None and len(numbers) == 1 else None


def _numbers(value: Any) -> list[int] | None:
    """Return the numbers of a constant."""
    held = value.const_value
    if held is None:
        made = _made_by(value, "Constant")
        held = made.attributes["value"].value if made is not None and "value" in made.attributes else None
    return None if held is None or held.dtype.name not in ("INT64", "INT32") else held.numpy().reshape(-1).tolist()


def _perm(node: Any) -> list[int]:
    return list(node.attributes["perm"].value) if "perm" in node.attributes else []


def _rank(value: Any) -> int | None:
    if value.shape is not None:
        return len(value.shape)
    made = _made_by(value, "Transpose")
    return None if made is None else len(_perm(made)) or None


def _made_by(value: Any, kind: str) -> Any:
    """Return the operation that computes a value, if it is of that kind."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == kind and node.domain == "" else None


def _remove_unused(graph: Any, node: Any) -> None:
    """Remove an operation and all that only it needed."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.graph is None or any(output.uses() or output.is_graph_output() for output in one.outputs):
            continue
        makers = {id(value): value.producer() for value in one.inputs if value is not None}
        graph.remove(one, safe=True)
        waiting += [maker for maker in makers.values() if maker is not None]
